//! `aflora report`: tables, charts and a page from results files.

use aflora_report::report;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// What the command takes.
#[derive(Args)]
pub struct Report {
    /// The folder of results files (*.json), or one of them.
    #[arg(default_value = "experiments/results")]
    results: PathBuf,
    /// The folder to write to; beside the results if not given.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Words for `--help`.
pub const HELP: &str = "\
Writes, for each results file, NAME.md (tables), NAME.csv (a row a run) and its heat maps (SVG), and
report.html over all of them: one page with every chart, which needs no network. The same results
make the same bytes. A damaged file is named, the others are rendered, and the exit code is 1.

Example:
  aflora report experiments/results --out report";

impl Report {
    /// Writes the reports.
    ///
    /// # Errors
    /// A results file is damaged, or the folder cannot be written.
    pub fn run(self) -> Result<()> {
        Ok(report::command(&self.results, self.out.as_deref())?)
    }
}

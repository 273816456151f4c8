//! `aflora report`: tables, charts and a page from results files or runs.

use aflora_report::report;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// What the command takes.
#[derive(Args)]
pub struct Report {
    /// Folders of results files (*.json), or some of these; or runs, or a folder of runs.
    #[arg(default_value = "experiments/results")]
    results: Vec<PathBuf>,
    /// The folder to write to; beside the results, or in the folder of the run or runs, if not given.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Words for `--help`.
pub const HELP: &str = "\
Writes, for each results file, NAME.md (tables), NAME.csv (a row a run) and its heat maps (SVG), and
report.html over all of them: one page with every chart, which needs no network. The same results
make the same bytes. A damaged file is named, the others are rendered, and the exit code is 1.
Runs that are named, or lie in a folder that holds no results, are one report together.

Examples:
  aflora report experiments/results --out report
  aflora report runs/reviews-minilm-aflora-seed42
  aflora report runs/mine runs/other --out report";

impl Report {
    /// Writes the reports.
    ///
    /// # Errors
    /// A results file is damaged, or the folder cannot be written.
    pub fn run(self) -> Result<()> {
        Ok(report::command(&self.results, self.out.as_deref())?)
    }
}

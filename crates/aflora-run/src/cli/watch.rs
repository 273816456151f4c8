//! `aflora watch`: a run under way.

use aflora_report::watch;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// What the command takes.
#[derive(Args)]
pub struct Watch {
    /// The run's folder.
    run: PathBuf,
}

/// Words for `--help`.
pub const HELP: &str = "\
Shows progress, losses, trainable parameters, freezing and evaluations; ends when the run ends, or
with q or Ctrl-C, which leave the run alone. Where standard output is no terminal it prints one
summary.

Example:
  aflora watch runs/reviews-minilm-aflora-seed42";

impl Watch {
    /// Watches until the run ends or somebody leaves.
    ///
    /// # Errors
    /// There is no run.
    pub fn run(self) -> Result<()> {
        Ok(watch::watch(&self.run)?)
    }
}

//! `aflora ls`: the runs in a folder.

use aflora_report::list;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// What the command takes.
#[derive(Args)]
pub struct Ls {
    /// The folder that holds the runs.
    #[arg(default_value = list::RUNS)]
    folder: PathBuf,
}

impl Ls {
    /// Prints them, with the settings in which runs of one task, model and method differ.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn run(self) -> Result<()> {
        print!("{}", list::list(&self.folder)?);
        Ok(())
    }
}

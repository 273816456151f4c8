//! `aflora keys`: every key that can be set.

use aflora_run::config::help;
use clap::Args;

/// What the command takes.
#[derive(Args)]
pub struct Keys {
    /// Print a run file that holds the keys of every run as comments: configs/experiment.yaml.
    #[arg(long)]
    run_file: bool,
}

impl Keys {
    /// Prints the table, or the run file.
    pub fn run(&self) {
        match self.run_file {
            true => print!("{}", help::run_file()),
            false => print!("{}", help::table()),
        }
    }
}

//! `aflora replay`: when a recorded run's matrices would have frozen by another rule.

use aflora_run::replay;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// What the command takes.
#[derive(Args)]
pub struct Replay {
    /// The folder of the run.
    run: PathBuf,
    /// Settings of freezing on top of the defaults, such as rule=matrix_rank.
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// Words for `--help`.
pub const HELP: &str = "\
Needs a run with record_gradients=true whose matrices never froze (method=aflora-trainable, or lora).
Without settings: every rule with every score. With settings of freezing: each matrix, as CSV.

Examples:
  aflora replay runs/recorded
  aflora replay runs/recorded rule=matrix_rank score='|p*g|' t_f=50%";

impl Replay {
    /// Replays.
    ///
    /// # Errors
    /// The settings are wrong, or the run has no record of gradients.
    pub fn run(self) -> Result<()> {
        let freeze = replay::settings(&self.overrides)?;
        match self.overrides.is_empty() {
            true => print!("{}", replay::compare(&self.run, &freeze)?),
            false => print!("{}", replay::replay(&self.run, &freeze)?.csv()),
        }
        Ok(())
    }
}

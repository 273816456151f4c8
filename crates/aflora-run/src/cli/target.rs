//! What `run`, `validate` and `inspect` take: a configuration.

use clap::Args;
use std::path::PathBuf;

/// A run file and settings on top of it.
#[derive(Args)]
pub struct RunTarget {
    /// The run file, such as configs/experiment.yaml, or the config.yaml of a run.
    pub config: PathBuf,
    /// Settings on top of it: key=value, the value in YAML.
    #[arg(value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
}

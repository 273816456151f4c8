//! What `run`, `validate` and `inspect` take: a configuration.

use aflora_run::config::{self, ConfigErrors, Resolved};
use clap::Args;
use std::path::Path;

/// A run file and settings on top of it.
#[derive(Args)]
pub struct RunTarget {
    /// The run file, such as configs/experiment.yaml, or the config.yaml of a run; may be left out
    /// where the settings say it all.
    #[arg(value_name = "CONFIG", required = true)]
    config: String,
    /// Settings on top of it: key=value, the value in YAML.
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

impl RunTarget {
    /// The configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self) -> Result<Resolved, ConfigErrors> {
        match self.run_file() {
            Some(file) => config::load(file, &self.overrides),
            None => {
                let settings = [std::slice::from_ref(&self.config), &self.overrides].concat();
                config::load_all(None, &settings)
            }
        }
    }

    /// What was named, for a message.
    pub fn shown(&self) -> String {
        let named = self.run_file().map(|file| file.display().to_string());
        named.unwrap_or_else(|| "the settings".into())
    }

    /// The run file: what comes first, unless it is a setting.
    fn run_file(&self) -> Option<&Path> {
        let path = Path::new(&self.config);
        (!self.config.contains('=') || path.exists()).then_some(path)
    }
}

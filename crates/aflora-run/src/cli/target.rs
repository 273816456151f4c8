//! What `run`, `validate` and `inspect` take: a configuration.

use aflora_run::config::{self, ConfigErrors, Resolved};
use aflora_run::hub::FoundAdapter;
use aflora_run::UsageError;
use clap::Args;
use std::path::PathBuf;

/// A run file and settings on top of it.
#[derive(Args)]
pub struct RunTarget {
    /// The run file, such as configs/experiment.yaml, or the config.yaml of a run; may be left out
    /// where the settings say it all.
    #[arg(value_name = "CONFIG", required = true)]
    config: PathBuf,
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
        match self.setting() {
            None => config::load(&self.config, &self.overrides),
            Some(first) => {
                let settings = [&[first.to_string()], &self.overrides[..]].concat();
                config::load_all(None, &settings)
            }
        }
    }

    /// The adapter's folder, where that is what was named, or its name on the hub.
    ///
    /// # Errors
    /// It cannot be had from there.
    pub fn adapter(&self) -> Result<Option<PathBuf>, UsageError> {
        if !self.overrides.is_empty() {
            return Ok(None);
        }
        let found = FoundAdapter::find(&self.config, &mut |_, _| {}).map_err(UsageError)?;
        Ok(found.map(|found| found.folder))
    }

    /// What was named, for a message.
    pub fn shown(&self) -> String {
        let file = || self.config.display().to_string();
        self.setting().map_or_else(file, |_| "the settings".into())
    }

    /// What comes first, where it is a setting and no run file.
    fn setting(&self) -> Option<&str> {
        self.config.to_str().filter(|text| text.contains('=') && !self.config.exists())
    }
}

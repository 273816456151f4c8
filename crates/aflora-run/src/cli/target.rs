//! What `run`, `validate` and `inspect` take: a configuration.

use aflora_record::names;
use aflora_run::config::{self, ConfigErrors, Resolved};
use aflora_run::hub::FoundAdapter;
use aflora_run::UsageError;
use clap::Args;
use std::path::PathBuf;

/// A run file and settings on top of it.
#[derive(Args)]
pub struct RunTarget {
    /// The run file, such as configs/experiment.yaml, or a run's folder; may be left out where the
    /// settings say it all.
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
            None if self.is_run() => {
                config::load(&self.config.join(names::CONFIG), &self.overrides)
            }
            None => config::load(&self.config, &self.overrides),
            Some(first) => {
                let settings = [&[first.to_string()], &self.overrides[..]].concat();
                config::load_all(None, &settings)
            }
        }
    }

    /// The adapter's folder, where that is what was named, or a run's that has one, or its name on the
    /// hub.
    ///
    /// # Errors
    /// It cannot be had from there.
    pub fn adapter(&self) -> Result<Option<PathBuf>, UsageError> {
        if !self.overrides.is_empty() {
            return Ok(None);
        }
        // A run's folder has its adapter in one of its own.
        let of_run = Some(self.config.join(names::ADAPTER));
        let of_run = of_run.filter(|adapter| self.is_run() && adapter.is_dir());
        let named = of_run.as_ref().unwrap_or(&self.config);
        let found = FoundAdapter::find(named, &mut |_, _| {}).map_err(UsageError)?;
        Ok(found.map(|found| found.folder))
    }

    /// What was named, for a message.
    pub fn shown(&self) -> String {
        let file = || self.config.display().to_string();
        self.setting().map_or_else(file, |_| "the settings".into())
    }

    /// Whether a run's folder was named.
    fn is_run(&self) -> bool {
        self.config.join(names::CONFIG).is_file()
    }

    /// What comes first, where it is a setting and no run file.
    fn setting(&self) -> Option<&str> {
        self.config.to_str().filter(|text| text.contains('=') && !self.config.exists())
    }
}

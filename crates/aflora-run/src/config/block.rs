//! A block of a configuration: what a task, a model or a method says.

use super::problem::SourceSpan;
use super::tree::Setting;

/// A block of a configuration (a task, a model or a method) with its settings.
#[derive(Debug, Default)]
pub struct ConfigBlock {
    /// The file's name without `.yaml`.
    pub name: String,
    /// The file's settings, then what the run file and the command line say about the block.
    pub settings: Vec<Setting>,
    /// Where it was named.
    pub origin: Option<SourceSpan>,
    /// Whether it was found and read.
    pub whole: bool,
}

impl ConfigBlock {
    /// The settings that stand below `key`.
    pub fn below(&self, key: &str) -> Vec<Setting> {
        self.settings.iter().filter_map(|s| s.below(key)).collect()
    }
}

//! What the files of some kinds of models tell beyond what those of all do.

use super::from_config::ModelKeys;
use super::model::ModelHeader;
use super::writer::Written;
use serde_json::{Map, Value};
use tch::Tensor;

/// What a family's files have of their own, in both directions.
#[derive(Debug)]
pub(super) struct Family {
    /// The keys of its headers, behind the architecture's name.
    pub keys: &'static [&'static str],
    /// Its tensors that are no weights.
    pub tensors: &'static [&'static str],
    /// The scalings of the rotary angles, by their names in config.json, that are written.
    pub scalings: &'static [&'static str],
    /// Completes a config.json by what a header tells.
    pub read: fn(&ModelHeader<'_>, &mut Map<String, Value>) -> Result<(), String>,
    /// The keys of a header for a config.json, behind the architecture's name.
    pub write: fn(&ModelKeys<'_>) -> Result<Named<Written>, String>,
    /// The tensors that are no weights for a config.json.
    pub made: fn(&ModelKeys<'_>) -> Result<Named<Tensor>, String>,
}

/// Things with their names.
type Named<T> = Vec<(&'static str, T)>;

/// A family without anything of its own.
pub(super) const PLAIN: Family = Family {
    keys: &[],
    tensors: &[],
    scalings: &["linear"],
    read: |_, _| Ok(()),
    write: |_| Ok(Vec::new()),
    made: |_| Ok(Vec::new()),
};

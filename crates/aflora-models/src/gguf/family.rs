//! What the files of some kinds of models tell beyond what those of all do.

use super::from_config::ModelKeys;
use super::model::ModelHeader;
use super::writer::Written;
use serde_json::{Map, Value};
use tch::Tensor;

/// What a family's files have of their own, in both directions.
#[derive(Debug)]
pub(super) struct Family {
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
pub(super) const PLAIN: Family =
    Family { read: |_, _| Ok(()), write: |_| Ok(Vec::new()), made: |_| Ok(Vec::new()) };

//! A header's config.json and a config.json's header, with what the family of the model adds.

use super::architecture::Architecture;
use super::family::{Family, PLAIN};
use super::from_config::ModelKeys;
use super::model::ModelHeader;
use super::precision::Precision;
use super::writer::{GgufFile, Written};
use super::{gemma, phi3, rope};
use crate::Error;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use tch::Tensor;

fn family(architecture: &Architecture) -> &'static Family {
    match architecture.name {
        "llama" => &rope::FAMILY,
        "gemma2" => &gemma::SECOND,
        "gemma3" => &gemma::THIRD,
        "phi3" => &phi3::FAMILY,
        _ => &PLAIN,
    }
}

impl ModelHeader<'_> {
    /// The model's config.json.
    ///
    /// # Errors
    /// The header lacks something, or asks for something that is not read.
    pub(crate) fn config(&self) -> Result<Map<String, Value>, String> {
        let mut config = self.common()?;
        (family(self.architecture).read)(self, &mut config)?;
        Ok(config)
    }
}

impl ModelKeys<'_> {
    /// The keys of a model's header.
    ///
    /// # Errors
    /// The config.json lacks something, or asks for something that such files do not tell.
    pub(crate) fn of_model(&self) -> Result<Vec<(String, Written)>, String> {
        let mut keys = self.common()?;
        let name = self.architecture.name;
        for (key, value) in (family(self.architecture).write)(self)? {
            keys.push((format!("{name}.{key}"), value));
        }
        Ok(keys)
    }

    /// The file of a model with these weights and keys.
    ///
    /// # Errors
    /// A weight has no place in such files.
    pub(crate) fn file(
        &self,
        keys: Vec<(String, Written)>,
        weights: BTreeMap<String, Tensor>,
        precision: Precision,
    ) -> crate::Result<GgufFile> {
        let mut tensors = Vec::new();
        for (name, weight) in weights {
            tensors.push((self.stored_name(&name)?, self.arranged(&name, &weight)?));
        }
        let made = (family(self.architecture).made)(self).map_err(Error::Unbuilt)?;
        tensors.extend(made.into_iter().map(|(name, tensor)| (name.to_string(), tensor)));
        Ok(GgufFile { keys, tensors, precision })
    }
}

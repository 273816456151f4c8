//! The header of a model whose config.json this is.

use super::architecture::Architecture;
use super::precision::Precision;
use super::rope;
use super::writer::{GgufFile, Written};
use crate::Error;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use tch::Tensor;

/// A config.json as the keys of a header.
pub(crate) struct ModelKeys<'a> {
    config: &'a Map<String, Value>,
    architecture: &'static Architecture,
    heads: [i64; 2],
}

impl<'a> ModelKeys<'a> {
    /// Of a model of this `model_type`.
    ///
    /// # Errors
    /// No files are written of such models, or the config.json lacks something.
    pub(crate) fn of(config: &'a Map<String, Value>, model_type: &str) -> Result<Self, String> {
        let architecture = Architecture::of_model(model_type)?;
        let mut keys = ModelKeys { config, architecture, heads: [1, 1] };
        let heads = keys.size("num_attention_heads")?;
        let key_value_heads = match config.get("num_key_value_heads") {
            None | Some(Value::Null) => heads,
            Some(_) => keys.size("num_key_value_heads")?,
        };
        keys.heads = [heads, key_value_heads].map(i64::from);
        Ok(keys)
    }

    fn size(&self, key: &str) -> Result<u32, String> {
        let value = self.config.get(key).and_then(Value::as_u64);
        let size = value.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
        size.ok_or_else(|| {
            format!("config.json has no `{key}`, a whole number, which a GGUF file tells")
        })
    }

    fn head_dim(&self) -> Result<u32, String> {
        match self.config.get("head_dim") {
            None | Some(Value::Null) => Ok(self.size("hidden_size")? / self.heads[0] as u32),
            Some(_) => self.size("head_dim"),
        }
    }

    /// The keys of an adapter's header.
    pub(crate) fn of_adapter(&self, alpha: f64) -> Vec<(String, Written)> {
        let text = |text: &str| Written::Text(text.into());
        vec![
            ("general.architecture".into(), text(self.architecture.name)),
            ("general.type".into(), text("adapter")),
            ("adapter.type".into(), text("lora")),
            ("adapter.lora.alpha".into(), Written::F32(alpha as f32)),
        ]
    }

    /// The keys of a model's header.
    ///
    /// # Errors
    /// The config.json lacks something, or asks for something that such files do not tell.
    pub(crate) fn of_model(&self) -> Result<Vec<(String, Written)>, String> {
        self.check()?;
        let (size, name) = (|key: &str| self.size(key), self.architecture.name);
        let hidden = size("hidden_size")?;
        let [heads, key_value_heads] = self.heads.map(|n| n as u32);
        let head_dim = self.head_dim()?;
        let eps = self.config.get("rms_norm_eps").and_then(Value::as_f64);
        let eps = eps.ok_or("config.json has no `rms_norm_eps`, which a GGUF file tells")?;
        let text = |text: &str| Written::Text(text.into());
        let mut keys = vec![
            ("general.architecture".to_string(), text(name)),
            ("general.type".to_string(), text("model")),
        ];
        let mut say = |key: &str, value: Written| keys.push((format!("{name}.{key}"), value));
        say("vocab_size", Written::U32(size("vocab_size")?));
        say("context_length", Written::U32(size("max_position_embeddings")?));
        say("embedding_length", Written::U32(hidden));
        say("block_count", Written::U32(size("num_hidden_layers")?));
        say("feed_forward_length", Written::U32(size("intermediate_size")?));
        say("attention.head_count", Written::U32(heads));
        say("attention.head_count_kv", Written::U32(key_value_heads));
        say("attention.key_length", Written::U32(head_dim));
        say("attention.value_length", Written::U32(head_dim));
        say("attention.layer_norm_rms_epsilon", Written::F32(eps as f32));
        say("rope.dimension_count", Written::U32(head_dim));
        let (theta, scaling) = self.rope();
        say("rope.freq_base", Written::F32(theta as f32));
        if let Some(scaling) = scaling.filter(|keys| kind(keys) == Some("linear")) {
            let factor = scaling.get("factor").and_then(Value::as_f64).unwrap_or(1.0);
            say("rope.scaling.type", text("linear"));
            say("rope.scaling.factor", Written::F32(factor as f32));
        }
        Ok(keys)
    }

    /// Refuses what such files do not tell.
    fn check(&self) -> Result<(), String> {
        let activation = self.config.get("hidden_act").and_then(Value::as_str);
        if let Some(other) = activation.filter(|name| !matches!(*name, "silu" | "swish")) {
            return Err(format!("`hidden_act` is `{other}`, which a GGUF file does not tell"));
        }
        if self.config.get("use_sliding_window") == Some(&Value::Bool(true)) {
            return Err("`use_sliding_window` is true, which a GGUF file does not tell".into());
        }
        match self.rope().1.and_then(kind) {
            None | Some("default" | "linear" | rope::LLAMA3) => Ok(()),
            Some(other) => {
                Err(format!("the rotary scaling `{other}` is not written to GGUF files"))
            }
        }
    }

    /// θ, and the keys that scale the angles.
    fn rope(&self) -> (f64, Option<&'a Map<String, Value>>) {
        let object = |key: &str| {
            self.config.get(key).and_then(Value::as_object).filter(|keys| !keys.is_empty())
        };
        let scaling = object("rope_scaling").or(object("rope_parameters"));
        let inner = scaling.and_then(|keys| keys.get("rope_theta"));
        let theta = inner.or(self.config.get("rope_theta")).and_then(Value::as_f64);
        (theta.unwrap_or(10_000.0), scaling)
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
        let (theta, scaling) = self.rope();
        if let Some(scaling) = scaling.filter(|keys| kind(keys) == Some(rope::LLAMA3)) {
            let head_dim = self.head_dim().map_err(Error::Unbuilt)?;
            let factors = rope::factors(scaling, theta, head_dim.into());
            let factors = factors.map_err(Error::Unbuilt)?;
            tensors.push((rope::FACTORS.into(), Tensor::from_slice(&factors)));
        }
        Ok(GgufFile { keys, tensors, precision })
    }

    /// The name of the weight `own` in such files.
    ///
    /// # Errors
    /// They have no place for it.
    pub(crate) fn stored_name(&self, own: &str) -> crate::Result<String> {
        self.architecture.stored_name(own).ok_or_else(|| {
            let name = self.architecture.name;
            Error::Unbuilt(format!("`{own}` has no place in a GGUF file of a {name}"))
        })
    }

    /// The weight `own`, or a matrix with its rows, as such files have it.
    ///
    /// # Errors
    /// libtorch refuses.
    pub(crate) fn arranged(&self, own: &str, weight: &Tensor) -> crate::Result<Tensor> {
        self.architecture.arrangement(own, self.heads).done(weight)
    }
}

/// The name of a rotary scaling.
fn kind(keys: &Map<String, Value>) -> Option<&str> {
    keys.get("rope_type").or(keys.get("type")).and_then(Value::as_str)
}

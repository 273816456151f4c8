//! The header of a model whose config.json this is.

use super::architecture::Architecture;
use super::writer::Written;
use super::yarn::{self, YARN};
use crate::Error;
use serde_json::{Map, Value};
use tch::Tensor;

/// A config.json as the keys of a header.
pub(crate) struct ModelKeys<'a> {
    config: &'a Map<String, Value>,
    pub(super) architecture: &'static Architecture,
    /// Heads of queries, and of keys and values.
    pub(super) heads: [i64; 2],
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
            None => architecture.usual.key_value_heads.unwrap_or(heads.into()),
            Some(Value::Null) => heads.into(),
            Some(_) => keys.size("num_key_value_heads")?.into(),
        };
        keys.heads = [heads.into(), key_value_heads];
        Ok(keys)
    }

    pub(super) fn size(&self, key: &str) -> Result<u32, String> {
        let value = self.config.get(key).and_then(Value::as_u64);
        let size = value.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
        size.ok_or_else(|| {
            format!("config.json has no `{key}`, a whole number, which a GGUF file tells")
        })
    }

    /// A positive whole number; `usual` where the key is not there, none where it is null.
    pub(super) fn optional_size(
        &self,
        key: &str,
        usual: Option<u32>,
    ) -> Result<Option<u32>, String> {
        match self.config.get(key) {
            None => Ok(usual),
            Some(Value::Null) => Ok(None),
            Some(_) => self.size(key).map(Some),
        }
    }

    /// A number; `usual` where the key is not there, none where it is null.
    pub(super) fn number(&self, key: &str, usual: Option<f64>) -> Result<Option<f64>, String> {
        match self.config.get(key) {
            None => Ok(usual),
            Some(Value::Null) => Ok(None),
            Some(value) => {
                value.as_f64().map(Some).ok_or_else(|| format!("`{key}` is {value}, no number"))
            }
        }
    }

    /// Texts; none where the key is not there.
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>, String> {
        match self.config.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let texts =
                    value.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
                texts.map(Some).ok_or_else(|| format!("`{key}` is no list of texts"))
            }
        }
    }

    pub(super) fn head_dim(&self) -> Result<u32, String> {
        match self.config.get("head_dim") {
            None | Some(Value::Null) => match self.architecture.usual.head_dim {
                Some(usual) => Ok(usual as u32),
                None => Ok(self.size("hidden_size")? / self.heads[0] as u32),
            },
            Some(_) => self.size("head_dim"),
        }
    }

    /// The longest texts.
    pub(super) fn max_positions(&self) -> Result<u32, String> {
        let usual = self.architecture.usual.max_positions as u32;
        Ok(self.optional_size("max_position_embeddings", Some(usual))?.unwrap_or(usual))
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

    /// The keys of a model's header that all have.
    pub(super) fn common(&self) -> Result<Vec<(String, Written)>, String> {
        self.check()?;
        let (size, name) = (|key: &str| self.size(key), self.architecture.name);
        let hidden = size("hidden_size")?;
        let [heads, key_value_heads] = self.heads.map(|n| n as u32);
        let head_dim = self.head_dim()?;
        let usual = self.architecture.usual;
        let eps = self.number(usual.eps_key, Some(usual.eps))?.unwrap_or(usual.eps);
        let text = |text: &str| Written::Text(text.into());
        let mut keys = vec![
            ("general.architecture".to_string(), text(name)),
            ("general.type".to_string(), text("model")),
        ];
        let mut say = |key: &str, value: Written| keys.push((format!("{name}.{key}"), value));
        say("vocab_size", Written::U32(size("vocab_size")?));
        say("context_length", Written::U32(self.max_positions()?));
        say("embedding_length", Written::U32(hidden));
        say("block_count", Written::U32(size("num_hidden_layers")?));
        say("feed_forward_length", Written::U32(size("intermediate_size")?));
        say("attention.head_count", Written::U32(heads));
        say("attention.head_count_kv", Written::U32(key_value_heads));
        say("attention.key_length", Written::U32(head_dim));
        say("attention.value_length", Written::U32(head_dim));
        say("attention.layer_norm_rms_epsilon", Written::F32(eps as f32));
        let (theta, scaling) = self.rope();
        say("rope.dimension_count", Written::U32(self.turning(&scaling)?));
        say("rope.freq_base", Written::F32(theta as f32));
        match kind(&scaling) {
            Some("linear") => {
                let factor = scaling.get("factor").and_then(Value::as_f64).unwrap_or(1.0);
                say("rope.scaling.type", text("linear"));
                say("rope.scaling.factor", Written::F32(factor as f32));
            }
            // Phi-3 calls LongRoPE by that name, too.
            Some(YARN) if !usual.rope.longrope.contains(&YARN) => {
                let outer = self.optional_size("original_max_position_embeddings", None)?;
                for (key, value) in yarn::keys(&scaling, outer, self.max_positions()?)? {
                    say(key, value);
                }
            }
            _ => {}
        }
        Ok(keys)
    }

    /// Refuses what such files do not tell.
    fn check(&self) -> Result<(), String> {
        let (key, meant) = (self.architecture.usual.activation.0, self.architecture.activation);
        let activation = self.config.get(key).and_then(Value::as_str);
        if let Some(other) = activation.filter(|name| !meant.contains(name)) {
            return Err(format!("`{key}` is `{other}`, which a GGUF file does not tell"));
        }
        if self.config.get("use_sliding_window") == Some(&Value::Bool(true)) {
            return Err("`use_sliding_window` is true, which a GGUF file does not tell".into());
        }
        match kind(&self.rope().1) {
            None | Some("default") => Ok(()),
            Some(known) if self.architecture.scalings.contains(&known) => Ok(()),
            Some(other) => Err(format!(
                "the rotary scaling `{other}` is not written to GGUF files of a {}",
                self.architecture.name
            )),
        }
    }

    /// θ, and the keys that scale the angles: of a model with a rope for each type of layer, that of
    /// the layers which see everything.
    pub(super) fn rope(&self) -> (f64, Map<String, Value>) {
        let object = |key: &str| {
            self.config.get(key).and_then(Value::as_object).filter(|keys| !keys.is_empty())
        };
        let scaling = match (object("rope_scaling"), self.rope_of("full_attention")) {
            (scaling, Some(full)) => {
                let mut full = full.clone();
                full.extend(scaling.cloned().unwrap_or_default());
                full
            }
            (scaling, None) => scaling.or(object("rope_parameters")).cloned().unwrap_or_default(),
        };
        let (key, usual) = self.architecture.usual.rope.theta;
        let theta = scaling.get("rope_theta").or(self.config.get(key)).and_then(Value::as_f64);
        (theta.unwrap_or(usual), scaling)
    }

    /// The rope of a type of layer that has one of its own.
    fn rope_of(&self, layers: &str) -> Option<&'a Map<String, Value>> {
        self.config.get("rope_parameters")?.get(layers)?.as_object()
    }

    /// θ of the layers with a window, where their rope is told of by itself.
    ///
    /// # Errors
    /// Their angles are scaled.
    pub(super) fn local_rope(&self) -> Result<Option<f64>, String> {
        let Some(rope) = self.rope_of("sliding_attention") else { return Ok(None) };
        match kind(rope) {
            None | Some("default") => Ok(rope.get("rope_theta").and_then(Value::as_f64)),
            Some(other) => Err(format!(
                "the rotary scaling `{other}` of layers with a window is not written to GGUF files"
            )),
        }
    }

    /// How many elements of a head turn.
    fn turning(&self, scaling: &Map<String, Value>) -> Result<u32, String> {
        let head_dim = self.head_dim()?;
        let Some((key, usual)) = self.architecture.usual.rope.share else { return Ok(head_dim) };
        let share = match scaling.get("partial_rotary_factor").and_then(Value::as_f64) {
            Some(share) => share,
            None => self.number(key, Some(usual))?.unwrap_or(usual),
        };
        Ok((f64::from(head_dim) * share) as u32)
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

/// The name of the scaling of rotary angles that these keys tell of.
pub(super) fn kind(keys: &Map<String, Value>) -> Option<&str> {
    keys.get("rope_type").or(keys.get("type")).and_then(Value::as_str)
}

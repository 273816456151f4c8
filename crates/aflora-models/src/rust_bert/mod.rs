//! rust-bert's models as backbones.
//!
//! A further model is a wrapper of a few lines: its config, its constructor, its forward pass,
//! and which of its layers are attention and which feed-forward. [`bert`] shows how. What
//! rust-bert does otherwise than the released models is listed in `docs/backbones.md`, and is
//! mended or refused here.

pub mod albert;
pub mod bert;
pub mod distilbert;
pub mod electra;
pub mod roberta;

use crate::backbone::{name_linears, Backbone, Batch, InjectableLinear};
use crate::{Error, Result};
use aflora_core::Block;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};
use tch_facade::nn;

/// What sets one rust-bert model apart from another.
struct Wrapper<M> {
    forward: fn(&M, &Batch, bool) -> Result<Tensor>,
    block: fn(&str) -> Option<Block>,
    head: &'static [&'static str],
    prefix: &'static str,
    max_positions: i64,
    vocab_size: i64,
    /// What LayerNorms add to the variance: many of rust-bert's models have BERT's in their
    /// code instead of reading it from the config.
    layer_norm_eps: f64,
}

/// A rust-bert model, its weights and its named layers.
struct RustBert<M> {
    vs: nn::VarStore,
    model: M,
    linears: Vec<InjectableLinear>,
    wrapper: Wrapper<M>,
}

impl<M> RustBert<M> {
    fn new(
        device: Device,
        wrapper: Wrapper<M>,
        build: impl FnOnce(&nn::Path) -> std::result::Result<M, ::rust_bert::RustBertError>,
    ) -> Result<Self> {
        let mut vs = nn::VarStore::new(device);
        let (model, captured) = tch_facade::capture(|| {
            tch_facade::with_layer_norm_eps(wrapper.layer_norm_eps, || build(&vs.root()))
        });
        let model = model.map_err(|e| Error::Forward(e.to_string()))?;
        let linears = name_linears(&vs, captured, wrapper.block);
        vs.freeze();
        Ok(RustBert { vs, model, linears, wrapper })
    }
}

impl<M> std::fmt::Debug for RustBert<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RustBert").field("linears", &self.linears).finish_non_exhaustive()
    }
}

impl<M> Backbone for RustBert<M> {
    fn forward(&self, batch: &Batch, train: bool) -> Result<Tensor> {
        Ok((self.wrapper.forward)(&self.model, batch, train)?.to_kind(Kind::Float))
    }

    fn var_store(&self) -> &nn::VarStore {
        &self.vs
    }

    fn linears(&self) -> &[InjectableLinear] {
        &self.linears
    }

    fn head(&self) -> &'static [&'static str] {
        self.wrapper.head
    }

    fn prefix(&self) -> &'static str {
        self.wrapper.prefix
    }

    fn max_positions(&self) -> i64 {
        self.wrapper.max_positions
    }

    fn vocab_size(&self) -> i64 {
        self.wrapper.vocab_size
    }
}

/// The blocks of a model that names its layers as BERT does.
fn transformer_block(name: &str) -> Option<Block> {
    if !name.contains(".encoder.layer.") {
        None
    } else if name.contains(".attention.") {
        Some(Block::Attention)
    } else {
        Some(Block::Ffn)
    }
}

/// A config.json before it becomes one of rust-bert's configs.
struct Keys {
    path: PathBuf,
    keys: Map<String, Value>,
}

impl Keys {
    /// Reads the config.json of a model whose `model_type`, if it has one, is among `types`.
    fn read(path: &Path, backbone: &str, types: &[&str]) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let mut keys = Keys { path: path.to_path_buf(), keys: Map::new() };
        keys.keys = serde_json::from_str(&text)
            .map_err(|e| keys.problem(format!("not a Hugging Face config.json: {e}")))?;
        match keys.keys.get("model_type").and_then(Value::as_str) {
            Some(found) if !types.contains(&found) => Err(keys.problem(format!(
                "model_type is `{found}`, but the backbone `{backbone}` wants `{}`",
                types.join("` or `")
            ))),
            _ => Ok(keys),
        }
    }

    fn problem(&self, problem: String) -> Error {
        Error::Config { path: self.path.clone(), problem }
    }

    fn size(&self, key: &str) -> Result<i64> {
        let value = self.keys.get(key).and_then(Value::as_i64);
        value
            .filter(|n| *n > 0)
            .ok_or_else(|| self.problem(format!("`{key}` must be a positive whole number")))
    }

    fn integer(&self, key: &str, default: i64) -> Result<i64> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value
                .as_i64()
                .ok_or_else(|| self.problem(format!("`{key}` is {value}, not a whole number"))),
        }
    }

    fn number(&self, key: &str, default: f64) -> Result<f64> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value
                .as_f64()
                .ok_or_else(|| self.problem(format!("`{key}` is {value}, not a number"))),
        }
    }

    fn set(&mut self, key: &str, value: Value) {
        self.keys.insert(key.into(), value);
    }

    /// Sets a key that a file may leave out but rust-bert insists on.
    fn default(&mut self, key: &str, value: Value) {
        if self.keys.get(key).is_none_or(Value::is_null) {
            self.set(key, value);
        }
    }

    fn remove(&mut self, key: &str) {
        self.keys.remove(key);
    }

    fn parse<C: DeserializeOwned>(&self) -> Result<C> {
        serde_json::from_value(self.keys.clone().into()).map_err(|e| self.problem(e.to_string()))
    }
}

/// Refuses positions that rust-bert would build as absolute ones without a word.
fn absolute_positions(keys: &Keys) -> Result<()> {
    match keys.keys.get("position_embedding_type").and_then(Value::as_str) {
        None | Some("absolute") => Ok(()),
        Some(other) => Err(keys.problem(format!(
            "position_embedding_type is `{other}`; only `absolute` positions are built"
        ))),
    }
}

/// `id2label` with so many labels: rust-bert counts a head's outputs by it.
fn id2label(labels: i64) -> Value {
    (0..labels).map(|i| (i.to_string(), Value::from(format!("LABEL_{i}")))).collect()
}

//! rust-bert's models as backbones.
//!
//! A further model is a wrapper of a few lines: its config, its constructor, its forward pass,
//! and which of its layers are attention and which feed-forward. [`bert`] shows how.

pub mod bert;

use crate::backbone::{name_linears, Backbone, Batch, InjectableLinear};
use crate::{Error, Result};
use aflora_core::Block;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::Path;
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
        let (model, captured) = tch_facade::capture(|| build(&vs.root()));
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

/// Reads a config.json as `C`, after `adapt` has changed and checked its raw keys.
fn read_config<C: DeserializeOwned>(
    path: &Path,
    adapt: impl FnOnce(&mut Map<String, Value>) -> std::result::Result<(), String>,
) -> Result<C> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let problem = |problem: String| Error::Config { path: path.to_path_buf(), problem };
    let mut keys = serde_json::from_str(&text)
        .map_err(|e| problem(format!("not a Hugging Face config.json: {e}")))?;
    adapt(&mut keys).map_err(problem)?;
    serde_json::from_value(keys.into()).map_err(|e| problem(e.to_string()))
}

/// `id2label` with so many labels: rust-bert counts a head's outputs by it.
fn label_map(labels: i64) -> Value {
    (0..labels).map(|i| (i.to_string(), Value::from(format!("LABEL_{i}")))).collect()
}

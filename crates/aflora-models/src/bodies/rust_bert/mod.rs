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
use crate::config_file::ConfigFile;
use crate::{Error, Result};
use aflora_core::Block;
use serde_json::Value;
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

/// Refuses positions that rust-bert would build as absolute ones without a word.
fn absolute_positions(keys: &ConfigFile) -> Result<()> {
    match keys.keys().get("position_embedding_type").and_then(Value::as_str) {
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

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

use crate::backbone::{About, Backbone, Forward, Frame, InjectableLinear};
use crate::batch::Batch;
use crate::config_file::ConfigFile;
use crate::heads::Head;
use crate::options::Options;
use crate::{Error, Result};
use aflora_core::nn::{self, LinearHandle};
use aflora_core::{Block, Checkpoints};
use serde_json::Value;
use std::collections::HashMap;
use tch::Tensor;

/// What sets one rust-bert model apart from another.
struct Wrapper<M> {
    forward: fn(&M, &Batch, bool) -> Result<Tensor>,
    block: fn(&str) -> Option<Block>,
    head_modules: &'static [&'static str],
    /// The head's last layer.
    class_rows: &'static str,
    prefix: &'static str,
    max_positions: i64,
    vocab_size: i64,
    /// What LayerNorms add to the variance: many of rust-bert's models have BERT's in their
    /// code instead of reading it from the config.
    layer_norm_eps: f64,
}

/// A rust-bert model, its weights and its named layers.
struct RustBert<M> {
    frame: Frame,
    model: M,
    forward: fn(&M, &Batch, bool) -> Result<Tensor>,
}

impl<M> RustBert<M> {
    fn new(
        file: &ConfigFile,
        head: Head,
        options: &Options,
        wrapper: Wrapper<M>,
        build: impl FnOnce(&nn::Path) -> std::result::Result<M, ::rust_bert::RustBertError>,
    ) -> Result<Self> {
        let mut vs = options.var_store();
        let (model, captured) = nn::capture(|| {
            tch_facade::with_layer_norm_eps(wrapper.layer_norm_eps, || build(&vs.root()))
        });
        let model =
            model.map_err(|e| file.problem(format!("rust-bert builds no model of it: {e}")))?;
        let linears = name_linears(&vs, captured, wrapper.block);
        vs.freeze();
        let Wrapper { forward, head_modules, class_rows, prefix, .. } = wrapper;
        let about = About {
            head,
            prefix,
            head_modules,
            new_modules: head_modules,
            class_rows: Some(class_rows),
            tied: &[],
            optional: &[],
            max_positions: wrapper.max_positions,
            vocab_size: wrapper.vocab_size,
            checkpoints: false,
        };
        Ok(RustBert { frame: Frame { vs, linears, about }, model, forward })
    }
}

impl<M> std::fmt::Debug for RustBert<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RustBert").field("frame", &self.frame).finish_non_exhaustive()
    }
}

impl<M> Backbone for RustBert<M> {
    fn forward(&self, batch: &Batch, train: bool) -> Result<Forward> {
        let logits = (self.forward)(&self.model, batch, train)?;
        Ok(Forward::new(logits, Checkpoints::default()))
    }

    fn frame(&self) -> &Frame {
        &self.frame
    }
}

/// The logits that a model of the kind `name` gives each text.
///
/// # Errors
/// It is to write, or to checkpoint its blocks, which rust-bert runs in one go.
fn labels(name: &str, head: Head, options: &Options) -> Result<i64> {
    if options.checkpointing {
        return Err(Error::Unbuilt(format!(
            "gradient checkpointing is not built for `{name}`, which is rust-bert's: no one else \
             can run its blocks one by one"
        )));
    }
    match head {
        Head::Classes(labels) | Head::Scores(labels) => Ok(labels),
        Head::Language => Err(Error::does_not_write()),
    }
}

/// Names the captured layers after the variables that hold their weights, and keeps those for
/// which `block` knows a place in a transformer block.
fn name_linears(
    vs: &nn::VarStore,
    captured: Vec<LinearHandle>,
    block: fn(&str) -> Option<Block>,
) -> Vec<InjectableLinear> {
    let names: HashMap<usize, String> =
        vs.variables().into_iter().map(|(name, t)| (t.data_ptr() as usize, name)).collect();
    let named = |layer: LinearHandle| {
        let name = names.get(&(layer.ws.data_ptr() as usize))?.strip_suffix(".weight")?;
        Some(InjectableLinear::new(name.to_string(), block(name)?, layer))
    };
    captured.into_iter().filter_map(named).collect()
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

//! DeBERTa, all three versions.
//!
//! Ours, and not rust-bert's, whose attention differs from the released models (see
//! `upstream/rust-bert/README.md`). Written from the paper (He et al. 2021, "DeBERTa: Decoding-enhanced BERT
//! with Disentangled Attention") and the released configs, and held to the logits and gradients
//! of transformers by tests. Built for speed: no gather, no copy of the position table for each
//! text, fused attention (`position.rs` has the idea).

mod attention;
mod blocks;
mod config;
mod embeddings;
mod position;
mod projections;

use crate::backbone::Backbone;
use crate::batch::Batch;
use crate::bodies::encoder::{self, EncoderBody, EncoderSpec, HeadShape, TextHead};
use crate::config_file::ConfigFile;
use crate::heads::Head;
use crate::nn::scope::Scope;
use crate::options::Options;
use crate::Result;
use aflora_core::Checkpoints;
use blocks::Blocks;
use config::DebertaConfig;
use embeddings::Embeddings;

use tch::Tensor;

/// DeBERTa-v1 from its `config.json`: v2 without buckets, its queries, keys and values of one layer.
/// Weights are zero until loaded or initialised.
pub(crate) fn build_v1(
    file: ConfigFile,
    head: Head,
    options: &Options,
) -> Result<Box<dyn Backbone>> {
    of_config(DebertaConfig::read_v1(file)?, head, options)
}

/// DeBERTa-v2 or v3 from its `config.json`. Weights are zero until loaded or initialised.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    of_config(DebertaConfig::read(&file)?, head, options)
}

fn of_config(config: DebertaConfig, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let spec = EncoderSpec {
        prefix: "deberta.",
        hidden: config.hidden_size,
        // Relative positions have no end; absolute ones do.
        max_positions: match config.position_biased_input {
            true => config.max_position_embeddings,
            false => i64::MAX,
        },
        head: TextHead {
            shape: HeadShape::default(),
            dense: "pooler.dense",
            activation: config.pooler_hidden_act,
            out: "classifier",
            dropout: [config.pooler_dropout, config.cls_dropout()],
            token_dropout: config.hidden_dropout_prob,
            modules: &["classifier"],
            new_modules: &["pooler", "classifier"],
            may_lack: &[],
        },
    };
    encoder::build(head, options, spec, |root| DebertaBody::new(root, &config))
}

#[derive(Debug)]
struct DebertaBody {
    embeddings: Embeddings,
    blocks: Blocks,
}

impl DebertaBody {
    fn new(root: &Scope, config: &DebertaConfig) -> Self {
        let deberta = root / "deberta";
        DebertaBody {
            embeddings: Embeddings::new(&deberta / "embeddings", config),
            blocks: Blocks::new(&deberta / "encoder", config),
        }
    }
}

impl EncoderBody for DebertaBody {
    fn forward(&self, batch: &Batch, train: bool, checkpointing: bool) -> (Tensor, Checkpoints) {
        let tokens = batch.attention_mask.to_kind(self.embeddings.kind());
        let embedded = self.embeddings.forward(batch, &tokens, train);
        self.blocks.forward(embedded, tokens, train, checkpointing)
    }
}

//! DeBERTa-v2 and v3 for sequence classification, and regression with one label.
//!
//! Ours, and not rust-bert's, whose attention differs from the released models (see
//! `docs/backbones.md`). Written from the paper (He et al. 2021, "DeBERTa: Decoding-enhanced BERT
//! with Disentangled Attention") and the released configs, and held to the logits and gradients
//! of transformers by tests. Built for speed: no gather, no copy of the position table for each
//! text, fused attention (`position.rs` has the idea).

mod attention;
mod config;
mod embeddings;
mod encoder;
mod position;

use crate::backbone::{About, Backbone, Forward, Frame};
use crate::batch::Batch;
use crate::config_file::ConfigFile;
use crate::heads::dense::DenseHead;
use crate::heads::Head;
use crate::nn::scope::{self, Scope};
use crate::options::Options;
use crate::{Error, Result};
use config::DebertaConfig;
use embeddings::Embeddings;
use encoder::Encoder;

/// DeBERTa-v2 or v3 from its `config.json`. Weights are zero until loaded or initialised.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let config = DebertaConfig::read(&file)?;
    let labels = match head {
        Head::Classes(labels) | Head::Scores(labels) => labels,
        Head::Language => return Err(Error::does_not_write()),
    };
    let mut vs = options.var_store();
    let (network, linears) = scope::build(&mut vs, |root| DebertaBody::new(&root, &config, labels));
    let about = About {
        head,
        prefix: "deberta.",
        head_modules: &["classifier"],
        new_modules: &["pooler", "classifier"],
        class_rows: Some("classifier"),
        tied: &[],
        optional: &[],
        // Relative positions have no end; absolute ones do.
        max_positions: match config.position_biased_input {
            true => config.max_position_embeddings,
            false => i64::MAX,
        },
        vocab_size: config.vocab_size,
        checkpoints: true,
    };
    let frame = Frame { vs, linears, about };
    Ok(Box::new(Deberta { frame, network, checkpointing: options.checkpointing }))
}

/// A DeBERTa with a classification head.
#[derive(Debug)]
struct Deberta {
    frame: Frame,
    network: DebertaBody,
    checkpointing: bool,
}

#[derive(Debug)]
struct DebertaBody {
    embeddings: Embeddings,
    encoder: Encoder,
    head: DenseHead,
}

impl DebertaBody {
    fn new(root: &Scope, config: &DebertaConfig, labels: i64) -> Self {
        let deberta = root / "deberta";
        let hidden = config.hidden_size;
        DebertaBody {
            embeddings: Embeddings::new(&deberta / "embeddings", config),
            encoder: Encoder::new(&deberta / "encoder", config),
            head: DenseHead {
                dense: (root / "pooler").linear("dense", hidden, hidden),
                activation: config.pooler_hidden_act,
                out: root.linear("classifier", hidden, labels),
                dropout: [config.pooler_dropout, config.cls_dropout()],
            },
        }
    }
}

impl Backbone for Deberta {
    fn forward(&self, batch: &Batch, train: bool) -> Result<Forward> {
        let DebertaBody { embeddings, encoder, head } = &self.network;
        let tokens = batch.attention_mask.to_kind(embeddings.kind());
        let embedded = embeddings.forward(batch, &tokens, train);
        let checkpointing = train && self.checkpointing;
        let (encoded, checkpoints) = encoder.forward(embedded, tokens, train, checkpointing);
        Ok(Forward::new(head.forward(encoded.select(1, 0), train), checkpoints))
    }

    fn frame(&self) -> &Frame {
        &self.frame
    }
}

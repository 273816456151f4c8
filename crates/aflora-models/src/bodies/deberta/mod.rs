//! DeBERTa-v2 and v3 for sequence classification, and regression with one label.
//!
//! Ours, and not rust-bert's, whose attention differs from the released models (see
//! `docs/backbones.md`). Written from the paper (He et al. 2021, "DeBERTa: Decoding-enhanced BERT
//! with Disentangled Attention") and the released configs, and held to the logits and gradients
//! of transformers by tests. Built for speed: no gather, no copy of the position table for each
//! text, fused attention (`position.rs` has the idea).

mod attention;
mod config;
mod encoder;
mod position;

use crate::backbone::{name_linears, Backbone, Batch, InjectableLinear};
use crate::nn::activation::Activation;
use crate::nn::linear::{bare_linear, dropout, embedding, linear};
use crate::Result;
use aflora_core::Block;
use config::DebertaConfig;
use encoder::Encoder;
use std::path::Path;
use tch::{Device, Kind, Tensor};
use tch_facade::nn::{self, Module};

/// What is added to the score of a padding key: its weight is 0 in single precision and in
/// bf16, and a row of nothing but padding stays finite.
const MASKED: f64 = -1e30;

/// A DeBERTa with a classification head.
#[derive(Debug)]
struct Deberta {
    vs: nn::VarStore,
    network: Network,
    linears: Vec<InjectableLinear>,
    max_positions: i64,
    vocab_size: i64,
}

#[derive(Debug)]
struct Network {
    embeddings: Embeddings,
    encoder: Encoder,
    pooler: nn::Linear,
    pooler_act: Activation,
    pooler_dropout: f64,
    classifier: nn::Linear,
    cls_dropout: f64,
}

#[derive(Debug)]
struct Embeddings {
    word: nn::Embedding,
    position: Option<nn::Embedding>,
    token_type: Option<nn::Embedding>,
    projection: Option<nn::Linear>,
    norm: nn::LayerNorm,
    dropout: f64,
}

/// DeBERTa-v2 or v3 from its `config.json`. Weights are zero until loaded or initialised.
pub(crate) fn build(path: &Path, labels: i64, device: Device) -> Result<Box<dyn Backbone>> {
    let config = DebertaConfig::read(path)?;
    let mut vs = nn::VarStore::new(device);
    let (network, captured) = tch_facade::capture(|| Network::new(vs.root(), &config, labels));
    let linears = name_linears(&vs, captured, block);
    vs.freeze();
    // Relative positions have no end; absolute ones do.
    let max_positions = match config.position_biased_input {
        true => config.max_position_embeddings,
        false => i64::MAX,
    };
    Ok(Box::new(Deberta { vs, network, linears, max_positions, vocab_size: config.vocab_size }))
}

fn block(name: &str) -> Option<Block> {
    if !name.starts_with("deberta.encoder.layer.") {
        None
    } else if name.contains(".attention.") {
        Some(Block::Attention)
    } else {
        Some(Block::Ffn)
    }
}

impl Backbone for Deberta {
    fn forward(&self, batch: &Batch, train: bool) -> Result<Tensor> {
        Ok(self.network.forward(batch, train).to_kind(Kind::Float))
    }

    fn var_store(&self) -> &nn::VarStore {
        &self.vs
    }

    fn linears(&self) -> &[InjectableLinear] {
        &self.linears
    }

    fn head(&self) -> &'static [&'static str] {
        &["classifier"]
    }

    fn new_modules(&self) -> &'static [&'static str] {
        &["pooler", "classifier"]
    }

    fn prefix(&self) -> &'static str {
        "deberta."
    }

    fn max_positions(&self) -> i64 {
        self.max_positions
    }

    fn vocab_size(&self) -> i64 {
        self.vocab_size
    }
}

impl Network {
    fn new(root: nn::Path, config: &DebertaConfig, labels: i64) -> Self {
        let deberta = &root / "deberta";
        let hidden = config.hidden_size;
        Network {
            embeddings: Embeddings::new(&deberta / "embeddings", config),
            encoder: Encoder::new(&deberta / "encoder", config),
            pooler: linear(&root / "pooler" / "dense", hidden, hidden),
            pooler_act: config.pooler_hidden_act,
            pooler_dropout: config.pooler_dropout,
            classifier: linear(&root / "classifier", hidden, labels),
            cls_dropout: config.cls_dropout(),
        }
    }

    fn forward(&self, batch: &Batch, train: bool) -> Tensor {
        let tokens = batch.attention_mask.to_kind(self.embeddings.norm_kind());
        let embedded = self.embeddings.forward(batch, &tokens, train);
        let encoded = self.encoder.forward(embedded, &tokens, train);
        let first = dropout(encoded.select(1, 0), self.pooler_dropout, train);
        let pooled = self.pooler_act.apply(&self.pooler.forward(&first));
        self.classifier.forward(&dropout(pooled, self.cls_dropout, train))
    }
}

impl Embeddings {
    fn new(path: nn::Path, config: &DebertaConfig) -> Self {
        let (size, hidden) = (config.embedding_size(), config.hidden_size);
        let table = |name: &str, rows| embedding(&path / name, rows, size);
        Embeddings {
            word: table("word_embeddings", config.vocab_size),
            position: config
                .position_biased_input
                .then(|| table("position_embeddings", config.max_position_embeddings)),
            token_type: (config.type_vocab_size > 0)
                .then(|| table("token_type_embeddings", config.type_vocab_size)),
            projection: (size != hidden).then(|| bare_linear(&path / "embed_proj", size, hidden)),
            norm: layer_norm(&path / "LayerNorm", config),
            dropout: config.hidden_dropout_prob,
        }
    }

    /// The kind that the encoder computes in.
    fn norm_kind(&self) -> Kind {
        self.norm.ws.as_ref().map_or(Kind::Float, Tensor::kind)
    }

    fn forward(&self, batch: &Batch, tokens: &Tensor, train: bool) -> Tensor {
        let mut x = self.word.forward(&batch.input_ids);
        if let Some(position) = &self.position {
            x += position.ws.narrow(0, 0, batch.input_ids.size()[1]);
        }
        if let Some(token_type) = &self.token_type {
            x += token_type.forward(&batch.types());
        }
        if let Some(projection) = &self.projection {
            x = projection.forward(&x);
        }
        dropout(self.norm.forward(&x) * tokens.unsqueeze(2), self.dropout, train)
    }
}

fn layer_norm(path: nn::Path, config: &DebertaConfig) -> nn::LayerNorm {
    let norm = nn::LayerNormConfig { eps: config.layer_norm_eps, ..Default::default() };
    nn::layer_norm(path, vec![config.hidden_size], norm)
}

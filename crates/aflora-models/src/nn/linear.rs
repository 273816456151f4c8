//! Layers as the models of ours make them: with zeros, which cost nothing to make, and are loaded
//! over or initialised by name before they are used.

use aflora_cuda::ops;
use std::cell::OnceCell;
use tch::Tensor;
use tch_facade::nn::{self, Module};

pub(crate) fn linear(path: nn::Path, from: i64, to: i64) -> nn::Linear {
    nn::linear(path, from, to, zeros())
}

/// A linear layer without a bias.
pub(crate) fn bare_linear(path: nn::Path, from: i64, to: i64) -> nn::Linear {
    nn::linear(path, from, to, with_bias(zeros(), false))
}

pub(crate) fn with_bias(config: nn::LinearConfig, bias: bool) -> nn::LinearConfig {
    nn::LinearConfig { bias, ..config }
}

pub(crate) fn zeros() -> nn::LinearConfig {
    let zero = nn::Init::Const(0.0);
    nn::LinearConfig { ws_init: zero, bs_init: Some(zero), bias: true }
}

pub(crate) fn embedding(path: nn::Path, rows: i64, size: i64) -> nn::Embedding {
    let config = nn::EmbeddingConfig { ws_init: nn::Init::Const(0.0), ..Default::default() };
    nn::embedding(path, rows, size, config)
}

pub(crate) fn dropout(x: Tensor, p: f64, train: bool) -> Tensor {
    if train && p > 0.0 {
        x.dropout(p, true)
    } else {
        x
    }
}

/// The end of a post-norm sub-block: LayerNorm(dropout(out) + what went in).
#[derive(Debug)]
pub(crate) struct AddNorm {
    norm: nn::LayerNorm,
    eps: f64,
    dropout: f64,
}

impl AddNorm {
    pub fn new(path: nn::Path, hidden: i64, eps: f64, dropout: f64) -> Self {
        let config = nn::LayerNormConfig { eps, ..Default::default() };
        AddNorm { norm: nn::layer_norm(path, vec![hidden], config), eps, dropout }
    }

    pub fn forward(&self, out: Tensor, x: &Tensor, train: bool) -> Tensor {
        let p = if train { self.dropout } else { 0.0 };
        let (gamma, beta) = (self.norm.ws.as_ref(), self.norm.bs.as_ref());
        match ops::add_layer_norm(&out, x, gamma, beta, self.eps, p) {
            Some(y) => y,
            None => self.norm.forward(&(dropout(out, p, train) + x)),
        }
    }
}

/// Gives a model whose words are its head one of its own, at `root`, frozen; gives its weight. None
/// if it has one.
pub(crate) fn untie(head: &OnceCell<nn::Linear>, root: nn::Path, words: &Tensor) -> Option<Tensor> {
    let (vocabulary, hidden) = words.size2().ok()?;
    let own = bare_linear(root / "lm_head", hidden, vocabulary);
    let weight = own.ws.set_requires_grad(false);
    head.set(own).ok()?;
    Some(weight)
}

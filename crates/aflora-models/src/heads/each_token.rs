//! Classes for every token, each of its own state: what transformers' `…ForTokenClassification`
//! have.

use crate::nn::linear::dropout;
use crate::nn::scope::Scope;
use aflora_core::nn::{Linear, Module};
use tch::Tensor;

/// How a kind of model makes classes of a token's state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenHead {
    /// The layer's name in checkpoints.
    pub name: &'static str,
    /// The module that trains in full, and that a pretrained checkpoint lacks: that layer.
    pub modules: &'static [&'static str],
    /// Before the layer.
    pub dropout: f64,
}

/// A linear layer on each token's state.
#[derive(Debug)]
pub(crate) struct EachToken {
    out: Linear,
    dropout: f64,
}

impl EachToken {
    pub fn new(root: &Scope, head: &TokenHead, hidden: i64, labels: i64) -> Self {
        EachToken { out: root.linear(head.name, hidden, labels), dropout: head.dropout }
    }

    /// Hidden states `[batch, length, hidden]` to logits `[batch, length, labels]`.
    pub fn forward(&self, hidden: Tensor, train: bool) -> Tensor {
        self.out.forward(&dropout(hidden, self.dropout, train))
    }
}

//! Classes or a score of the state of a text's last token, which alone has seen all of it: what
//! decoders classify with in transformers (`LlamaForSequenceClassification` and its kin).

use super::states::{last, states_at};
use crate::batch::Batch;
use crate::nn::scope::Scope;
use aflora_core::nn::{Linear, Module};
use tch::{Kind, Tensor};

/// The module's name in checkpoints.
pub(crate) const SCORE: &[&str] = &["score"];

/// A linear layer without a bias on the last token's state.
#[derive(Debug)]
pub(crate) struct LastToken {
    score: Linear,
    /// The padding token of config.json. As in transformers, it ends no text, even where it was
    /// not put there as padding.
    pad: Option<i64>,
}

impl LastToken {
    pub fn new(root: &Scope, hidden: i64, labels: i64, pad: Option<i64>) -> Self {
        LastToken { score: root.bare_linear(SCORE[0], hidden, labels), pad }
    }

    /// Hidden states `[batch, length, hidden]` to logits `[batch, labels]`.
    pub fn forward(&self, hidden: &Tensor, batch: &Batch) -> Tensor {
        let mut real = batch.attention_mask.ne(0);
        if let Some(pad) = self.pad {
            real = real.logical_and(&batch.input_ids.ne(pad));
        }
        self.score.forward(&states_at(hidden, &last(&real.to_kind(Kind::Int64))))
    }
}

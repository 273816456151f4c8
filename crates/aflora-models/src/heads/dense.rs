//! A head with a hidden layer, on the state of one token: DeBERTa's, ELECTRA's, BART's.

use crate::nn::activation::Activation;
use crate::nn::linear::dropout;
use aflora_core::nn::{Linear, Module};
use tch::Tensor;

/// out(drop(act(dense(drop x)))).
#[derive(Debug)]
pub(crate) struct DenseHead {
    pub dense: Linear,
    pub activation: Activation,
    pub out: Linear,
    /// Before the first layer, and before the second.
    pub dropout: [f64; 2],
}

impl DenseHead {
    /// `[batch, hidden]` to `[batch, labels]`.
    pub fn forward(&self, x: Tensor, train: bool) -> Tensor {
        let [before, between] = self.dropout;
        let x = self.activation.apply(&self.dense.forward(&dropout(x, before, train)));
        self.out.forward(&dropout(x, between, train))
    }
}

//! A head with a hidden layer, on the state of one token or of each: DeBERTa's, ELECTRA's, BART's,
//! ModernBERT's.

use crate::nn::activation::Activation;
use crate::nn::linear::dropout;
use crate::nn::norm::ScaleNorm;
use aflora_core::nn::{Linear, Module};
use tch::Tensor;

/// out(drop(norm(act(dense(drop x))))), most without the norm.
#[derive(Debug)]
pub(crate) struct DenseHead {
    pub dense: Linear,
    pub activation: Activation,
    pub norm: Option<ScaleNorm>,
    pub out: Linear,
    /// Before the first layer, and before the second.
    pub dropout: [f64; 2],
}

impl DenseHead {
    /// `[.., hidden]` to `[.., labels]`.
    pub fn forward(&self, x: Tensor, train: bool) -> Tensor {
        let [before, between] = self.dropout;
        let mut x = self.activation.apply(&self.dense.forward(&dropout(x, before, train)));
        if let Some(norm) = &self.norm {
            x = norm.forward(&x);
        }
        self.out.forward(&dropout(x, between, train))
    }
}

//! Feed-forward layers.

use super::activation::Activation;
use aflora_core::nn::{Linear, Module};
use tch::Tensor;

/// down(act(up x)).
#[derive(Debug)]
pub(crate) struct Mlp {
    pub up: Linear,
    pub down: Linear,
    pub activation: Activation,
}

impl Mlp {
    /// `[.., hidden]` to the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.down.forward(&self.activation.apply(&self.up.forward(x)))
    }
}

/// SwiGLU and its kin (Shazeer 2020): down(act(gate x) ⊙ up x).
#[derive(Debug)]
pub(crate) struct GatedMlp {
    pub gate: Linear,
    pub up: Linear,
    pub down: Linear,
    pub activation: Activation,
}

impl GatedMlp {
    /// `[.., hidden]` to the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let gate = self.activation.apply(&self.gate.forward(x));
        self.down.forward(&(gate * self.up.forward(x)))
    }
}

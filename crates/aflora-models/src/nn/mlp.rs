//! Feed-forward layers.

use super::activation::Activation;
use aflora_core::nn::{together, Linear, Module};
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
        let [gate, up] = together([&self.gate, &self.up], x);
        self.down.forward(&self.activation.gate(&gate, &up))
    }
}

/// As [`GatedMlp`], gate and up in one product, whose outputs are the gate's and then the other's:
/// down(act(gate x) ⊙ up x).
#[derive(Debug)]
pub(crate) struct JoinedGatedMlp {
    pub gate_up: Linear,
    pub down: Linear,
    pub activation: Activation,
}

impl JoinedGatedMlp {
    /// `[.., hidden]` to the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.down.forward(&self.activation.gate_halves(&self.gate_up.forward(x)))
    }
}

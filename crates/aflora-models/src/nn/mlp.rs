//! Feed-forward layers.

use super::activation::Activation;
use super::linear::dropout;
use aflora_core::nn::{self, together, Linear, Module};
use tch::Tensor;

/// down(drop(act(up x))) for `x` of `[.., hidden]`, to the same; `p` is the share that is dropped, 0 outside training.
pub(crate) fn fed(
    up: &Linear,
    activation: Activation,
    down: &Linear,
    p: f64,
    x: &Tensor,
) -> Tensor {
    let fused = activation.fused().filter(|_| p == 0.0);
    let made = fused.and_then(|fused| nn::feed_forward(up, fused, down, x));
    made.unwrap_or_else(|| down.forward(&dropout(activation.apply(&up.forward(x)), p, true)))
}

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
        fed(&self.up, self.activation, &self.down, 0.0, x)
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

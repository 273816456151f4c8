//! The activation functions that checkpoints name in their config.json.

use aflora_core::kernels::{self, GateActivation};
use serde::Deserialize;
use tch::Tensor;

/// An activation function, under its names in Hugging Face configs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Activation {
    #[serde(rename = "gelu", alias = "gelu_python")]
    Gelu,
    #[serde(rename = "gelu_new", alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluTanh,
    #[serde(rename = "relu")]
    Relu,
    #[serde(rename = "silu", alias = "swish")]
    Silu,
    #[serde(rename = "tanh")]
    Tanh,
    #[serde(rename = "mish")]
    Mish,
}

impl Activation {
    pub(crate) fn apply(self, x: &Tensor) -> Tensor {
        match self {
            Activation::Gelu => x.gelu("none"),
            Activation::GeluTanh => x.gelu("tanh"),
            Activation::Relu => x.relu(),
            Activation::Silu => x.silu(),
            Activation::Tanh => x.tanh(),
            Activation::Mish => x.mish(),
        }
    }

    /// act(gate) ⊙ up, `[.., wide]` each.
    pub(crate) fn gate(self, gate: &Tensor, up: &Tensor) -> Tensor {
        kernels::gated(gate, up, self.fused(), |gate| self.apply(gate))
    }

    /// As [`gate`](Self::gate), of `[.., 2 wide]`: the gate, and the other behind it.
    pub(crate) fn gate_halves(self, both: &Tensor) -> Tensor {
        kernels::gated_halves(both, self.fused(), |gate| self.apply(gate))
    }

    /// The activation that kernels have, if it is one of these.
    pub(crate) fn fused(self) -> Option<GateActivation> {
        match self {
            Activation::Silu => Some(GateActivation::Silu),
            Activation::Gelu => Some(GateActivation::Gelu),
            Activation::GeluTanh => Some(GateActivation::GeluTanh),
            Activation::Relu | Activation::Tanh | Activation::Mish => None,
        }
    }
}

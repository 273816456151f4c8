//! Normalisations.

use aflora_core::kernels;
use aflora_core::nn::{LayerNorm, Module};
use tch::{Kind, Tensor};

/// A kind of normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// (x - mean) / √(variance + ε), times a scale, plus a shift.
    Layer,
    /// x / √(mean x² + ε), times a scale.
    Rms,
    /// x / √(mean x² + ε), times 1 + a weight.
    CentredRms,
}

/// A normalisation of any kind.
#[derive(Debug)]
pub(crate) enum Norm {
    Layer(LayerNorm),
    Rms(RmsNorm),
    CentredRms(CentredRmsNorm),
}

impl Norm {
    /// `[.., hidden]` to the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Norm::Layer(norm) => norm.forward(x),
            Norm::Rms(norm) => norm.forward(x),
            Norm::CentredRms(norm) => norm.forward(x),
        }
    }
}

/// The end of a post-norm sub-block: LayerNorm(dropout(out) + what went in).
#[derive(Debug)]
pub(crate) struct AddNorm {
    pub norm: LayerNorm,
    pub eps: f64,
    pub dropout: f64,
}

impl AddNorm {
    /// `out` and `x` `[batch, length, hidden]` to the same.
    pub fn forward(&self, out: Tensor, x: &Tensor, train: bool) -> Tensor {
        let p = if train { self.dropout } else { 0.0 };
        let (gamma, beta) = (self.norm.ws.as_ref(), self.norm.bs.as_ref());
        kernels::add_layer_norm(out, x, gamma, beta, self.eps, p)
    }
}

/// LayerNorm that may have no shift.
#[derive(Debug)]
pub(crate) struct ScaleNorm {
    pub scale: Tensor,
    pub shift: Option<Tensor>,
    pub eps: f64,
}

impl ScaleNorm {
    /// `[.., hidden]` to the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.scale.size(), Some(&self.scale), self.shift.as_ref(), self.eps, true)
    }
}

/// x / √(mean x² + ε) times a scale.
#[derive(Debug)]
pub(crate) struct RmsNorm {
    pub scale: Tensor,
    pub eps: f64,
}

impl RmsNorm {
    /// `[.., hidden]` to the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.rms_norm(self.scale.size(), Some(&self.scale), self.eps)
    }
}

/// x / √(mean x² + ε) times 1 + a weight, as Gemma has it: in single precision, as 1 + w has few
/// digits in bf16.
#[derive(Debug)]
pub(crate) struct CentredRmsNorm {
    pub weight: Tensor,
    pub eps: f64,
}

impl CentredRmsNorm {
    /// `[.., hidden]` to the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let scale = self.weight.to_kind(Kind::Float) + 1.0;
        let normed = x.to_kind(Kind::Float).rms_norm(scale.size(), Some(&scale), self.eps);
        normed.to_kind(x.kind())
    }
}

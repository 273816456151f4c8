//! Normalisations.

use aflora_core::kernels::{self, RmsScale};
use aflora_core::nn::{LayerNorm, Module};
use tch::Tensor;

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
}

impl Norm {
    /// `[.., hidden]` to the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Norm::Layer(norm) => norm.forward(x),
            Norm::Rms(norm) => norm.of_sum(x, None).1,
        }
    }

    /// x + delta, which is `x` without one, and its norm, of `[.., hidden]` each.
    pub fn of_sum(&self, x: &Tensor, delta: Option<&Tensor>) -> (Tensor, Tensor) {
        match self {
            Norm::Layer(norm) => {
                let sum = delta.map_or_else(|| x.shallow_clone(), |delta| x + delta);
                let normed = norm.forward(&sum);
                (sum, normed)
            }
            Norm::Rms(norm) => norm.of_sum(x, delta),
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
    pub weight: Tensor,
    /// Whether the scale is 1 + the weight, as Gemma has it.
    pub centred: bool,
    pub eps: f64,
}

impl RmsNorm {
    fn of_sum(&self, x: &Tensor, delta: Option<&Tensor>) -> (Tensor, Tensor) {
        let scale = match self.centred {
            true => RmsScale::OnePlus(&self.weight),
            false => RmsScale::Weight(&self.weight),
        };
        kernels::add_rms_norm(x, delta, scale, self.eps)
    }
}

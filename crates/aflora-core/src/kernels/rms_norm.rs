//! RMSNorm of a residual sum.

use aflora_cuda::ops;
use tch::{Kind, Tensor};

/// A frozen scale of RMSNorm, in the kind of what it scales.
#[derive(Debug, Clone, Copy)]
pub enum RmsScale<'a> {
    /// This, `[features]`.
    Weight(&'a Tensor),
    /// 1 + this, `[features]`, as Gemma has it: in single precision, as 1 + w has few digits in bf16.
    OnePlus(&'a Tensor),
}

/// x + delta, which is `x` without one, and its RMSNorm over the last dimension, x / √(mean x² + ε) times
/// the scale (Zhang and Sennrich 2019), both in the kind of `x`.
///
/// `x` and `delta`: `[.., features]`; gives two of `[.., features]`.
pub fn add_rms_norm(
    x: &Tensor,
    delta: Option<&Tensor>,
    scale: RmsScale,
    eps: f64,
) -> (Tensor, Tensor) {
    let (weight, plus) = match scale {
        RmsScale::Weight(weight) => (weight, 0.0),
        RmsScale::OnePlus(weight) => (weight, 1.0),
    };
    if let Some([sum, normed]) = ops::add_rms_norm(x, delta, weight, plus, eps) {
        return (sum, normed);
    }
    let sum = delta.map_or_else(|| x.shallow_clone(), |delta| x + delta);
    let normed = match scale {
        RmsScale::Weight(weight) => sum.rms_norm(weight.size(), Some(weight), eps),
        RmsScale::OnePlus(weight) => {
            let scale = weight.to_kind(Kind::Float) + 1.0;
            let normed = sum.to_kind(Kind::Float).rms_norm(scale.size(), Some(&scale), eps);
            normed.to_kind(sum.kind())
        }
    };
    (sum, normed)
}

//! The end of a post-norm sub-block.

use aflora_cuda::ops;
use tch::Tensor;

/// LayerNorm(dropout(x) + residual) over the last dimension, in the kind of `x`; `gamma` and
/// `beta` are frozen.
///
/// `x` and `residual`: `[.., features]`, `gamma` and `beta`: `[features]`; gives `[.., features]`.
/// `dropout` is the share of `x` that is dropped: 0 outside training.
pub fn add_layer_norm(
    x: Tensor,
    residual: &Tensor,
    gamma: Option<&Tensor>,
    beta: Option<&Tensor>,
    eps: f64,
    dropout: f64,
) -> Tensor {
    if let Some(y) = ops::add_layer_norm(&x, residual, gamma, beta, eps, dropout) {
        return y;
    }
    let features = residual.size().last().copied().unwrap_or(1);
    let dropped = if dropout > 0.0 { x.dropout(dropout, true) } else { x };
    (dropped + residual).layer_norm([features], gamma, beta, eps, true)
}

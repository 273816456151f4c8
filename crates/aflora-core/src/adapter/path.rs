//! The forward pass of low-rank paths, as methods share it.

use super::site::Site;
use crate::product::product_and;
use crate::Result;
use tch::Tensor;

/// Checks a dropout rate.
pub(super) fn check_dropout(dropout: f64) -> Result<()> {
    let ok = (0.0..1.0).contains(&dropout);
    crate::error::check("dropout", dropout, ok, "at least 0 and below 1")
}

/// `x` as `[tokens, in_features]`, as it is and dropped out if a rate is given.
pub(super) fn flat(x: &Tensor, site: &Site, dropout: Option<f64>) -> (Tensor, Tensor) {
    let plain = x.reshape([-1, site.in_features]);
    let dropped = match dropout {
        Some(p) if p > 0.0 => plain.dropout(p, true),
        _ => plain.shallow_clone(),
    };
    (plain, dropped)
}

/// `W0 x + bias + up h`, in the shape of `x`.
///
/// `x2` is `x` as `[tokens, in_features]`, `h` is `[tokens, rank]`, `up` is
/// `[out_features, rank]`.
pub(super) fn accumulate(
    x: &Tensor,
    x2: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    h: &Tensor,
    up: &Tensor,
) -> Tensor {
    let y = product_and(x2, weight, bias, h, &up.to_kind(h.kind()));
    shaped(y, x)
}

/// `[tokens, features]` in the shape of `x` but for its features.
pub(super) fn shaped(y: Tensor, x: &Tensor) -> Tensor {
    let mut shape = x.size();
    if let Some(last) = shape.last_mut() {
        *last = y.size()[1];
    }
    y.view(shape.as_slice())
}

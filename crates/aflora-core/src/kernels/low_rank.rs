//! A low-rank path beside a frozen weight.

use super::product::product_and;
use crate::weight::FrozenWeight;
use aflora_cuda::ops;
use tch::Tensor;

pub use aflora_cuda::ops::LowRankPath;

/// `W0 x + bias + scale · b ⊙ up (d ⊙ (down x))`, in the kind of `x`; with `dropout`, the path (and
/// it alone) reads an `x` of which that share is dropped.
///
/// `x`: `[.., in_features]`, `weight` (frozen): `[out_features, in_features]`, `bias` (frozen):
/// `[out_features]`; gives `[.., out_features]`.
///
/// Fused, it is one pass over `x` and one over the output for ranks of up to 8, and libtorch's products for others,
/// into one another. Otherwise b and the scale are folded
/// into `up`, row by row, and so is d into `down` while `down` trains: two skinny products, the
/// second accumulated into the output. Once `down` is frozen, d stands outside: the same numbers,
/// and its gradient is a sum over `[tokens, rank]` instead of a product as wide as the layer.
pub fn low_rank(
    x: &Tensor,
    weight: &FrozenWeight,
    bias: Option<&Tensor>,
    path: &LowRankPath,
    dropout: Option<f64>,
) -> Tensor {
    let dropped = dropout.unwrap_or(0.0);
    if let Some(y) = ops::low_rank(x, weight.as_kernel(), bias, path, dropped) {
        return y;
    }
    let (tokens, dropped) = by_token(x, dropout);
    let (kind, LowRankPath { down, d, up, b, scale }) = (x.kind(), *path);
    let scaled = |t: &Tensor| if scale == 1.0 { t.shallow_clone() } else { t * scale };
    let project = |down: &Tensor| dropped.linear(&down.to_kind(kind), None::<Tensor>);
    // The scale goes onto the smaller of what there is: onto b, else onto `down`.
    let down = if b.is_none() { scaled(down) } else { down.shallow_clone() };
    let h = match d {
        Some(d) if down.requires_grad() => project(&(&down * d.unsqueeze(1))),
        Some(d) => project(&down) * d.to_kind(kind),
        None => project(&down),
    };
    let up = match b {
        Some(b) => up * scaled(&b.unsqueeze(1)),
        None => up.shallow_clone(),
    };
    add_path(x, &tokens, weight, bias, &h, &up)
}

/// `x` as `[tokens, in_features]`: as it is, and with the share `dropout` of it dropped.
pub(crate) fn by_token(x: &Tensor, dropout: Option<f64>) -> (Tensor, Tensor) {
    let features = x.size().last().copied().unwrap_or(1);
    let plain = x.reshape([-1, features]);
    let dropped = match dropout {
        Some(p) if p > 0.0 => plain.dropout(p, true),
        _ => plain.shallow_clone(),
    };
    (plain, dropped)
}

/// `W0 x + bias + up h`, in the shape of `x` but for its features.
///
/// `tokens` is `x` as `[tokens, in_features]`, `h` is `[tokens, rank]`, `up` is
/// `[out_features, rank]`.
pub(crate) fn add_path(
    x: &Tensor,
    tokens: &Tensor,
    weight: &FrozenWeight,
    bias: Option<&Tensor>,
    h: &Tensor,
    up: &Tensor,
) -> Tensor {
    shaped(product_and(tokens, weight, bias, h, &up.to_kind(h.kind())), x)
}

/// `y`, `[tokens, features]`, in the shape of `x` but for its features.
pub(crate) fn shaped(y: Tensor, x: &Tensor) -> Tensor {
    let mut shape = x.size();
    if let Some(last) = shape.last_mut() {
        *last = y.size()[1];
    }
    y.view(shape.as_slice())
}

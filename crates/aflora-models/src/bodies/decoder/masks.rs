//! Which tokens of a row each token sees, and the positions of its tokens.

use tch::{Kind, Tensor};

/// Positions that count tokens only, `real` ones, `[batch, length]`: 0 at the first after the
/// padding.
pub(super) fn left_padded_positions(real: &Tensor) -> Tensor {
    (real.cumsum(1, Kind::Int64) - 1).clamp_min(0)
}

/// What each query may see, `[batch, 1, length, length]`: itself and the tokens before it.
/// Padding sees itself, so that no row is empty.
pub(super) fn causal(real: &Tensor) -> Tensor {
    let length = real.size()[1];
    let square = (Kind::Bool, real.device());
    let itself = Tensor::eye(length, square);
    let causal = Tensor::ones([length, length], square).tril(0);
    let seen = real.unsqueeze(1).logical_and(&causal).logical_or(&itself);
    seen.unsqueeze(1)
}

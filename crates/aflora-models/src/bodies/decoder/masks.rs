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

/// What each query may see of a row of documents, `[batch, length, length]`: its own document's
/// tokens up to itself.
pub(super) fn of_documents(documents: &Tensor) -> Tensor {
    let length = documents.size()[1];
    let causal = Tensor::ones([length, length], (Kind::Bool, documents.device())).tril(0);
    documents.unsqueeze(2).eq_tensor(&documents.unsqueeze(1)).logical_and(&causal)
}

/// Positions that begin at 0 with each document, `[batch, length]`.
pub(super) fn positions_in_documents(documents: &Tensor) -> Tensor {
    let length = documents.size()[1];
    let columns = Tensor::arange(length, (Kind::Int64, documents.device())).expand_as(documents);
    let changes = documents.narrow(1, 1, length - 1).ne_tensor(&documents.narrow(1, 0, length - 1));
    let begins = changes.to_kind(Kind::Int64).constant_pad_nd([1, 0]);
    let (starts, _) = (&columns * begins).cummax(1);
    columns - starts
}

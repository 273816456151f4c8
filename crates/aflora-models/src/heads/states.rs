//! The hidden state of one token of each text.

use tch::{Kind, Tensor};

/// The last of the columns of highest rank in each row of `ranks`, `[batch, length]` Int64, of
/// those above zero; 0 where none is: `[batch]`.
///
/// Ranks are 0, 1, and `length + 1` or more, so that a place of higher rank wins wherever it is.
pub(crate) fn last(ranks: &Tensor) -> Tensor {
    let columns = Tensor::arange(ranks.size()[1], (Kind::Int64, ranks.device()));
    (ranks * columns).argmax(1, false)
}

/// Of hidden states `[batch, length, hidden]` those at the columns `at`, `[batch]`:
/// `[batch, hidden]`.
pub(crate) fn states_at(hidden: &Tensor, at: &Tensor) -> Tensor {
    let (batch, length) = (hidden.size()[0], hidden.size()[1]);
    let begin = Tensor::arange(batch, (Kind::Int64, hidden.device())) * length;
    hidden.flatten(0, 1).index_select(0, &(begin + at))
}

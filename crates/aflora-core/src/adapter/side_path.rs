//! A low-rank path beside a frozen weight, as an adapter hands it out to whoever computes the layer.

use crate::kernels::{self, LowRankPath};
use crate::weight::FrozenWeight;
use tch::Tensor;

/// y = W0 x + bias + scale · b ⊙ up (d ⊙ (down drop(x))): all that a layer computes. The tensors are handles, not copies.
#[derive(Debug)]
pub struct SidePath {
    /// A, `[rank, in_features]`.
    pub down: Tensor,
    /// d, `[rank]`; all ones if not given.
    pub d: Option<Tensor>,
    /// B, `[out_features, rank]`.
    pub up: Tensor,
    /// b, `[out_features]`; all ones if not given.
    pub b: Option<Tensor>,
    /// A factor on the whole path.
    pub scale: f64,
    /// The share of the path's input that is dropped; none outside training.
    pub dropout: Option<f64>,
}

impl SidePath {
    /// The layer's output: as [`Adapter::forward`](super::Adapter::forward).
    pub fn forward(&self, x: &Tensor, weight: &FrozenWeight, bias: Option<&Tensor>) -> Tensor {
        kernels::low_rank(x, weight, bias, &self.as_kernel(), self.dropout)
    }

    /// The path as kernels take it.
    pub(crate) fn as_kernel(&self) -> LowRankPath<'_> {
        let SidePath { down, d, up, b, scale, .. } = self;
        LowRankPath { down, d: d.as_ref(), up, b: b.as_ref(), scale: *scale }
    }

    /// Whether some of its input is dropped.
    pub(crate) fn drops(&self) -> bool {
        self.dropout.is_some_and(|share| share > 0.0)
    }
}

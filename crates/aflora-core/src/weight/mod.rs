//! Frozen weights, dense or in few bits.
//!
//! A layer's weight is a [`FrozenWeight`], and whoever multiplies by it or reads it goes through it:
//! adapters, merging, methods that start from the weight. A [quantised](QuantisedWeight) one is
//! restored for a product and again for its gradient; in between only its codes are held.

mod format;
mod maps;
mod quantise;
mod quantised;
#[cfg(test)]
mod tests;

pub use aflora_cuda::blocks::{restore as restore_blocks, BlockFormat};
pub use format::WeightFormat;
pub use quantised::{Coding, QuantisedWeight, Scales};

use aflora_cuda::ops;
use tch::{Device, Kind, Tensor};

/// A frozen weight as it lies in memory, `[out_features, in_features]`.
#[derive(Debug)]
pub enum FrozenWeight {
    /// Each number by itself.
    Dense(Tensor),
    /// Codes that share scales.
    Quantised(QuantisedWeight),
}

impl FrozenWeight {
    /// A further handle to the same weight.
    pub fn shallow_clone(&self) -> Self {
        self.map_tensors(&Tensor::shallow_clone)
    }

    /// The same with what `of` makes of each tensor that it is made of, always in the same order.
    pub(crate) fn map_tensors(&self, of: &impl Fn(&Tensor) -> Tensor) -> Self {
        match self {
            FrozenWeight::Dense(weight) => FrozenWeight::Dense(of(weight)),
            FrozenWeight::Quantised(weight) => FrozenWeight::Quantised(weight.map_tensors(of)),
        }
    }

    /// `x Wᵀ + bias` in the kind of `x`, `[.., in_features]` to `[.., out_features]`.
    pub fn linear(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        match self {
            FrozenWeight::Dense(weight) => x.linear(weight, bias),
            FrozenWeight::Quantised(weight) => weight.linear(x, bias),
        }
    }

    /// Its numbers, `[out_features, in_features]`: as they lie, or restored in single precision.
    pub fn numbers(&self) -> Tensor {
        match self {
            FrozenWeight::Dense(weight) => weight.detach(),
            FrozenWeight::Quantised(weight) => weight.restore(Kind::Float),
        }
    }

    /// The weight as kernels take it.
    pub(crate) fn as_kernel(&self) -> ops::Frozen<'_> {
        match self {
            FrozenWeight::Dense(weight) => ops::Frozen::Dense(weight),
            FrozenWeight::Quantised(weight) => ops::Frozen::Quantised(weight.parts()),
        }
    }

    /// Where it lies.
    pub fn device(&self) -> Device {
        match self {
            FrozenWeight::Dense(weight) => weight.device(),
            FrozenWeight::Quantised(weight) => weight.device(),
        }
    }
}

impl From<Tensor> for FrozenWeight {
    fn from(weight: Tensor) -> Self {
        FrozenWeight::Dense(weight)
    }
}

impl From<&Tensor> for FrozenWeight {
    fn from(weight: &Tensor) -> Self {
        FrozenWeight::Dense(weight.shallow_clone())
    }
}

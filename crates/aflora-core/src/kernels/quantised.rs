//! A frozen weight in 4 or 8 bits: restored, and multiplied by.

use crate::weight::{Coding, FrozenWeight, QuantisedWeight, Scales};
use aflora_cuda::ops::{self, Nested, Quantised};
use tch::{Kind, Tensor};

/// The numbers of `weight` in `kind`, `[out_features, in_features]`.
pub(crate) fn restore(weight: &QuantisedWeight, kind: Kind) -> Tensor {
    tch::no_grad(|| ops::restore(&parts(weight), kind).unwrap_or_else(|| weight.composed(kind)))
}

/// `x Wᵀ + bias` in the kind of `x`. The weight is restored for it and for the gradient of `x`; where
/// no kernel takes it, libtorch keeps it in between.
///
/// `x`: `[.., in_features]`, `bias`: `[out_features]`; gives `[.., out_features]`.
pub(crate) fn quantised_linear(
    x: &Tensor,
    weight: &QuantisedWeight,
    bias: Option<&Tensor>,
) -> Tensor {
    ops::quantised_linear(x, &parts(weight), bias)
        .unwrap_or_else(|| x.linear(&restore(weight, x.kind()), bias))
}

/// A frozen weight as kernels take it.
pub(super) fn frozen(weight: &FrozenWeight) -> ops::Frozen<'_> {
    match weight {
        FrozenWeight::Dense(weight) => ops::Frozen::Dense(weight),
        FrozenWeight::Quantised(weight) => ops::Frozen::Quantised(parts(weight)),
    }
}

fn parts(weight: &QuantisedWeight) -> Quantised<'_> {
    let (codes, shape) = (weight.codes(), weight.shape());
    match weight.coding() {
        Coding::Rows { scales } => {
            Quantised { codes, map: None, scales, nested: None, block: shape[1], shape }
        }
        Coding::Map { map, block, scales } => {
            let (scales, nested) = match scales {
                Scales::Plain(scales) => (scales, None),
                Scales::Nested { codes, map, scales, offset, block } => {
                    (codes, Some(Nested { map, scales, offset: *offset, block: *block }))
                }
            };
            Quantised { codes, map: Some(map), scales, nested, block: *block, shape }
        }
    }
}

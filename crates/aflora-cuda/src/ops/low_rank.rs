//! Low-rank paths beside frozen weights.

use super::{raw, run, run_for, Frozen, GateActivation};
use crate::raw::{Raw, RawLayer, RawQuantised};
use std::ffi::c_int;
use tch::Tensor;

/// A path y += scale · b ⊙ up (d ⊙ (down x)).
#[derive(Debug, Clone, Copy)]
pub struct LowRankPath<'a> {
    /// A, `[rank, in_features]`, fp32.
    pub down: &'a Tensor,
    /// d, `[rank]`, fp32; all ones if not given.
    pub d: Option<&'a Tensor>,
    /// B, `[out_features, rank]`, fp32.
    pub up: &'a Tensor,
    /// b, `[out_features]`, fp32; all ones if not given.
    pub b: Option<&'a Tensor>,
    /// A factor on the whole path.
    pub scale: f64,
}

/// A frozen linear layer, y = W0 x + bias, and the path beside it.
#[derive(Debug, Clone, Copy)]
pub struct LowRankLayer<'a> {
    /// W0, `[out_features, in_features]`.
    pub weight: Frozen<'a>,
    /// `[out_features]`.
    pub bias: Option<&'a Tensor>,
    /// The path.
    pub path: LowRankPath<'a>,
    /// How many tokens it reads, from the first on; all if not given.
    pub tokens: Option<i64>,
}

impl LowRankLayer<'_> {
    fn quantised(&self) -> Option<RawQuantised> {
        match &self.weight {
            Frozen::Dense(_) => None,
            Frozen::Quantised(weight) => Some(weight.as_raw()),
        }
    }

    fn as_raw(&self, quantised: Option<&RawQuantised>) -> RawLayer {
        let LowRankPath { down, d, up, b, scale } = self.path;
        RawLayer {
            weight: match &self.weight {
                Frozen::Dense(weight) => weight.as_ptr() as Raw,
                Frozen::Quantised(_) => std::ptr::null(),
            },
            quantised: quantised.map_or(std::ptr::null(), |raw| raw),
            bias: raw(self.bias),
            down: down.as_ptr(),
            d: raw(d),
            up: up.as_ptr(),
            b: raw(b),
            scale,
            tokens: self.tokens.unwrap_or(0),
        }
    }
}

/// `W0 x + bias` and the path beside it, in the kind of `x`; the path reads an `x` of which the share `dropout`
/// is dropped, 0 outside training.
///
/// `x`: `[.., in_features]`, `weight` (frozen): `[out_features, in_features]`, `bias` (frozen):
/// `[out_features]`; gives `[.., out_features]`.
pub fn low_rank(
    x: &Tensor,
    weight: Frozen,
    bias: Option<&Tensor>,
    path: &LowRankPath,
    dropout: f64,
) -> Option<Tensor> {
    let layer = LowRankLayer { weight, bias, path: *path, tokens: None };
    let quantised = layer.quantised();
    let raw = layer.as_raw(quantised.as_ref());
    // SAFETY: tensors that live through the call.
    run(x, |shim, out| unsafe { (shim.low_rank)(out, x.as_ptr(), &raw, dropout) })
}

/// Up to three layers that read one input, each as [`low_rank`] has it: one pass over `x` makes `down x` of all
/// paths, and one over its gradient adds what all of them give.
///
/// Takes paths of one rank that all have the same vectors, but in fp32, and before compute capability 8.0, none of up to eight
/// ranks that have more than twelve components together. The first layer reads all tokens. A layer that reads but some takes
/// and gives them as `[tokens, features]`.
///
/// `x`: `[.., in_features]`; gives `[.., out_features]` of each.
pub fn low_rank_together<const N: usize>(
    x: &Tensor,
    layers: &[LowRankLayer; N],
) -> Option<[Tensor; N]> {
    let quantised = layers.each_ref().map(LowRankLayer::quantised);
    let raw: [RawLayer; N] = std::array::from_fn(|i| layers[i].as_raw(quantised[i].as_ref()));
    run_for(x, |shim, out| {
        // SAFETY: tensors that live through the call, and places for one of each layer.
        unsafe { (shim.low_rank_together)(out, x.as_ptr(), raw.as_ptr(), N as c_int) }
    })
}

/// down(act(up x)) of two layers, each as [`low_rank`] has it, for ranks of up to eight and paths with the same vectors:
/// the activation is made in the pass that adds the first path, and its gradient in that which adds the second's. What
/// is kept between the passes is `up x` alone.
///
/// `x`: `[.., in_features]`; gives `[.., out_features]` of the second.
pub fn feed_forward(
    x: &Tensor,
    [up, down]: [&LowRankLayer; 2],
    activation: GateActivation,
) -> Option<Tensor> {
    let quantised = [up, down].map(LowRankLayer::quantised);
    let raw = [up.as_raw(quantised[0].as_ref()), down.as_raw(quantised[1].as_ref())];
    run(x, |shim, out| {
        // SAFETY: tensors that live through the call.
        unsafe { (shim.feed_forward)(out, x.as_ptr(), raw.as_ptr(), activation as c_int) }
    })
}

//! Parts of a decoder's block.

use super::{raw, run, run_for};
use crate::raw::Raw;
use std::ffi::c_int;
use tch::Tensor;

/// x + delta, which is `x` without one, and its RMSNorm over the last dimension with a frozen `weight`:
/// s / √(mean s² + eps) · (weight + plus), in the kind of `x`; all but the sum in fp32. The norm is not kept for
/// its gradient, nor by a [path](super::low_rank) that reads it: `s` is.
///
/// `x` and `delta`: `[.., features]`, `weight`: `[features]`; gives two of `[.., features]`.
pub fn add_rms_norm(
    x: &Tensor,
    delta: Option<&Tensor>,
    weight: &Tensor,
    plus: f64,
    eps: f64,
) -> Option<[Tensor; 2]> {
    run_for(x, |shim, out| {
        // SAFETY: tensors that live through the call, and places for two.
        unsafe { (shim.add_rms_norm)(out, x.as_ptr(), raw(delta), weight.as_ptr(), plus, eps) }
    })
}

/// Queries and keys turned by the angles of their positions (Su et al. 2021). Of a head of n elements the first
/// 2m are turned, i with i + m, or, `interleaved`, 2i with 2i + 1. Cosines and sines are all that is kept.
///
/// `query` and `key`: `[batch, heads, length, n]`, each with heads of its own, `cos` and `sin`:
/// `[batch or 1, 1, length, m]`; gives both in their shapes, a position's heads together in memory.
pub fn rotary(
    query: &Tensor,
    key: &Tensor,
    [cos, sin]: [&Tensor; 2],
    interleaved: bool,
) -> Option<[Tensor; 2]> {
    run_for(query, |shim, out| {
        let [query, key, cos, sin] = [query, key, cos, sin].map(|t| t.as_ptr() as Raw);
        // SAFETY: tensors that live through the call, and places for two.
        unsafe { (shim.rotary)(out, query, key, cos, sin, c_int::from(interleaved)) }
    })
}

/// What a [gate](gated) is given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateActivation {
    /// x · σ(x).
    Silu = 0,
    /// x · Φ(x).
    Gelu = 1,
    /// The same by way of tanh.
    GeluTanh = 2,
}

/// act(gate) ⊙ up, in the kind of `gate`, from which alone gradients are made.
///
/// `gate` and `up`: `[.., wide]`; without an `up`, `gate` is `[.., 2 wide]`, the gate first. Gives
/// `[.., wide]`.
pub fn gated(gate: &Tensor, up: Option<&Tensor>, activation: GateActivation) -> Option<Tensor> {
    run(gate, |shim, out| {
        // SAFETY: tensors that live through the call.
        unsafe { (shim.gated)(out, gate.as_ptr(), raw(up), activation as c_int) }
    })
}

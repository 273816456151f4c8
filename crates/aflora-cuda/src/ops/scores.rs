//! Freezing scores of elements, in flat buffers.

use super::{fuses, raw, run, FAILURE};
use std::ffi::c_int;
use tch::Tensor;

/// What the sensitivity of an element p with gradient g is; of one that is zero it is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Sensitivity {
    /// |g|.
    Gradient,
    /// |p g|.
    ParameterGradient,
    /// |g / p|.
    RelativeGradient,
}

/// The sensitivity of each of `values`, `[n]`, with its `gradient`, `[n]`; both fp32 on a GPU.
pub fn sensitivity(values: &Tensor, gradient: &Tensor, of: Sensitivity) -> Option<Tensor> {
    run(values, |shim, out| {
        // SAFETY: tensors that live through the call.
        unsafe { (shim.sensitivity)(out, values.as_ptr(), gradient.as_ptr(), of as c_int) }
    })
}

/// The means of elements and of their deviations, which are smoothed exponentially. Buffers are `[n]`, fp32, on
/// one GPU.
#[derive(Debug)]
pub struct Smoothing<'a> {
    /// Of each element.
    pub mean: &'a Tensor,
    /// Of |now - mean|.
    pub deviation: &'a Tensor,
    /// How far either goes at once, up to 1.
    pub shares: [f64; 2],
    /// Whether a deviation is from the mean that was moved already.
    pub updated: bool,
}

impl Smoothing<'_> {
    /// Moves both by what is so `now`, where that was `observed`: 1, or 0 where all stays; everywhere if not given.
    /// Whether it did: what it does not take is left as it was.
    pub fn observe(&self, now: &Tensor, observed: Option<&Tensor>) -> bool {
        let (true, Ok(shim)) = (fuses(now), crate::shim()) else { return false };
        let ([mean_share, share], mut takes) = (self.shares, 0);
        let [mean, deviation] = [self.mean, self.deviation].map(Tensor::as_ptr);
        let (now, observed, updated) = (now.as_ptr(), raw(observed), c_int::from(self.updated));
        // SAFETY: tensors that live through the call, numbers, and one that is written.
        let returned = unsafe {
            (shim.smooth)(&mut takes, now, observed, mean, deviation, mean_share, share, updated)
        };
        shim.check(returned).map_err(|error| drop(FAILURE.set(error))).is_ok() && takes != 0
    }
}

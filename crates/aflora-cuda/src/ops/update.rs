//! The update of what trains, wherever it lies in flat buffers: one launch for all of it, however many pieces
//! freezing left; and what is done with all gradients before.

use super::{fuses, raw, run_for, Pieces, FAILURE};
use crate::raw::RawAdamW;
use tch::Tensor;

/// One update of AdamW, with decoupled decay (Loshchilov and Hutter 2019). Buffers are `[n]`, fp32, on one
/// device.
#[derive(Debug)]
pub struct AdamWUpdate<'a> {
    /// What is updated.
    pub values: &'a Tensor,
    /// Its gradient.
    pub gradient: &'a Tensor,
    /// The averages of gradients and of their squares, which are updated as well.
    pub moments: [&'a Tensor; 2],
    /// Counts updates, from 1.
    pub t: u64,
    /// The rate.
    pub lr: f64,
    /// The two moments' decays.
    pub betas: [f64; 2],
    /// Added to the denominator.
    pub eps: f64,
    /// Decay of the values.
    pub decay: f64,
}

/// Updates these pieces of a GPU's buffers, and nothing beside them; whether it did: what fails was refused
/// before anything moved.
pub fn adamw(of: &AdamWUpdate, pieces: &Pieces) -> bool {
    let (true, Ok(shim)) = (fuses(of.values), crate::shim()) else { return false };
    let [beta1, beta2] = of.betas;
    let numbers =
        RawAdamW { t: of.t as f64, lr: of.lr, beta1, beta2, eps: of.eps, decay: of.decay };
    let [first, second] = of.moments.map(Tensor::as_ptr);
    let (values, gradient) = (of.values.as_ptr(), of.gradient.as_ptr());
    // SAFETY: tensors that live through the call, and numbers.
    let returned =
        unsafe { (shim.adamw)(values, gradient, first, second, pieces.ends().as_ptr(), &numbers) };
    shim.check(returned).map_err(|error| drop(FAILURE.set(error))).is_ok()
}

/// What gradients and a loss are found to be; on their GPU, `[]`.
#[derive(Debug)]
pub struct Judged {
    /// The gradients' joint 2-norm.
    pub norm: Tensor,
    /// The same, but zero where it or the loss is not finite.
    pub finite_norm: Tensor,
    /// Whether one of them is not finite; Bool.
    pub bad: Tensor,
}

/// Looks at all gradients, `[n]` and fp32 on a GPU, and a loss, `[]`; makes the gradients zero where it finds them bad.
pub fn judge(gradients: &Tensor, loss: &Tensor) -> Option<Judged> {
    let judged = look(gradients, Some(loss))?;
    let shim = crate::shim().ok()?;
    // SAFETY: tensors that live through the call.
    let returned = unsafe { (shim.forget)(gradients.as_ptr(), judged.bad.as_ptr()) };
    shim.check(returned).map_err(|error| drop(FAILURE.set(error))).ok()?;
    Some(judged)
}

/// The joint 2-norm of all gradients, `[]`, which are `[n]` and fp32 on a GPU.
pub fn joint_norm(gradients: &Tensor) -> Option<Tensor> {
    look(gradients, None).map(|judged| judged.norm)
}

fn look(gradients: &Tensor, loss: Option<&Tensor>) -> Option<Judged> {
    let [norm, finite_norm, bad] = run_for(gradients, |shim, out| {
        // SAFETY: tensors that live through the call; three are made.
        unsafe { (shim.judge)(out, gradients.as_ptr(), raw(loss)) }
    })?;
    Some(Judged { norm, finite_norm, bad })
}

/// Scales all gradients, `[n]` and fp32 on a GPU, by min(1, most / (norm + 1e-6)), where `norm` is theirs, `[]`; whether
/// it did.
pub fn clip(gradients: &Tensor, norm: &Tensor, most: f64) -> bool {
    let (true, Ok(shim)) = (fuses(gradients), crate::shim()) else { return false };
    let mut takes = 0;
    // SAFETY: tensors that live through the call, and a number that is written.
    let returned = unsafe { (shim.clip)(&mut takes, gradients.as_ptr(), norm.as_ptr(), most) };
    shim.check(returned).map_err(|error| drop(FAILURE.set(error))).is_ok() && takes != 0
}

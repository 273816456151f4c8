//! The update of what trains, wherever it lies in flat buffers: one launch for up to eight rates, however many pieces
//! freezing left; and what is done with all gradients before.

use super::{fuses, raw, run_for, Pieces, FAILURE};
use crate::raw::{Raw, RawAdamWStep, RawAdamWUpdate};
use std::ffi::c_int;
use tch::Tensor;

/// What AdamW, with decoupled decay (Loshchilov and Hutter 2019), updates at one rate. Buffers are `[n]`, fp32, on one
/// device.
#[derive(Debug)]
pub struct AdamWUpdate<'a> {
    /// What is updated.
    pub values: &'a Tensor,
    /// Its gradient.
    pub gradient: &'a Tensor,
    /// The averages of gradients and of their squares, which are updated as well.
    pub moments: [&'a Tensor; 2],
    /// Those parts of all of them that are updated, and nothing beside them.
    pub pieces: &'a Pieces,
    /// The rate.
    pub lr: f64,
    /// Decay of the values.
    pub decay: f64,
}

/// What all updates of a step have in common.
#[derive(Debug, Clone, Copy)]
pub struct AdamWStep {
    /// Counts updates, from 1.
    pub t: u64,
    /// The two moments' decays.
    pub betas: [f64; 2],
    /// Added to the denominator.
    pub eps: f64,
}

/// Makes these updates, of buffers on one GPU, in one launch for each eight of them; whether it did. What is not as it
/// should be is refused before anything moves.
pub fn adamw(step: &AdamWStep, updates: &[AdamWUpdate]) -> bool {
    let here = updates.iter().all(|update| fuses(update.values));
    let (true, Ok(shim), Ok(count)) = (here, crate::shim(), c_int::try_from(updates.len())) else {
        return false;
    };
    let raw = |of: &AdamWUpdate| {
        Some(RawAdamWUpdate {
            values: of.values.as_ptr(),
            gradient: of.gradient.as_ptr(),
            first: of.moments[0].as_ptr(),
            second: of.moments[1].as_ptr(),
            pieces: of.pieces.ends_in(of.values)?.as_ptr(),
            lr: of.lr,
            decay: of.decay,
        })
    };
    let Some(updates) = updates.iter().map(raw).collect::<Option<Vec<_>>>() else { return false };
    let [beta1, beta2] = step.betas;
    let step = RawAdamWStep { t: step.t as f64, beta1, beta2, eps: step.eps };
    // SAFETY: tensors that live through the call, and numbers.
    let returned = unsafe { (shim.adamw)(updates.as_ptr(), count, &step) };
    shim.check(returned).map_err(|error| drop(FAILURE.set(error))).is_ok()
}

/// Puts gradients where they belong, or adds them to what lies there, in one launch for some tens of them however their
/// places lie. `to` and `from` are as many tensors, `[n]` each pair of them, fp32 on a GPU. Whether it did: what it
/// refuses is left as it was.
pub fn collect(to: &[Tensor], from: &[Tensor], add: bool) -> bool {
    let here = to.len() == from.len() && to.iter().chain(from).all(fuses);
    let (true, Ok(shim), Ok(count)) = (here, crate::shim(), c_int::try_from(to.len())) else {
        return false;
    };
    let [to, from] =
        [to, from].map(|all| all.iter().map(|t| t.as_ptr() as Raw).collect::<Vec<_>>());
    let mut takes = 0;
    // SAFETY: tensors that live through the call, as many as are counted, and a number that is written.
    let returned =
        unsafe { (shim.collect)(&mut takes, to.as_ptr(), from.as_ptr(), count, add.into()) };
    shim.check(returned).map_err(|error| drop(FAILURE.set(error))).is_ok() && takes != 0
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
/// Bad ones are counted: in all, and in a row, both `[]` and Int64.
pub fn judge(gradients: &Tensor, loss: &Tensor, counts: [&Tensor; 2]) -> Option<Judged> {
    look(gradients, Some((loss, counts)))
}

/// The joint 2-norm of all gradients, `[]`, which are `[n]` and fp32 on a GPU.
pub fn joint_norm(gradients: &Tensor) -> Option<Tensor> {
    look(gradients, None).map(|judged| judged.norm)
}

fn look(gradients: &Tensor, beside: Option<(&Tensor, [&Tensor; 2])>) -> Option<Judged> {
    let [norm, finite_norm, bad] = run_for(gradients, |shim, out| {
        let loss = raw(beside.map(|(loss, _)| loss));
        let [total, in_a_row] = [0, 1].map(|i| raw(beside.map(|(_, counts)| counts[i])));
        // SAFETY: tensors that live through the call; three are made.
        unsafe { (shim.judge)(out, gradients.as_ptr(), loss, total, in_a_row) }
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

//! A step whose loss or gradient is not a finite number moves nothing.
//!
//! On a CPU looking is free, and the step is left out. A GPU must not be waited for: there the
//! gradient becomes zero where it lies, before scores and moments see it, and the count of such
//! steps stays on the device until somebody asks. All that is one kernel after another of our own
//! (aflora-cuda's kernels/joint_norm.cu).

use super::clip::joint_norm;
use super::Gradients;
use crate::Result;
use aflora_cuda::ops::{self, Judged};
use tch::{Device, Kind, Tensor};

/// What the guard found of one step.
#[derive(Debug)]
pub struct Guarded {
    /// Joint norm of the gradients as they came, `[]`.
    pub norm: Tensor,
    /// The same, but zero where the step is bad; `[]`.
    pub finite_norm: Tensor,
    /// Whether loss or gradient is not finite; `[]`, Bool, on the device.
    pub bad: Tensor,
    /// Whether the step is known to be bad, and to be left out.
    pub leave_out: bool,
}

/// Looks at a step before anything else does, counts it if it moves nothing, and makes its gradient harmless if need be;
/// `loss` is one number, `[]`.
pub fn guard(gradients: &mut Gradients, loss: &Tensor, skipped: &Skipped) -> Guarded {
    tch::no_grad(|| {
        let loss = loss.detach().reshape([0i64; 0]);
        let counts = [&skipped.total, &skipped.in_a_row];
        if let Some(Judged { norm, finite_norm, bad }) = ops::judge(gradients.flat(), &loss, counts)
        {
            return Guarded { norm, finite_norm, bad, leave_out: false };
        }
        let norm = joint_norm(gradients);
        // Infinity and NaN times zero are NaN, which differs from zero.
        let bad = ((&norm + loss) * 0.0).ne(0.0);
        skipped.count(&bad);
        if norm.device() == Device::Cpu {
            let leave_out = bad.int64_value(&[]) != 0;
            return Guarded { finite_norm: norm.shallow_clone(), norm, bad, leave_out };
        }
        let _ = gradients.flat().shallow_clone().masked_fill_(&bad, 0.0);
        Guarded { finite_norm: norm.masked_fill(&bad, 0.0), norm, bad, leave_out: false }
    })
}

/// How many steps moved nothing: in all, and in a row up to now. Counted on the device.
#[derive(Debug)]
pub struct Skipped {
    total: Tensor,
    in_a_row: Tensor,
}

impl Skipped {
    /// Counts on from these numbers.
    pub fn new(total: u64, in_a_row: u64, device: Device) -> Self {
        let count = |n: u64| Tensor::full([], n as i64, (Kind::Int64, device));
        Skipped { total: count(total), in_a_row: count(in_a_row) }
    }

    /// Counts a step, which is bad or not; `[]`, Bool.
    fn count(&self, bad: &Tensor) {
        let [mut total, mut in_a_row] = [&self.total, &self.in_a_row].map(Tensor::shallow_clone);
        let _ = total.g_add_(bad);
        let _ = in_a_row.g_add_scalar_(1).g_mul_(bad);
    }

    /// In all, and in a row up to now. Waits for the device.
    ///
    /// # Errors
    /// libtorch cannot read them.
    pub fn read(&self) -> Result<(u64, u64)> {
        let both = Vec::<i64>::try_from(Tensor::stack(&[&self.total, &self.in_a_row], 0))?;
        Ok((both[0] as u64, both[1] as u64))
    }
}

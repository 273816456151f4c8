//! Parts of flat buffers as kernels are told of them, and what is read of them: means, and the k-th smallest
//! number.

use super::{fuses, run, to_gpu, FAILURE};
use std::ops::Range;
use tch::{Device, Tensor};

/// Numbers of a piece at most, where pieces are cut: four for each thread of a block.
const PIECE: i64 = 1024;

/// Parts of flat buffers `[n]`, on a GPU.
#[derive(Debug)]
pub struct Pieces {
    /// Where each begins and ends, `[pieces, 2]`.
    ends: Tensor,
    /// Where the last number is that any has, and one more.
    reach: i64,
}

impl Pieces {
    /// These stretches, cut so that a block has one of them; for buffers on `device`.
    pub fn new(stretches: &[Range<i64>], device: Device) -> Self {
        let cut = stretches.iter().flat_map(|stretch| {
            let begins = stretch.clone().step_by(PIECE as usize);
            begins.map(|begin| begin..stretch.end.min(begin + PIECE))
        });
        Self::whole(cut, device)
    }

    /// These stretches as they are.
    pub fn whole(stretches: impl IntoIterator<Item = Range<i64>>, device: Device) -> Self {
        let ends: Vec<i64> =
            stretches.into_iter().flat_map(|stretch| [stretch.start, stretch.end]).collect();
        let reach = ends.iter().copied().max().unwrap_or(0);
        let ends = Tensor::from_slice(&ends).view([-1, 2]);
        // For a copy from other memory than pinned libtorch waits until the GPU has done all before it.
        let there = match device {
            Device::Cuda(index) => to_gpu(&ends, index),
            _ => None,
        };
        Pieces { ends: there.unwrap_or_else(|| ends.to_device(device)), reach }
    }

    /// Where each begins and ends, `[pieces, 2]`, if a buffer has that many numbers.
    pub(super) fn ends_in(&self, flat: &Tensor) -> Option<&Tensor> {
        (flat.numel() as i64 >= self.reach).then_some(&self.ends)
    }
}

/// Zeroes these pieces of `flat`, `[n]` and fp32 on a GPU. Whether it did: what it does not take is left as it was.
pub fn clear(flat: &Tensor, pieces: &Pieces) -> bool {
    let (true, Ok(shim)) = (fuses(flat), crate::shim()) else { return false };
    let (Some(ends), mut takes) = (pieces.ends_in(flat), 0) else { return false };
    // SAFETY: tensors that live through the call, of which the pieces lie in the first, and a number that is written.
    let returned = unsafe { (shim.clear)(&mut takes, flat.as_ptr(), ends.as_ptr()) };
    shim.check(returned).map_err(|error| drop(FAILURE.set(error))).is_ok() && takes != 0
}

/// The mean of each piece of `flat`, `[n]` and fp32 on a GPU: `[pieces]`.
pub fn means(flat: &Tensor, pieces: &Pieces) -> Option<Tensor> {
    let ends = pieces.ends_in(flat)?;
    run(flat, |shim, out| {
        // SAFETY: tensors that live through the call, of which the pieces lie in the first.
        unsafe { (shim.means)(out, flat.as_ptr(), ends.as_ptr()) }
    })
}

/// The `k`-th smallest number, from 1, in all pieces of `flat`, `[n]` and fp32 on a GPU: `[1]`. NaN is the
/// largest. Pieces have at least `k` numbers.
pub fn kth_smallest(flat: &Tensor, pieces: &Pieces, k: i64) -> Option<Tensor> {
    let ends = pieces.ends_in(flat)?;
    run(flat, |shim, out| {
        // SAFETY: tensors that live through the call, of which the pieces lie in the first.
        unsafe { (shim.kth_smallest)(out, flat.as_ptr(), ends.as_ptr(), k) }
    })
}

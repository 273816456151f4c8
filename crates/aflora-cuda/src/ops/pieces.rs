//! Parts of flat buffers as kernels are told of them, and what is read of them: means, and the k-th smallest
//! number.

use super::{run, to_gpu};
use std::ops::Range;
use tch::{Device, Tensor};

/// Numbers of a piece at most, where pieces are cut: four for each thread of a block.
const PIECE: i64 = 1024;

/// Parts of flat buffers `[n]`, on a GPU.
#[derive(Debug)]
pub struct Pieces(Tensor);

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
        let ends = Tensor::from_slice(&ends).view([-1, 2]);
        // For a copy from other memory than pinned libtorch waits until the GPU has done all before it.
        let there = match device {
            Device::Cuda(index) => to_gpu(&ends, index),
            _ => None,
        };
        Pieces(there.unwrap_or_else(|| ends.to_device(device)))
    }

    pub(super) fn ends(&self) -> &Tensor {
        &self.0
    }
}

/// The mean of each piece of `flat`, `[n]` and fp32 on a GPU: `[pieces]`.
pub fn means(flat: &Tensor, pieces: &Pieces) -> Option<Tensor> {
    run(flat, |shim, out| {
        // SAFETY: tensors that live through the call.
        unsafe { (shim.means)(out, flat.as_ptr(), pieces.0.as_ptr()) }
    })
}

/// The `k`-th smallest number, from 1, in all pieces of `flat`, `[n]` and fp32 on a GPU: `[1]`. NaN is the
/// largest. Pieces have at least `k` numbers.
pub fn kth_smallest(flat: &Tensor, pieces: &Pieces, k: i64) -> Option<Tensor> {
    run(flat, |shim, out| {
        // SAFETY: tensors that live through the call.
        unsafe { (shim.kth_smallest)(out, flat.as_ptr(), pieces.0.as_ptr(), k) }
    })
}

//! What a freeze test asks of a buffer that goes with a group, all of it to be read at once: on a GPU a few
//! kernels (aflora-cuda's kernels/order.cu), however many matrices there are, since the device waits while the host launches.

use super::Group;
use crate::Result;
use aflora_cuda::ops::{self, Fetched, Pieces};
use tch::{Device, Kind, Tensor};

impl Group {
    /// The mean over each parameter that is not frozen for good, in buffer order, of `flat`, which is laid out like
    /// the values, `[n]`: fp32, `[open]`.
    pub(crate) fn open_means(&self, flat: &Tensor) -> Tensor {
        let by_kernel = || {
            let places = || Pieces::whole(self.open_places(), flat.device());
            ops::means(flat, self.open_pieces.get_or_init(places))
        };
        on_gpu(flat, by_kernel).unwrap_or_else(|| {
            let means: Vec<Tensor> =
                self.open_slices(flat).map(|slice| slice.mean(Kind::Float)).collect();
            Tensor::stack(&means, 0)
        })
    }

    /// The `k`-th smallest number, from 1, of what trains of `flat`, laid out like the values, `[n]`: fp32, `[1]`.
    /// At least so many numbers train. NaN is the largest.
    pub(crate) fn kth_smallest(&self, flat: &Tensor, k: i64) -> Tensor {
        let by_kernel = || ops::kth_smallest(flat, self.live.pieces(flat.device()), k);
        on_gpu(flat, by_kernel).unwrap_or_else(|| {
            // Not by `kthvalue`: on a GPU it searches with a single block of threads.
            let (smallest, _) = self.gather(flat).topk(k, 0, false, false);
            smallest.max().reshape([1])
        })
    }
}

/// Nothing on a CPU.
fn on_gpu(flat: &Tensor, by_kernel: impl FnOnce() -> Option<Tensor>) -> Option<Tensor> {
    (flat.device() != Device::Cpu).then(by_kernel).flatten()
}

/// Numbers on their way from the device.
#[derive(Debug)]
pub(crate) enum Reading {
    /// From a GPU, which may still have to make them.
    Coming(Fetched),
    /// Where reading them waits for them.
    There(Tensor),
}

impl Reading {
    /// Of `numbers`, `[n]`, fp32. Nobody waits.
    pub fn begin(numbers: Tensor) -> Self {
        ops::fetch(&numbers).map_or(Reading::There(numbers), Reading::Coming)
    }

    /// Waits for them.
    pub fn end(self) -> Result<Vec<f32>> {
        let numbers = match self {
            Reading::Coming(fetched) => fetched.wait()?,
            Reading::There(numbers) => numbers,
        };
        Ok(Vec::try_from(numbers)?)
    }
}

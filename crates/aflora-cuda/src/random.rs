//! libtorch's generator of a GPU: whether anything drew of it.

use crate::shim;
use std::ffi::c_int;
use tch::Device;

/// Whether random numbers were drawn on a GPU since its generator was seeded (`tch::manual_seed`). True
/// where that is not known: of a CPU, and without the shim.
pub fn has_drawn(device: Device) -> bool {
    let (Device::Cuda(index), Ok(shim)) = (device, shim()) else { return true };
    let Ok(index) = c_int::try_from(index) else { return true };
    let mut count = 0;
    // SAFETY: one word is written, on success.
    shim.check(unsafe { (shim.drawn)(index, &mut count) }).is_err() || count != 0
}

//! A device's memory: what libtorch's allocator holds of it, and what is left of a GPU's.

use crate::{host, shim};
use libloading::os::unix::Library;
use std::ffi::c_int;
use std::sync::OnceLock;

/// What libtorch's allocator says of a device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes of the tensors that live now.
    pub allocated: u64,
    /// The most bytes that tensors took at once so far.
    pub peak_allocated: u64,
    /// The most bytes that the allocator held of the driver at once so far, tensors and caches.
    pub peak_reserved: u64,
}

/// This process's memory on a GPU; `None` before [`load`](crate::load).
pub fn memory(device: usize) -> Option<Memory> {
    let shim = shim().ok()?;
    let mut bytes = [0; 3];
    // SAFETY: three words are written.
    shim.check(unsafe { (shim.memory)(c_int::try_from(device).ok()?, bytes.as_mut_ptr()) }).ok()?;
    let [allocated, peak_allocated, peak_reserved] = bytes;
    Some(Memory { allocated, peak_allocated, peak_reserved })
}

/// Whether tensors on the host are counted.
static COUNTED: OnceLock<bool> = OnceLock::new();

/// Counts what tensors on the host take from now on, for [`host_memory`]: to be called before the first
/// of them is made. Each then has 64 bytes more.
pub fn count_host_memory() {
    let _ = COUNTED.get_or_init(|| host::count().is_ok());
}

/// What tensors on the host take; `None` where they are not [counted](count_host_memory).
pub fn host_memory() -> Option<Memory> {
    COUNTED.get().filter(|counted| **counted)?;
    let [allocated, peak_allocated] = host::memory();
    Some(Memory { allocated, peak_allocated, peak_reserved: peak_allocated })
}

/// Lets the most that tensors take at once begin anew: on a GPU, or on the host.
pub fn reset_peak(device: Option<usize>) {
    match (device.map(c_int::try_from), shim()) {
        (None, _) => host::reset_peak(),
        (Some(Ok(index)), Ok(shim)) => {
            // SAFETY: sets a number. What fails leaves the peak as it is.
            let _ = shim.check(unsafe { (shim.reset_peak)(index) });
        }
        _ => {}
    }
}

/// Gives back to the driver what libtorch's allocator holds and nothing uses: cuBLAS and cuDNN ask
/// the driver themselves, and would find nothing left. Without CUDA there is nothing to give.
pub fn release_unused() {
    if let Ok(shim) = shim() {
        shim.empty_cache();
    }
}

/// Bytes in use on a GPU, by every process; `None` before [`load`](crate::load) or where CUDA does not say.
///
/// libtorch's allocator gives nothing back, so after a run this is the most that it needed, with
/// the few hundred megabytes that CUDA itself takes.
pub fn memory_in_use(device: usize) -> Option<u64> {
    free_and_total(device).map(|(free, total)| total.saturating_sub(free) as u64)
}

/// Bytes of a GPU that no process has taken; `None` before [`load`](crate::load) or where CUDA does not say.
pub fn memory_free(device: usize) -> Option<u64> {
    free_and_total(device).map(|(free, _)| free as u64)
}

fn free_and_total(device: usize) -> Option<(usize, usize)> {
    type Device = unsafe extern "C" fn(*mut c_int) -> c_int;
    type SetDevice = unsafe extern "C" fn(c_int) -> c_int;
    type MemGetInfo = unsafe extern "C" fn(*mut usize, *mut usize) -> c_int;
    const SUCCESS: c_int = 0;
    let process = Library::this();
    let (mut before, mut free, mut total) = (0, 0, 0);
    // SAFETY: the functions have these signatures in every version of CUDA's runtime; they write
    // to the places given and nowhere else. The thread's current device is put back.
    unsafe {
        let get_device = process.get::<Device>(b"cudaGetDevice\0").ok()?;
        let set_device = process.get::<SetDevice>(b"cudaSetDevice\0").ok()?;
        let mem_get_info = process.get::<MemGetInfo>(b"cudaMemGetInfo\0").ok()?;
        if get_device(&mut before) != SUCCESS || set_device(device as c_int) != SUCCESS {
            return None;
        }
        let asked = mem_get_info(&mut free, &mut total);
        (set_device(before) == SUCCESS && asked == SUCCESS).then_some((free, total))
    }
}

//! CUDA at run time: one binary for machines with and without a GPU.
//!
//! A binary built against libtorch needs only `libtorch_cpu` and `libc10`; the linker drops
//! the unused `libtorch_cuda`. [`load`] opens it, before the first tensor is made, and from
//! then on libtorch sees the GPU. Where the driver or CUDA's own libraries are missing, it says
//! so and the program goes on with the CPU.
//!
//! What tch lacks on a CPU is linked in: [weights in few bits](ops::Quantised), and [GGUF's blocks](blocks).
//!
//! With it comes what tch lacks on a GPU: [graphs](Graph), [fused operations](ops), TF32,
//! libtorch's own counts of memory, and a profile of what ran; and, with or without a GPU,
//! [several processes](World) that compute one thing. The crate knows tensors and nothing of what is
//! trained with them.

pub mod blocks;
mod carried;
mod graph;
mod host;
pub mod machine;
mod memory;
pub mod ops;
mod random;
mod raw;
mod shim;
mod wake;
mod world;

pub use graph::{is_recording, Graph, Pool};
pub use memory::{count_host_memory, host_memory, memory, reset_peak, Memory};
pub use memory::{memory_free, memory_in_use, release_unused};
pub use random::has_drawn;
pub use wake::{awake, wake};
pub use world::{Gathering, Lost, Place, World, WorldError};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use std::ffi::{c_char, c_int, CStr, CString};
use std::path::Path;
use std::sync::OnceLock;

/// The snippet of the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Why there is no CUDA, or less of it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The machine has no NVIDIA driver.
    #[error("no NVIDIA driver on this machine ({0})")]
    Driver(String),
    /// The driver is there and gives no GPU.
    #[error("the NVIDIA driver gives no GPU ({0})")]
    Gpu(String),
    /// libtorch's CUDA part, or a library that it needs, is missing.
    #[error("libtorch's CUDA part cannot be loaded ({0}); a libtorch that is made for CUDA has it, and `aflora doctor` says how to get one")]
    Libtorch(String),
    /// Graphs and fused operations are not to be had, or failed.
    #[error("{0}")]
    Shim(String),
    /// What was to be recorded cannot be.
    #[error("the work cannot be recorded as a graph: {0}")]
    Capture(String),
}

/// Makes libtorch's CUDA kernels available to this process; later calls give the first result.
///
/// Must run before the process makes its first tensor. From then on [fused operations](ops) take
/// tensors on a GPU.
///
/// # Errors
/// There is no driver, or the CUDA part of libtorch cannot be loaded.
pub fn load() -> Result<(), Error> {
    static LOADED: OnceLock<Result<(), Error>> = OnceLock::new();
    LOADED
        .get_or_init(|| {
            open("libcuda.so.1").map_err(Error::Driver)?;
            open("libtorch_cuda.so").map_err(Error::Libtorch)?;
            let _ = SHIM.set(shim::open());
            Ok(())
        })
        .clone()
}

static SHIM: OnceLock<Result<shim::Shim, Error>> = OnceLock::new();

/// The shim, once CUDA is loaded.
fn shim() -> Result<&'static shim::Shim, Error> {
    match SHIM.get() {
        Some(Ok(shim)) => Ok(shim),
        Some(Err(error)) => Err(error.clone()),
        None => Err(Error::Shim("CUDA is not loaded".into())),
    }
}

/// Whether graphs and fused operations are to be had.
///
/// # Errors
/// They are not, and why.
pub fn available() -> Result<(), Error> {
    shim().map(|_| ())
}

/// Makes a GPU the one that this thread's streams and graphs belong to.
///
/// # Errors
/// There is no CUDA here, or no such GPU.
pub fn set_device(device: usize) -> Result<(), Error> {
    let shim = shim()?;
    // SAFETY: sets a number of this thread.
    shim.check(unsafe { (shim.set_device)(c_int::try_from(device).unwrap_or(-1)) })
}

/// Lets fp32 matrix products run in TF32 on the tensor cores: 10 bits of mantissa, several times
/// as fast. Off at first.
pub fn allow_tf32(on: bool) {
    if let Ok(shim) = shim() {
        // SAFETY: sets a flag.
        unsafe { (shim.allow_tf32)(c_int::from(on)) }
    }
}

/// Records every kernel that `work` runs, and writes them to `path` as a Chrome trace (for
/// chrome://tracing, Perfetto, or a script).
///
/// # Errors
/// There is no CUDA here, or the profiler fails.
pub fn profile<T>(path: &Path, work: impl FnOnce() -> T) -> Result<T, Error> {
    let shim = shim()?;
    let path = path.to_string_lossy().into_owned();
    let path = CString::new(path).map_err(|e| Error::Shim(e.to_string()))?;
    // SAFETY: begun once, ended once; the path is a string.
    shim.check(unsafe { (shim.profile_begin)() })?;
    let made = work();
    // SAFETY: the path is a C string, which the shim reads while it is called.
    shim.check(unsafe { (shim.profile_end)(path.as_ptr()) })?;
    Ok(made)
}

/// A GPU's name, such as `NVIDIA H100 80GB HBM3`; `None` before [`load`].
pub fn device_name(device: usize) -> Option<String> {
    type DeviceGet = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
    type DeviceGetName = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
    const SUCCESS: c_int = 0;
    const ROOM: usize = 256;
    let process = Library::this();
    let mut handle = 0;
    let mut name = [0u8; ROOM];
    // SAFETY: the driver's functions have these signatures in every version; the name is written
    // with its end into the room that is given, and nothing else is.
    let said = unsafe {
        let device_get = process.get::<DeviceGet>(b"cuDeviceGet\0").ok()?;
        let get_name = process.get::<DeviceGetName>(b"cuDeviceGetName\0").ok()?;
        device_get(&mut handle, c_int::try_from(device).ok()?) == SUCCESS
            && get_name(name.as_mut_ptr().cast(), ROOM as c_int, handle) == SUCCESS
    };
    let name = CStr::from_bytes_until_nul(&name).ok().filter(|_| said)?;
    Some(name.to_string_lossy().into_owned())
}

/// Opens a library for the rest of the process, its symbols visible to all.
fn open(name: &str) -> Result<(), String> {
    // SAFETY: opening runs the library's initialisers. Those of the driver and of libtorch are
    // made for that, and nothing of libtorch has run in this process before.
    let library = unsafe { Library::open(Some(name), RTLD_NOW | RTLD_GLOBAL) };
    // Never closed: libtorch keeps pointers into it.
    library.map(std::mem::forget).map_err(|e| e.to_string())
}

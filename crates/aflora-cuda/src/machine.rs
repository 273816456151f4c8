//! What a machine has for libtorch to compute with, found without making a tensor.

use crate::{open, Error};
use libloading::os::unix::Library;
use std::ffi::{c_char, c_int, c_uint, CStr};
use std::path::PathBuf;

/// NVIDIA's driver, and the GPUs that it gives this process.
#[derive(Debug, Clone)]
pub struct Driver {
    /// The version of CUDA that it serves: major, minor.
    pub cuda: (u32, u32),
    /// The GPUs, in the order of their numbers.
    pub gpus: Vec<Gpu>,
}

/// A GPU, as the driver describes it.
#[derive(Debug, Clone)]
pub struct Gpu {
    /// Such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Bytes in all.
    pub memory: u64,
    /// The compute capability: major, minor.
    pub capability: (u32, u32),
}

impl Gpu {
    /// Whether its tensor cores multiply bf16: those of compute capability 8.0 and later do.
    pub fn multiplies_bf16(&self) -> bool {
        self.capability.0 >= 8
    }
}

/// Asks the driver; libtorch's CUDA part need not be there.
///
/// # Errors
/// There is no driver, or it gives no GPU.
pub fn driver() -> Result<Driver, Error> {
    type Init = unsafe extern "C" fn(c_uint) -> c_int;
    type Number = unsafe extern "C" fn(*mut c_int) -> c_int;
    type Memory = unsafe extern "C" fn(*mut usize, c_int) -> c_int;
    type Attribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;
    const MAJOR: c_int = 75;
    const MINOR: c_int = 76;
    open("libcuda.so.1").map_err(Error::Driver)?;
    let process = Library::this();
    let lacks = |e: libloading::Error| Error::Gpu(e.to_string());
    let number = |n: c_int| u32::try_from(n).unwrap_or(0);
    // SAFETY: the driver's functions have these signatures in every version since CUDA 4; each writes
    // to the place that it is given and nowhere else, and a GPU's handle is its number.
    unsafe {
        let init = process.get::<Init>(b"cuInit\0").map_err(lacks)?;
        let version = process.get::<Number>(b"cuDriverGetVersion\0").map_err(lacks)?;
        let count = process.get::<Number>(b"cuDeviceGetCount\0").map_err(lacks)?;
        let device = process
            .get::<unsafe extern "C" fn(*mut c_int, c_int) -> c_int>(b"cuDeviceGet\0")
            .map_err(lacks)?;
        let memory = process.get::<Memory>(b"cuDeviceTotalMem_v2\0").map_err(lacks)?;
        let attribute = process.get::<Attribute>(b"cuDeviceGetAttribute\0").map_err(lacks)?;
        let (mut cuda, mut gpus) = (0, 0);
        check(&process, init(0))?;
        check(&process, version(&mut cuda))?;
        check(&process, count(&mut gpus))?;
        let describe = |index: c_int| {
            let (mut handle, mut bytes, mut major, mut minor) = (0, 0, 0, 0);
            check(&process, device(&mut handle, index))?;
            check(&process, memory(&mut bytes, handle))?;
            check(&process, attribute(&mut major, MAJOR, handle))?;
            check(&process, attribute(&mut minor, MINOR, handle))?;
            let name = crate::device_name(index as usize).unwrap_or_else(|| "a GPU".into());
            let capability = (number(major), number(minor));
            Ok(Gpu { name, memory: bytes as u64, capability })
        };
        let cuda = (number(cuda) / 1000, number(cuda) % 1000 / 10);
        Ok(Driver { cuda, gpus: (0..gpus).map(describe).collect::<Result<_, Error>>()? })
    }
}

/// What a function of the driver returned, as a result.
fn check(process: &Library, returned: c_int) -> Result<(), Error> {
    type Words = unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int;
    if returned == 0 {
        return Ok(());
    }
    let mut words = std::ptr::null();
    // SAFETY: the pointer is set to a string that lives as long as the driver, or to none.
    let said = unsafe {
        if let Ok(error_string) = process.get::<Words>(b"cuGetErrorString\0") {
            error_string(returned, &mut words);
        }
        (!words.is_null()).then(|| CStr::from_ptr(words).to_string_lossy().into_owned())
    };
    Err(Error::Gpu(said.unwrap_or_else(|| format!("CUDA's error {returned}"))))
}

/// The version of the libtorch that this process runs with, such as `2.11.0`; `None` where it is too
/// old to say.
pub fn libtorch_version() -> Option<String> {
    // SAFETY: a function of libtorch's stable C interface, without arguments.
    let packed = unsafe {
        let process = Library::this();
        let version =
            process.get::<unsafe extern "C" fn() -> u64>(b"aoti_torch_abi_version\0").ok()?;
        version()
    };
    let [major, minor, patch, ..] = packed.to_be_bytes();
    Some(format!("{major}.{minor}.{patch}"))
}

/// The version of the libtorch that this crate was built with, by its headers.
pub fn libtorch_built_with() -> Option<&'static str> {
    option_env!("AFLORA_LIBTORCH")
}

/// The folder that the running libtorch was loaded from.
pub fn libtorch_folder() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with("/libtorch_cpu.so"))?;
    PathBuf::from(&line[line.find('/')?..]).parent().map(Into::into)
}

/// Whether NCCL is there, by which GPUs speak to one another. Call [`load`](crate::load) before: its
/// library may lie where only libtorch's CUDA part looks.
///
/// # Errors
/// It is not, and why.
pub fn nccl() -> Result<(), Error> {
    open("libnccl.so.2").map_err(Error::Shim)
}

/// Whether Gloo is there, by which processes speak to one another on the CPU.
///
/// # Errors
/// It is not, and why.
pub fn gloo() -> Result<(), Error> {
    crate::world::gloo_available().map_err(Error::Shim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libtorch_that_runs_is_the_one_that_was_built_with() {
        // Refers to libtorch, so that the linker keeps it.
        assert!(tch::get_num_threads() > 0);
        assert_eq!(libtorch_version().as_deref(), libtorch_built_with());
        assert!(libtorch_folder().unwrap().join("libtorch_cpu.so").is_file());
    }

    #[test]
    fn tensor_cores_multiply_bf16_from_ampere_on() {
        let gpu = |capability| Gpu { name: String::new(), memory: 0, capability };
        for (capability, bf16) in [((7, 5), false), ((8, 0), true), ((9, 0), true), ((12, 0), true)]
        {
            assert_eq!(gpu(capability).multiplies_bf16(), bf16, "{capability:?}");
        }
    }
}

//! The C++ shim (shim/shim.cpp): a shared library that this crate carries as bytes.
//!
//! It is opened after libtorch_cuda, which holds the symbols that it needs, from a file in
//! memory: nothing is installed, and one binary serves machines with and without a GPU.

use crate::raw::{Out, Raw, RawQuantised};
use crate::Error;
use std::ffi::{c_char, c_int, c_void, CStr};

macro_rules! functions {
    ($($field:ident = $symbol:literal: $signature:ty,)*) => {
        /// The shim's functions.
        pub(crate) struct Shim {
            $(pub $field: $signature,)*
        }

        #[cfg(shim)]
        impl Shim {
            fn find(library: &libloading::os::unix::Library) -> Result<Self, Error> {
                Ok(Shim {
                    // SAFETY: the signatures are those of shim.cpp, which is compiled with this
                    // crate. The library is never closed.
                    $($field: unsafe {
                        *library.get::<$signature>(concat!($symbol, "\0").as_bytes())
                            .map_err(|e| Error::Shim(e.to_string()))?
                    },)*
                })
            }
        }
    };
}

functions! {
    error = "aflora_error": unsafe extern "C" fn() -> *const c_char,
    graph_pool = "aflora_graph_pool": unsafe extern "C" fn(*mut u64) -> c_int,
    graph_begin = "aflora_graph_begin": unsafe extern "C" fn(*mut *mut c_void, *const u64) -> c_int,
    graph_end = "aflora_graph_end": unsafe extern "C" fn(*mut c_void) -> c_int,
    graph_replay = "aflora_graph_replay": unsafe extern "C" fn(*mut c_void) -> c_int,
    graph_free = "aflora_graph_free": unsafe extern "C" fn(*mut c_void),
    to_gpu = "aflora_to_gpu": unsafe extern "C" fn(Out, Raw, c_int) -> c_int,
    expandable_memory = "aflora_expandable_memory": unsafe extern "C" fn(),
    release_cache = "aflora_release_cache": unsafe extern "C" fn(),
    allow_tf32 = "aflora_allow_tf32": unsafe extern "C" fn(c_int),
    memory = "aflora_memory": unsafe extern "C" fn(c_int, *mut u64) -> c_int,
    profile_begin = "aflora_profile_begin": unsafe extern "C" fn() -> c_int,
    profile_end = "aflora_profile_end": unsafe extern "C" fn(*const c_char) -> c_int,
    low_rank = "aflora_low_rank":
        unsafe extern "C" fn(Out, Raw, Raw, *const RawQuantised, Raw, Raw, Raw, Raw, Raw, f64) -> c_int,
    restore = "aflora_restore": unsafe extern "C" fn(Out, *const RawQuantised, c_int) -> c_int,
    quantised_linear = "aflora_quantised_linear":
        unsafe extern "C" fn(Out, Raw, *const RawQuantised, Raw) -> c_int,
    add_layer_norm = "aflora_add_layer_norm":
        unsafe extern "C" fn(Out, Raw, Raw, Raw, Raw, f64, f64) -> c_int,
    disentangled = "aflora_disentangled":
        unsafe extern "C" fn(Out, Raw, Raw, Raw, Raw, Raw, Raw, i64, f64, f64) -> c_int,
}

impl Shim {
    /// Gives back to the driver what libtorch's allocator holds and nothing uses.
    pub fn empty_cache(&self) {
        // SAFETY: takes locks of its own.
        unsafe { (self.release_cache)() }
    }

    /// What a function returned, as a result.
    ///
    /// # Errors
    /// It failed; the error has its words.
    pub fn check(&self, returned: c_int) -> Result<(), Error> {
        if returned == 0 {
            return Ok(());
        }
        // SAFETY: a string that lives until the thread's next failure.
        let words = unsafe { CStr::from_ptr((self.error)()) };
        Err(Error::Shim(words.to_string_lossy().trim().to_string()))
    }
}

/// Opens the shim. libtorch_cuda must be there.
#[cfg(shim)]
pub(crate) fn open() -> Result<Shim, Error> {
    use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
    use std::io::Write;
    use std::os::fd::{AsRawFd, FromRawFd};

    static BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/shim.so"));
    let io = |e: std::io::Error| Error::Shim(format!("a file in memory: {e}"));
    // SAFETY: a plain system call; the descriptor it gives is ours.
    let mut file = unsafe {
        let descriptor = libc::memfd_create(c"aflora-shim".as_ptr(), libc::MFD_CLOEXEC);
        if descriptor < 0 {
            return Err(io(std::io::Error::last_os_error()));
        }
        std::fs::File::from_raw_fd(descriptor)
    };
    file.write_all(BYTES).map_err(io)?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: it has no initialisers of its own beyond C++'s.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
    let library = library.map_err(|e| Error::Shim(e.to_string()))?;
    let shim = Shim::find(&library)?;
    // SAFETY: sets an option, before the first tensor is made.
    unsafe { (shim.expandable_memory)() };
    std::mem::forget(library);
    Ok(shim)
}

/// There is no shim in this build.
#[cfg(not(shim))]
pub(crate) fn open() -> Result<Shim, Error> {
    Err(Error::Shim(format!("this build has none: {}", env!("AFLORA_NO_SHIM"))))
}

//! libtorch's c10d on the CPU: a store by which ranks find each other, and Gloo.

use crate::carried::functions;
use std::ffi::{c_char, c_int, c_long, c_uchar, c_void, CStr, CString};
use std::time::Duration;
use tch::Tensor;
use torch_sys::C_tensor;

type Raw = *const C_tensor;

functions! {
    /// The collective shim's functions.
    Collective {
        error = "aflora_collective_error": unsafe extern "C" fn() -> *const c_char,
        store_open = "aflora_store_open": unsafe extern "C" fn(
            *mut *mut c_void, *const c_char, c_int, c_int, *const c_char, c_long,
        ) -> c_int,
        store_set = "aflora_store_set":
            unsafe extern "C" fn(*mut c_void, *const c_char, *const c_uchar, usize) -> c_int,
        store_get = "aflora_store_get": unsafe extern "C" fn(
            *mut c_void, *const c_char, c_long, *mut *const c_uchar, *mut usize,
        ) -> c_int,
        store_free = "aflora_store_free": unsafe extern "C" fn(*mut c_void),
        gloo_open = "aflora_gloo_open":
            unsafe extern "C" fn(*mut *mut c_void, *mut c_void, c_int, c_int, c_long) -> c_int,
        all_reduce = "aflora_gloo_all_reduce": unsafe extern "C" fn(*mut c_void, Raw) -> c_int,
        broadcast = "aflora_gloo_broadcast":
            unsafe extern "C" fn(*mut c_void, Raw, c_int) -> c_int,
        all_gather = "aflora_gloo_all_gather":
            unsafe extern "C" fn(*mut c_void, Raw, Raw) -> c_int,
        gloo_free = "aflora_gloo_free": unsafe extern "C" fn(*mut c_void),
    }
}

/// What failed, in libtorch's words.
pub(super) type Result<T> = std::result::Result<T, String>;

#[cfg(collective)]
fn collective() -> Result<&'static Collective> {
    use std::sync::OnceLock;
    static BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/collective.so"));
    static OPENED: OnceLock<Result<Collective>> = OnceLock::new();
    let open = || crate::carried::open(c"aflora-collective", BYTES, Collective::find);
    OPENED.get_or_init(open).as_ref().map_err(Clone::clone)
}

#[cfg(not(collective))]
fn collective() -> Result<&'static Collective> {
    Err(format!("this build has no collectives: {}", env!("AFLORA_NO_COLLECTIVE")))
}

/// Whether this build has Gloo and the store, and they open.
pub fn available() -> Result<()> {
    collective().map(drop)
}

impl Collective {
    fn check(&self, returned: c_int) -> Result<()> {
        if returned == 0 {
            return Ok(());
        }
        // SAFETY: a string that lives until the thread's next failure.
        let words = unsafe { CStr::from_ptr((self.error)()) };
        Err(words.to_string_lossy().trim().to_string())
    }
}

fn milliseconds(time: Duration) -> c_long {
    c_long::try_from(time.as_millis()).unwrap_or(c_long::MAX).max(1)
}

fn text(of: &str) -> Result<CString> {
    CString::new(of).map_err(|e| e.to_string())
}

/// Keys and values that all ranks see.
#[derive(Debug)]
pub(super) struct Store(*mut c_void);

impl Store {
    /// The store at `host`, which this process serves or another does; keys are those of `name`
    /// alone.
    ///
    /// # Errors
    /// Nobody serves one there within the time, or the port is taken.
    pub fn open(
        (host, port): (&str, u16),
        serves: bool,
        name: &str,
        timeout: Duration,
    ) -> Result<Store> {
        let shim = collective()?;
        let (host, name) = (text(host)?, text(name)?);
        let (port, serves) = (c_int::from(port), c_int::from(serves));
        let mut made = std::ptr::null_mut();
        // SAFETY: C strings, read while it is called; the handle is written on success.
        shim.check(unsafe {
            let (host, name) = (host.as_ptr(), name.as_ptr());
            (shim.store_open)(&mut made, host, port, serves, name, milliseconds(timeout))
        })?;
        Ok(Store(made))
    }

    /// Sets a key.
    ///
    /// # Errors
    /// The store is gone.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let shim = collective()?;
        let key = text(key)?;
        // SAFETY: `open` made the handle; the bytes are read while it is called.
        shim.check(unsafe { (shim.store_set)(self.0, key.as_ptr(), value.as_ptr(), value.len()) })
    }

    /// Waits for a key.
    ///
    /// # Errors
    /// Nobody sets it within the time, or the store is gone.
    pub fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>> {
        let shim = collective()?;
        let key = text(key)?;
        let (mut value, mut length) = (std::ptr::null(), 0);
        // SAFETY: `open` made the handle; place and length are written on success.
        shim.check(unsafe {
            let time = milliseconds(timeout);
            (shim.store_get)(self.0, key.as_ptr(), time, &mut value, &mut length)
        })?;
        if length == 0 {
            return Ok(Vec::new());
        }
        // SAFETY: so many bytes, which live until this thread's next call.
        Ok(unsafe { std::slice::from_raw_parts(value, length) }.to_vec())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Ok(shim) = collective() {
            // SAFETY: made by `open`, freed once.
            unsafe { (shim.store_free)(self.0) }
        }
    }
}

/// Gloo's collectives on the CPU; tensors must be whole.
#[derive(Debug)]
pub(super) struct Gloo(*mut c_void);

// libtorch's stores and groups take locks of their own.
// SAFETY: see above.
unsafe impl Send for Gloo {}
// SAFETY: see above.
unsafe impl Sync for Gloo {}
// SAFETY: see above.
unsafe impl Send for Store {}
// SAFETY: see above.
unsafe impl Sync for Store {}

impl Gloo {
    /// Joins the group of `size` ranks that meet in `store`.
    ///
    /// # Errors
    /// They do not meet within the time.
    pub fn open(store: &Store, rank: usize, size: usize, timeout: Duration) -> Result<Gloo> {
        let shim = collective()?;
        let number = |n: usize| c_int::try_from(n).map_err(|e| e.to_string());
        let (rank, size) = (number(rank)?, number(size)?);
        let mut made = std::ptr::null_mut();
        // SAFETY: the store is one; the handle is written on success.
        shim.check(unsafe {
            (shim.gloo_open)(&mut made, store.0, rank, size, milliseconds(timeout))
        })?;
        Ok(Gloo(made))
    }

    /// The sum over all ranks, in place.
    pub fn all_reduce(&self, t: &Tensor) -> Result<()> {
        let shim = collective()?;
        // SAFETY: `open` made the handle; a tensor.
        shim.check(unsafe { (shim.all_reduce)(self.0, t.as_ptr()) })
    }

    /// What `root` has, in place.
    pub fn broadcast(&self, t: &Tensor, root: usize) -> Result<()> {
        let shim = collective()?;
        // SAFETY: as above.
        shim.check(unsafe { (shim.broadcast)(self.0, t.as_ptr(), root as c_int) })
    }

    /// What each rank has, in its row of `all`, `[ranks, …]`.
    pub fn all_gather(&self, t: &Tensor, all: &Tensor) -> Result<()> {
        let shim = collective()?;
        // SAFETY: as above.
        shim.check(unsafe { (shim.all_gather)(self.0, t.as_ptr(), all.as_ptr()) })
    }
}

impl Drop for Gloo {
    fn drop(&mut self) {
        if let Ok(shim) = collective() {
            // SAFETY: made by `open`, freed once.
            unsafe { (shim.gloo_free)(self.0) }
        }
    }
}

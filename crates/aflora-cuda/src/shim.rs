//! The C++ shim for a GPU (shim/shim.cpp). It is opened after libtorch_cuda, which holds the symbols
//! that it needs.

use crate::carried::functions;
use crate::raw::{Out, Raw, RawAdamWStep, RawAdamWUpdate, RawLayer, RawQuantised};
use crate::Error;
use std::ffi::{c_char, c_int, c_void, CStr};

functions! {
    /// The shim's functions.
    Shim {
        error = "aflora_error": unsafe extern "C" fn() -> *const c_char,
        graph_pool = "aflora_graph_pool": unsafe extern "C" fn(*mut u64) -> c_int,
        graph_pool_free = "aflora_graph_pool_free": unsafe extern "C" fn(*const u64),
        graph_begin = "aflora_graph_begin": unsafe extern "C" fn(*mut *mut c_void, *const u64) -> c_int,
        graph_end = "aflora_graph_end": unsafe extern "C" fn(*mut c_void) -> c_int,
        graph_replay = "aflora_graph_replay": unsafe extern "C" fn(*mut c_void) -> c_int,
        graph_free = "aflora_graph_free": unsafe extern "C" fn(*mut c_void),
        to_gpu = "aflora_to_gpu": unsafe extern "C" fn(Out, Raw, c_int) -> c_int,
        fetch = "aflora_fetch": unsafe extern "C" fn(*mut *mut c_void, Raw) -> c_int,
        fetch_wait = "aflora_fetch_wait": unsafe extern "C" fn(Out, *mut c_void) -> c_int,
        fetch_free = "aflora_fetch_free": unsafe extern "C" fn(*mut c_void),
        expandable_memory = "aflora_expandable_memory": unsafe extern "C" fn(),
        release_cache = "aflora_release_cache": unsafe extern "C" fn(),
        allow_tf32 = "aflora_allow_tf32": unsafe extern "C" fn(c_int),
        drawn = "aflora_drawn": unsafe extern "C" fn(c_int, *mut u64) -> c_int,
        memory = "aflora_memory": unsafe extern "C" fn(c_int, *mut u64) -> c_int,
        reset_peak = "aflora_reset_peak": unsafe extern "C" fn(c_int) -> c_int,
        profile_begin = "aflora_profile_begin": unsafe extern "C" fn() -> c_int,
        profile_end = "aflora_profile_end": unsafe extern "C" fn(*const c_char) -> c_int,
        adamw = "aflora_adamw":
            unsafe extern "C" fn(*const RawAdamWUpdate, c_int, *const RawAdamWStep) -> c_int,
        judge = "aflora_judge": unsafe extern "C" fn(Out, Raw, Raw, Raw, Raw) -> c_int,
        clip = "aflora_clip": unsafe extern "C" fn(*mut c_int, Raw, Raw, f64) -> c_int,
        collect = "aflora_collect":
            unsafe extern "C" fn(*mut c_int, *const Raw, *const Raw, c_int, c_int) -> c_int,
        sensitivity = "aflora_sensitivity": unsafe extern "C" fn(Out, Raw, Raw, c_int) -> c_int,
        smooth = "aflora_smooth":
            unsafe extern "C" fn(*mut c_int, Raw, Raw, Raw, Raw, f64, f64, c_int) -> c_int,
        clear = "aflora_clear": unsafe extern "C" fn(*mut c_int, Raw, Raw) -> c_int,
        means = "aflora_means": unsafe extern "C" fn(Out, Raw, Raw) -> c_int,
        kth_smallest = "aflora_kth_smallest": unsafe extern "C" fn(Out, Raw, Raw, i64) -> c_int,
        low_rank = "aflora_low_rank":
            unsafe extern "C" fn(Out, Raw, *const RawLayer, f64) -> c_int,
        low_rank_together = "aflora_low_rank_together":
            unsafe extern "C" fn(Out, Raw, *const RawLayer, c_int) -> c_int,
        feed_forward = "aflora_feed_forward":
            unsafe extern "C" fn(Out, Raw, *const RawLayer, c_int) -> c_int,
        restore = "aflora_restore": unsafe extern "C" fn(Out, *const RawQuantised, c_int) -> c_int,
        quantised_linear = "aflora_quantised_linear":
            unsafe extern "C" fn(Out, Raw, *const RawQuantised, Raw) -> c_int,
        add_layer_norm = "aflora_add_layer_norm":
            unsafe extern "C" fn(Out, Raw, Raw, Raw, Raw, f64, f64) -> c_int,
        add_rms_norm = "aflora_add_rms_norm":
            unsafe extern "C" fn(Out, Raw, Raw, Raw, f64, f64) -> c_int,
        rotary = "aflora_rotary": unsafe extern "C" fn(Out, Raw, Raw, Raw, Raw, c_int) -> c_int,
        gated = "aflora_gated": unsafe extern "C" fn(Out, Raw, Raw, c_int) -> c_int,
        cross_entropy = "aflora_cross_entropy":
            unsafe extern "C" fn(Out, Raw, Raw, Raw, Raw, f64) -> c_int,
        disentangled = "aflora_disentangled":
            unsafe extern "C" fn(Out, Raw, Raw, Raw, Raw, Raw, Raw, i64, f64, f64) -> c_int,
        tiles = "aflora_tiles": unsafe extern "C" fn(*mut c_int, Raw, i64, i64) -> c_int,
        disentangled_tiled = "aflora_disentangled_tiled":
            unsafe extern "C" fn(Out, Raw, Raw, Raw, Raw, Raw, Raw, Raw, Raw, i64, f64, f64) -> c_int,
        document_attention = "aflora_document_attention":
            unsafe extern "C" fn(Out, Raw, Raw, Raw, Raw, f64, f64, i64) -> c_int,
        set_device = "aflora_set_device": unsafe extern "C" fn(c_int) -> c_int,
        nccl_id = "aflora_nccl_id": unsafe extern "C" fn(*mut c_char) -> c_int,
        nccl_open = "aflora_nccl_open":
            unsafe extern "C" fn(*mut *mut c_void, *const c_char, c_int, c_int, c_int) -> c_int,
        nccl_all_reduce = "aflora_nccl_all_reduce": unsafe extern "C" fn(*mut c_void, Raw) -> c_int,
        nccl_broadcast = "aflora_nccl_broadcast":
            unsafe extern "C" fn(*mut c_void, Raw, c_int) -> c_int,
        nccl_gather_begin = "aflora_nccl_gather_begin":
            unsafe extern "C" fn(*mut *mut c_void, *mut c_void, Raw, Raw) -> c_int,
        nccl_gather_wait = "aflora_nccl_gather_wait":
            unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int,
        nccl_gather_free = "aflora_nccl_gather_free": unsafe extern "C" fn(*mut c_void),
        nccl_abort = "aflora_nccl_abort": unsafe extern "C" fn(*mut c_void),
    }
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
    static BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/shim.so"));
    let shim = crate::carried::open(c"aflora-shim", BYTES, Shim::find).map_err(Error::Shim)?;
    // SAFETY: sets an option, before the first tensor is made.
    unsafe { (shim.expandable_memory)() };
    Ok(shim)
}

/// There is no shim in this build.
#[cfg(not(shim))]
pub(crate) fn open() -> Result<Shim, Error> {
    Err(Error::Shim(format!("this build has none: {}", env!("AFLORA_NO_SHIM"))))
}

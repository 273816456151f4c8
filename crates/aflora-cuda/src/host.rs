//! What is compiled for the CPU (shim/host.cpp) and linked with the crate.

use crate::raw::{Out, Raw, RawQuantised};
use crate::Error;
use std::ffi::{c_char, c_void};

/// Something that is called, and the one that frees what it is called with.
pub(crate) type Calls =
    (unsafe extern "C" fn(*mut c_void) -> *const c_char, unsafe extern "C" fn(*mut c_void));

#[cfg(host)]
mod linked {
    use super::*;
    use std::ffi::{c_int, CStr};

    extern "C" {
        fn aflora_host_error() -> *const c_char;
        fn aflora_host_restore(out: Out, weight: *const RawQuantised, bf16: c_int) -> c_int;
        fn aflora_host_quantised_linear(
            out: Out,
            x: Raw,
            weight: *const RawQuantised,
            bias: Raw,
        ) -> c_int;
        fn aflora_host_before_backward(
            out: Out,
            x: Raw,
            call: unsafe extern "C" fn(*mut c_void) -> *const c_char,
            free: unsafe extern "C" fn(*mut c_void),
            data: *mut c_void,
        ) -> c_int;
        fn aflora_host_count() -> c_int;
        fn aflora_host_memory(bytes: *mut u64);
        fn aflora_host_reset_peak();
    }

    /// Counts what tensors take.
    pub(crate) fn count() -> Result<(), Error> {
        // SAFETY: only replaces libtorch's allocator.
        check(unsafe { aflora_host_count() })
    }

    /// What they take now, and took at the most.
    pub(crate) fn memory() -> [u64; 2] {
        let mut bytes = [0; 2];
        // SAFETY: two words are written.
        unsafe { aflora_host_memory(bytes.as_mut_ptr()) };
        bytes
    }

    /// Begins the most anew.
    pub(crate) fn reset_peak() {
        // SAFETY: sets a number.
        unsafe { aflora_host_reset_peak() }
    }

    fn check(returned: c_int) -> Result<(), Error> {
        if returned == 0 {
            return Ok(());
        }
        // SAFETY: a string that lives until the thread's next failure.
        let words = unsafe { CStr::from_ptr(aflora_host_error()) };
        Err(Error::Shim(words.to_string_lossy().trim().to_string()))
    }

    /// Writes the restored weight to `out`.
    pub(crate) fn restore(out: Out, weight: &RawQuantised, bf16: bool) -> Result<(), Error> {
        // SAFETY: tensors that live through the call.
        check(unsafe { aflora_host_restore(out, weight, c_int::from(bf16)) })
    }

    /// Writes the product to `out`.
    pub(crate) fn quantised_linear(
        out: Out,
        x: Raw,
        weight: &RawQuantised,
        bias: Raw,
    ) -> Result<(), Error> {
        // SAFETY: tensors that live through the call.
        check(unsafe { aflora_host_quantised_linear(out, x, weight, bias) })
    }

    /// Writes `x` with a node behind it that calls with `data`, which it owns from now on.
    pub(crate) fn before_backward(
        out: Out,
        x: Raw,
        (call, free): Calls,
        data: *mut c_void,
    ) -> Result<(), Error> {
        // SAFETY: a tensor that lives through the call; `data` is given away.
        check(unsafe { aflora_host_before_backward(out, x, call, free, data) })
    }
}

#[cfg(not(host))]
mod linked {
    use super::*;

    /// Takes nothing: libtorch's headers were not there when the crate was built.
    pub(crate) fn restore(_: Out, _: &RawQuantised, _: bool) -> Result<(), Error> {
        Ok(())
    }

    pub(crate) fn count() -> Result<(), Error> {
        Err(Error::Shim("libtorch's headers were not there when the crate was built".into()))
    }

    pub(crate) fn memory() -> [u64; 2] {
        [0; 2]
    }

    pub(crate) fn reset_peak() {}

    /// As [`restore`].
    pub(crate) fn quantised_linear(_: Out, _: Raw, _: &RawQuantised, _: Raw) -> Result<(), Error> {
        Ok(())
    }

    /// Calls nothing.
    pub(crate) fn before_backward(
        _: Out,
        _: Raw,
        (_, free): Calls,
        data: *mut c_void,
    ) -> Result<(), Error> {
        // SAFETY: it was given away.
        unsafe { free(data) };
        Err(Error::Shim("this build has no nodes of its own in libtorch's graph".into()))
    }
}

pub(crate) use linked::{before_backward, count, memory, quantised_linear, reset_peak, restore};

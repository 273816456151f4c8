//! What is compiled for the CPU (shim/host.cpp) and linked with the crate.

use crate::raw::{Out, Raw, RawQuantised};
use crate::Error;

#[cfg(host)]
mod linked {
    use super::*;
    use std::ffi::{c_char, c_int, CStr};

    extern "C" {
        fn aflora_host_error() -> *const c_char;
        fn aflora_host_restore(out: Out, weight: *const RawQuantised, bf16: c_int) -> c_int;
        fn aflora_host_quantised_linear(
            out: Out,
            x: Raw,
            weight: *const RawQuantised,
            bias: Raw,
        ) -> c_int;
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
}

#[cfg(not(host))]
mod linked {
    use super::*;

    /// Takes nothing: libtorch's headers were not there when the crate was built.
    pub(crate) fn restore(_: Out, _: &RawQuantised, _: bool) -> Result<(), Error> {
        Ok(())
    }

    /// As [`restore`].
    pub(crate) fn quantised_linear(_: Out, _: Raw, _: &RawQuantised, _: Raw) -> Result<(), Error> {
        Ok(())
    }
}

pub(crate) use linked::{quantised_linear, restore};

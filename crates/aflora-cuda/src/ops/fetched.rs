//! Numbers on their way from a GPU to the host, which does other things meanwhile.

use crate::{shim, Error};
use std::ffi::c_void;
use tch::{Device, Tensor};

/// A copy in pinned memory of what a GPU made, or is still to make.
#[derive(Debug)]
#[must_use]
pub struct Fetched(*mut c_void);

// Memory of the host's and an event of CUDA's, for which any thread may wait.
// SAFETY: see above.
unsafe impl Send for Fetched {}

/// Has `t`, `[..]` of any kind, copied to the host once the current stream has made it; nobody waits. None where it
/// does not lie on a GPU.
pub fn fetch(t: &Tensor) -> Option<Fetched> {
    let (Device::Cuda(_), Ok(shim)) = (t.device(), shim()) else { return None };
    let mut out = std::ptr::null_mut();
    // SAFETY: a tensor that lives through the call; what it lies in lives until it was copied.
    shim.check(unsafe { (shim.fetch)(&mut out, t.as_ptr()) }).ok()?;
    Some(Fetched(out))
}

impl Fetched {
    /// The copy, once it is there.
    ///
    /// # Errors
    /// What was to be copied, or anything before it, failed on the GPU.
    pub fn wait(self) -> Result<Tensor, Error> {
        let (shim, mut out) = (shim()?, std::ptr::null_mut());
        // SAFETY: `fetch` made it.
        shim.check(unsafe { (shim.fetch_wait)(&mut out, self.0) })?;
        // SAFETY: a new tensor, ours alone.
        Ok(unsafe { Tensor::from_ptr(out) })
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        if let Ok(shim) = shim() {
            // SAFETY: made by `fetch`, freed once.
            unsafe { (shim.fetch_free)(self.0) }
        }
    }
}

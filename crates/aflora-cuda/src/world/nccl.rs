//! NCCL on this process's GPU.

use crate::shim;
use std::ffi::{c_int, c_void};
use tch::Tensor;

/// Bytes of what all ranks must know to open a group.
pub(super) const ID: usize = 128;

/// A group of GPUs. What is asked of it goes to the current stream, and can be recorded.
#[derive(Debug)]
pub(super) struct Nccl {
    group: *mut c_void,
    /// The GPU's number.
    pub device: usize,
}

// A handle without ties to a thread; NCCL has locks of its own.
// SAFETY: see above.
unsafe impl Send for Nccl {}
// SAFETY: see above.
unsafe impl Sync for Nccl {}

impl Nccl {
    /// An id for a new group.
    pub fn new_id() -> Result<[u8; ID], crate::Error> {
        let shim = shim()?;
        let mut id = [0u8; ID];
        // SAFETY: so many bytes are written.
        shim.check(unsafe { (shim.nccl_id)(id.as_mut_ptr().cast()) })?;
        Ok(id)
    }

    /// Joins the group of this id; all ranks must.
    pub fn open(
        id: &[u8; ID],
        (rank, size): (usize, usize),
        device: usize,
    ) -> Result<Nccl, crate::Error> {
        let shim = shim()?;
        let mut group = std::ptr::null_mut();
        let (rank, size, on) = (rank as c_int, size as c_int, device as c_int);
        // SAFETY: so many bytes are read; the handle is written on success.
        shim.check(unsafe { (shim.nccl_open)(&mut group, id.as_ptr().cast(), rank, size, on) })?;
        Ok(Nccl { group, device })
    }

    /// The sum over all ranks, in place.
    pub fn all_reduce(&self, t: &Tensor) -> Result<(), crate::Error> {
        let shim = shim()?;
        // SAFETY: `open` made the handle; a tensor.
        shim.check(unsafe { (shim.nccl_all_reduce)(self.group, t.as_ptr()) })
    }

    /// What `root` has, in place.
    pub fn broadcast(&self, t: &Tensor, root: usize) -> Result<(), crate::Error> {
        let shim = shim()?;
        // SAFETY: as above.
        shim.check(unsafe { (shim.nccl_broadcast)(self.group, t.as_ptr(), root as c_int) })
    }

    /// Begins to gather what each rank has, `t`, one behind the other in `all`: on a stream of its own,
    /// behind what the current one has been given.
    pub fn gather(&self, t: &Tensor, all: &Tensor) -> Result<Event, crate::Error> {
        let shim = shim()?;
        let mut done = std::ptr::null_mut();
        // SAFETY: as above; the handle is written on success.
        shim.check(unsafe {
            (shim.nccl_gather_begin)(&mut done, self.group, t.as_ptr(), all.as_ptr())
        })?;
        Ok(Event(done))
    }

    /// Lets the current stream wait for a gathering.
    pub fn wait(&self, done: &Event) -> Result<(), crate::Error> {
        let shim = shim()?;
        // SAFETY: `open` made the group, `gather` the event.
        shim.check(unsafe { (shim.nccl_gather_wait)(self.group, done.0) })
    }
}

/// Behind a gathering.
#[derive(Debug)]
pub(super) struct Event(*mut c_void);

// An event of CUDA's, which any thread may wait for.
// SAFETY: see above.
unsafe impl Send for Event {}

impl Drop for Event {
    fn drop(&mut self) {
        if let Ok(shim) = shim() {
            // SAFETY: made by `gather`, freed once.
            unsafe { (shim.nccl_gather_free)(self.0) }
        }
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        if let Ok(shim) = shim() {
            // SAFETY: made by `open`, freed once.
            unsafe { (shim.nccl_abort)(self.group) }
        }
    }
}

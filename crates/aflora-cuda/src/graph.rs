//! CUDA graphs: work recorded once and replayed in one launch.
//!
//! A training step of a BERT-sized model is some thousand kernels of a few microseconds; what
//! an eager step takes is the time to launch them. A replay launches them all at once.
//!
//! ```no_run
//! use aflora_cuda::{Graph, Pool};
//! use tch::{Device, Kind, Tensor};
//!
//! aflora_cuda::load()?;
//! let mut x = Tensor::zeros([8, 4], (Kind::Float, Device::Cuda(0)));
//! let warm = x.relu().sum(Kind::Float); // once by itself: libraries make their handles
//! let (graph, y) = Graph::capture(&Pool::new()?, || x.relu().sum(Kind::Float))?;
//! x.copy_(&Tensor::ones([8, 4], (Kind::Float, Device::Cuda(0))));
//! graph.replay()?;
//! assert_eq!(y.double_value(&[]), 32.0);
//! # Ok::<(), aflora_cuda::Error>(())
//! ```

use crate::{shim, Error};
use std::cell::Cell;
use std::ffi::c_void;

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside [`Graph::capture`].
pub fn is_recording() -> bool {
    RECORDING.get()
}

/// Memory that graphs share which never run at the same time.
///
/// What a graph computes lies in memory that the next graph of the pool may write over: read it
/// before another is replayed.
#[derive(Debug)]
pub struct Pool([u64; 3]);

impl Pool {
    /// A pool of its own.
    ///
    /// # Errors
    /// There is no CUDA here, or the shim is not in this build.
    pub fn new() -> Result<Self, Error> {
        let shim = shim()?;
        let mut pool = [0; 3];
        // SAFETY: three words are written.
        shim.check(unsafe { (shim.graph_pool)(pool.as_mut_ptr()) })?;
        Ok(Pool(pool))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Ok(shim) = shim() {
            // SAFETY: three words are read, of a pool that was made and is freed once; graphs and
            // tensors in it hold their memory themselves.
            unsafe { (shim.graph_pool_free)(self.0.as_ptr()) }
        }
    }
}

/// Recorded work on the current GPU.
#[derive(Debug)]
pub struct Graph(*mut c_void);

// A graph is a handle without ties to a thread; replays need `&self` and libtorch's own locks.
// SAFETY: see above.
unsafe impl Send for Graph {}

impl Graph {
    /// Records what `work` launches, without running it; gives what `work` made too, whose
    /// values are those of the latest replay.
    ///
    /// `work` must only launch: no value may travel to the host, and nothing may be seeded.
    /// Random numbers differ from replay to replay. Run it once before, so that libraries have
    /// made their handles.
    ///
    /// # Errors
    /// Something in `work` cannot be recorded. A panic in it counts as that: tch's operations
    /// panic when libtorch refuses.
    pub fn capture<T>(pool: &Pool, work: impl FnOnce() -> T) -> Result<(Graph, T), Error> {
        let shim = shim()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: two words are read; the handle is written on success.
        shim.check(unsafe { (shim.graph_begin)(&mut handle, pool.0.as_ptr()) })?;
        let graph = Graph(handle);
        RECORDING.set(true);
        let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        RECORDING.set(false);
        // SAFETY: the capture that `graph_begin` began.
        let ended = shim.check(unsafe { (shim.graph_end)(graph.0) });
        match made {
            Ok(made) => ended.map(|()| (graph, made)),
            Err(panic) => {
                let words = panic.downcast_ref::<String>().cloned();
                let words = words.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()));
                Err(Error::Capture(words.unwrap_or_else(|| "a panic".into())))
            }
        }
    }

    /// Runs the recorded work; returns as soon as it is launched.
    ///
    /// # Errors
    /// CUDA does not launch it.
    pub fn replay(&self) -> Result<(), Error> {
        let shim = shim()?;
        // SAFETY: a whole graph: `capture` gives no other.
        shim.check(unsafe { (shim.graph_replay)(self.0) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if let Ok(shim) = shim() {
            // SAFETY: made by `graph_begin`, freed once.
            unsafe { (shim.graph_free)(self.0) }
        }
    }
}

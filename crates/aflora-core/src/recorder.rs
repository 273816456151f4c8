//! Work on tensors in place that is recorded once for each of its shapes, and replayed from then on.
//!
//! [`StepGraphs`](crate::StepGraphs) does that for passes of training, whose batch is new each time; here
//! the work reads and writes tensors that stay where they are, as a step of decoding does.
//!
//! ```
//! use aflora_core::Recorder;
//! use tch::{Device, Kind, Tensor};
//!
//! let mut sum = Tensor::zeros([3], (Kind::Float, Device::Cpu));
//! let mut recorder = Recorder::new(Device::Cpu);
//! for _ in 0..4 {
//!     recorder.run(3, || {
//!         let _ = sum.g_add_scalar_(1.0);
//!         Ok::<(), aflora_core::Error>(())
//!     })?;
//! }
//! assert_eq!(sum.double_value(&[0]), 4.0);
//! # Ok::<(), aflora_core::Error>(())
//! ```

use aflora_cuda::{Error, Graph, Pool};
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use tch::Device;

/// Graphs to hold at most: each takes some megabytes of its own, besides the memory they share.
const MOST: usize = 64;

/// The recordings of one kind of work, by what tells its shapes apart.
#[derive(Debug)]
pub struct Recorder<K> {
    off: bool,
    /// Why nothing is recorded on a GPU.
    reason: Option<String>,
    pool: Option<Pool>,
    seen: HashSet<K>,
    recorded: HashMap<K, Graph>,
}

impl<K: Eq + Hash> Recorder<K> {
    /// None yet. On a device other than a GPU, work runs operation by operation.
    pub fn new(device: Device) -> Self {
        let off = !matches!(device, Device::Cuda(_));
        let (seen, recorded) = Default::default();
        Recorder { off, reason: None, pool: None, seen, recorded }
    }

    /// As [`new`](Self::new), but work always runs operation by operation.
    pub fn off() -> Self {
        Self::new(Device::Cpu)
    }

    /// Does `work`, or replays what it did under this key before.
    ///
    /// The first time it runs operation by operation, so that libraries make their handles; the second
    /// time it is recorded. So it must do nothing but launch operations, on the current GPU, on tensors
    /// that are in the same place at each call with this key, and leave what it makes in them. What
    /// cannot be recorded runs operation by operation ever after, and [`remark`](Self::remark) says why.
    ///
    /// # Errors
    /// The work fails by itself. Where only its recording fails, there is no error.
    pub fn run<E>(&mut self, key: K, mut work: impl FnMut() -> Result<(), E>) -> Result<(), E> {
        if self.off || self.full(&key) {
            return work();
        }
        if let Some(graph) = self.recorded.get(&key) {
            match graph.replay() {
                Ok(()) => return Ok(()),
                Err(error) => self.give_up(&error),
            }
        } else if self.seen.contains(&key) {
            match self.record(&mut work) {
                Ok(graph) => drop(self.recorded.insert(key, graph)),
                Err(error) => self.give_up(&error),
            }
            return match self.off {
                true => work(),
                false => Ok(()),
            };
        } else {
            self.seen.insert(key);
        }
        work()
    }

    /// Whether there is no place for a recording under this key.
    fn full(&self, key: &K) -> bool {
        self.seen.len() >= MOST && !self.seen.contains(key)
    }

    /// Records the work, and runs the recording.
    fn record<E>(&mut self, work: &mut impl FnMut() -> Result<(), E>) -> Result<Graph, Error> {
        let pool = match &mut self.pool {
            Some(pool) => pool,
            none => {
                // What was used before and left is given back: graphs have memory of their own.
                aflora_cuda::release_unused();
                none.insert(Pool::new()?)
            }
        };
        let (graph, made) = Graph::capture(pool, work)?;
        if made.is_err() {
            return Err(Error::Capture("the work fails while it is recorded".into()));
        }
        graph.replay()?;
        Ok(graph)
    }

    fn give_up(&mut self, error: &Error) {
        self.off = true;
        self.reason = Some(error.to_string());
        self.recorded.clear();
        self.seen.clear();
        self.pool = None;
    }

    /// Why work runs operation by operation on a GPU, once it is known; told once.
    pub fn remark(&mut self) -> Option<String> {
        self.reason.take()
    }

    /// How many recordings there are.
    pub fn len(&self) -> usize {
        self.recorded.len()
    }

    /// Whether there is no recording.
    pub fn is_empty(&self) -> bool {
        self.recorded.is_empty()
    }
}

//! Training steps that are recorded once for each shape of batch and replayed from then on.
//!
//! What is recorded is everything that takes long to launch: forward, loss, backward, and the
//! gathering of all gradients in the tuner's flat buffer. Scores, clipping and the update are a
//! few kernels over flat buffers; they are launched while the GPU is still busy with the graph,
//! so they cost the device their own time and nothing else, and the learning rate, the step
//! count and a method's decisions stay plain numbers on the host.
//!
//! A shape's first batch runs operation by operation: libraries make their handles and choose
//! their kernels. Its second is recorded. What cannot be recorded runs operation by operation
//! ever after, and [`StepGraphs::remark`] says why.
//!
//! ```no_run
//! # fn main() -> Result<(), aflora_core::Error> {
//! # let mut tuner: aflora_core::Tuner = todo!();
//! # let model = |x: &tch::Tensor| x.shallow_clone();
//! # let batches: Vec<[tch::Tensor; 2]> = vec![];
//! use aflora_core::{Checkpoints, StepGraphs};
//!
//! let mut graphs = StepGraphs::new(tch::Device::Cuda(0));
//! for batch in batches {
//!     let rows = batch[0].size()[0] as f64;
//!     let loss = graphs.accumulate(&mut tuner, &batch, rows, |batch| {
//!         let logits = model(&batch[0]);
//!         let none = None::<tch::Tensor>;
//!         let loss = logits.cross_entropy_loss(&batch[1], none, tch::Reduction::Sum, -100, 0.0);
//!         Ok::<_, aflora_core::Error>((loss, Checkpoints::default()))
//!     })?;
//!     tuner.update()?;
//! }
//! # Ok(()) }
//! ```

use crate::adapter::Role;
use crate::optim::Group;
use crate::{Checkpoints, Tuner};
use aflora_cuda::{ops, Error, Graph, Pool};
use std::collections::{HashMap, HashSet};
use tch::{Device, Kind, Tensor};

/// Graphs to hold at most: each takes some megabytes of its own, besides the memory they share.
const MOST: usize = 64;

/// The shapes and kinds of a batch, and whether it is the first of its update: that one
/// overwrites the gradient, the others add to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    inputs: Vec<(Vec<i64>, Kind)>,
    first: bool,
}

#[derive(Debug)]
struct Recorded {
    graph: Graph,
    /// Where the graph reads its batch.
    inputs: Vec<Tensor>,
    /// Where it reads what the loss is divided by, and what stands there.
    divisor: (Tensor, f64),
    loss: Tensor,
    /// Parameters that were frozen, and matrices that trained, when it was recorded.
    frozen: usize,
    matrices: usize,
}

/// The recorded steps of one training run.
#[derive(Debug)]
pub struct StepGraphs {
    device: Device,
    /// Why nothing is recorded.
    off: Option<String>,
    told: bool,
    pool: Option<Pool>,
    seen: HashSet<Key>,
    recorded: HashMap<Key, Recorded>,
}

impl StepGraphs {
    /// None yet. On a device other than a GPU, steps run operation by operation.
    pub fn new(device: Device) -> Self {
        let on_gpu = matches!(device, Device::Cuda(_));
        let off = match (on_gpu, Pool::new()) {
            (true, Ok(_)) => None,
            (true, Err(error)) => Some(error.to_string()),
            (false, _) => Some(String::new()),
        };
        let (seen, recorded) = Default::default();
        StepGraphs { device, told: !on_gpu, off, pool: None, seen, recorded }
    }

    /// As [`new`](Self::new), but steps always run operation by operation.
    pub fn off(device: Device) -> Self {
        StepGraphs { told: true, off: Some(String::new()), ..Self::new(device) }
    }

    /// Why steps run operation by operation on a GPU, once it is known; each reason once.
    pub fn remark(&mut self) -> Option<String> {
        let reason = self.off.clone().filter(|_| !self.told)?;
        self.told = true;
        Some(reason)
    }

    /// How many graphs there are.
    pub fn len(&self) -> usize {
        self.recorded.len()
    }

    /// Whether there is no graph.
    pub fn is_empty(&self) -> bool {
        self.recorded.is_empty()
    }

    /// Adds the gradient of the loss of `inputs`, divided by `divisor`, to the tuner's next update
    /// and gives that quotient, detached; it holds its value until the next call.
    ///
    /// Where `loss` is a sum over rows or tokens, and `divisor` how many of them the whole update
    /// has, the pieces of an update add up to its mean, however it is cut. A graph reads the
    /// divisor from the device at every replay, as it reads its batch.
    ///
    /// `inputs` may lie on the host: they are copied to the device without waiting. `loss` takes
    /// them there. While it is recorded it must only launch: what it makes of anything but
    /// `inputs` and the parameters stays as it was then.
    ///
    /// # Errors
    /// The loss or its gradient fails by itself. Where only the recording fails, there is none.
    pub fn accumulate<E: From<crate::Error>>(
        &mut self,
        tuner: &mut Tuner,
        inputs: &[Tensor],
        divisor: f64,
        loss: impl Fn(&[Tensor]) -> Result<(Tensor, Checkpoints), E>,
    ) -> Result<Tensor, E> {
        let launch = |tuner: &mut Tuner, inputs: &[Tensor], divisor: &Tensor| {
            let (loss, checkpoints) = loss(inputs)?;
            let loss = loss / divisor;
            let checkpointed = !checkpoints.is_empty();
            tuner.accumulate_through(&loss, checkpoints)?;
            Ok::<_, E>((loss.detach(), checkpointed))
        };
        let key = Key {
            inputs: inputs.iter().map(|t| (t.size(), t.kind())).collect(),
            first: tuner.gradients().is_empty(),
        };
        if self.off.is_none() && !self.seen.insert(key.clone()) {
            if let Some(loss) = self.replay(tuner, inputs, divisor, &key, &launch) {
                return Ok(loss);
            }
        }
        let staged: Vec<Tensor> = inputs.iter().map(|t| stage(t, self.device)).collect();
        let (loss, checkpointed) = launch(tuner, &staged, &self.number(divisor))?;
        if checkpointed && self.off.is_none() {
            self.give_up("checkpointed blocks seed their second run, which no graph can".into());
        }
        Ok(loss)
    }

    /// The loss by the shape's graph, which is recorded if it is missing or too old; `None` if it
    /// cannot be.
    fn replay<E>(
        &mut self,
        tuner: &mut Tuner,
        inputs: &[Tensor],
        divisor: f64,
        key: &Key,
        launch: &impl Fn(&mut Tuner, &[Tensor], &Tensor) -> Result<(Tensor, bool), E>,
    ) -> Option<Tensor> {
        let old = self.recorded.get(key).is_some_and(|recorded| {
            // Matrices that froze since are computed in vain. A new recording takes the time of
            // some steps: it pays when half of them froze.
            let now = matrices(tuner);
            now < recorded.matrices && 2 * now <= recorded.matrices
        });
        if old {
            self.recorded.remove(key);
        }
        if !self.recorded.contains_key(key) {
            if self.recorded.len() >= MOST {
                return None;
            }
            match self.record(tuner, inputs, divisor, launch) {
                Ok(recorded) => drop(self.recorded.insert(key.clone(), recorded)),
                Err(error) => {
                    if key.first {
                        tuner.discard();
                    }
                    self.give_up(error.to_string());
                    return None;
                }
            }
        }
        let recorded = self.recorded.get_mut(key)?;
        if recorded.divisor.1 != divisor {
            // Its value goes along with the launch: nothing is copied or waited for.
            let _ = recorded.divisor.0.fill_(divisor);
            recorded.divisor.1 = divisor;
        }
        let recorded = &*recorded;
        for (place, input) in recorded.inputs.iter().zip(inputs) {
            place.shallow_clone().copy_(&stage(input, self.device));
        }
        if let Err(error) = recorded.graph.replay() {
            self.give_up(error.to_string());
            return None;
        }
        tuner.accumulate_replayed(recorded.frozen);
        Some(recorded.loss.shallow_clone())
    }

    fn record<E>(
        &mut self,
        tuner: &mut Tuner,
        inputs: &[Tensor],
        divisor: f64,
        launch: &impl Fn(&mut Tuner, &[Tensor], &Tensor) -> Result<(Tensor, bool), E>,
    ) -> Result<Recorded, Error> {
        let pool = match self.pool {
            Some(pool) => pool,
            None => *self.pool.insert(Pool::new()?),
        };
        let inputs: Vec<Tensor> = inputs.iter().map(|t| stage(t, self.device)).collect();
        let divisor = (self.number(divisor), divisor);
        let (frozen, matrices) = (tuner.arena().frozen(), matrices(tuner));
        // What the steps before used and left is given back: graphs have memory of their own.
        aflora_cuda::release_unused();
        let (graph, made) = Graph::capture(&pool, || launch(tuner, &inputs, &divisor.0))?;
        let Ok((loss, _)) = made else {
            return Err(Error::Capture("the loss fails while it is recorded".into()));
        };
        Ok(Recorded { graph, inputs, divisor, loss, frozen, matrices })
    }

    fn give_up(&mut self, reason: String) {
        self.off = Some(reason);
        self.recorded.clear();
        self.seen.clear();
    }

    /// A number on the device.
    fn number(&self, value: f64) -> Tensor {
        Tensor::full([0i64; 0], value, (Kind::Float, self.device))
    }
}

/// A tensor on the device; from the host through pinned memory, without waiting.
fn stage(t: &Tensor, device: Device) -> Tensor {
    match (t.device(), device) {
        (Device::Cpu, Device::Cuda(index)) => ops::to_gpu(t, index),
        _ => None,
    }
    .unwrap_or_else(|| t.to_device(device))
}

/// Projection matrices that train.
fn matrices(tuner: &Tuner) -> usize {
    tuner.arena().group(Role::Projection).map_or(0, Group::len)
}

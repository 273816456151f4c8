//! Passes that are recorded once for each shape of batch and replayed from then on.
//!
//! A pass is forward, loss and backward of one batch, with the gathering of all gradients in the
//! tuner's flat buffer: everything that takes long to launch. Scores, clipping and the update are
//! a few kernels over flat buffers; they are launched while the GPU is still busy with the graph,
//! so they cost the device their own time and nothing else, and the learning rate, the step count
//! and a method's decisions stay plain numbers on the host.
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
//! use aflora_core::{Loss, StepGraphs};
//!
//! let mut graphs = StepGraphs::new(tch::Device::Cuda(0));
//! for batch in batches {
//!     let rows = batch[0].size()[0] as f64;
//!     tuner.forward_backward([batch], rows, &mut graphs, |[x, labels]| {
//!         let none = None::<tch::Tensor>;
//!         let sum = model(x).cross_entropy_loss(labels, none, tch::Reduction::Sum, -100, 0.0);
//!         Ok::<_, aflora_core::Error>(Loss::from(sum))
//!     })?;
//!     tuner.update()?;
//! }
//! # Ok(()) }
//! ```

use super::Tuner;
use crate::adapter::Role;
use crate::optim::Group;
use aflora_cuda::{ops, Error, Graph, Pool};
use std::collections::{HashMap, HashSet};
use tch::{Device, Kind, Tensor};

/// Graphs to hold at most: each takes some megabytes of its own, besides the memory they share.
const MOST: usize = 64;

/// Something that is made of tensors, such as a batch: what it takes to bring it to a device, and
/// to record work on it.
pub trait MapTensors: Sized {
    /// The same with what `map` makes of each tensor in its place: all of them, always in the same
    /// order.
    fn map_tensors(&self, map: &mut dyn FnMut(&Tensor) -> Tensor) -> Self;
}

impl MapTensors for Vec<Tensor> {
    fn map_tensors(&self, map: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        self.iter().map(map).collect()
    }
}

impl<const N: usize> MapTensors for [Tensor; N] {
    fn map_tensors(&self, map: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        self.each_ref().map(map)
    }
}

/// What a pass gave to whoever launched it.
pub(super) struct PassOutput {
    /// Its part of the step's loss, `[]`, detached.
    pub loss: Tensor,
    /// Whether segments of it were run a second time that draw random numbers.
    pub seeded: bool,
}

/// The shapes and kinds of a batch; whether it is the first of its update, which overwrites the
/// gradient where the others add to it; and whether gradients of what rests are computed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct GraphKey {
    inputs: Vec<(Vec<i64>, Kind)>,
    first: bool,
    probing: bool,
}

#[derive(Debug)]
struct Recorded {
    graph: Graph,
    /// Where the graph reads its batch.
    inputs: Vec<Tensor>,
    /// Where it reads what the loss is divided by, and what stands there.
    items: (Tensor, f64),
    loss: Tensor,
    /// Which parameters have their gradients computed by it, and how many of them are matrices.
    graded: Vec<bool>,
    matrices: usize,
}

/// The recorded passes of one training run.
#[derive(Debug)]
pub struct StepGraphs {
    device: Device,
    /// Why nothing is recorded.
    off: Option<String>,
    told: bool,
    pool: Option<Pool>,
    seen: HashSet<GraphKey>,
    recorded: HashMap<GraphKey, Recorded>,
}

impl StepGraphs {
    /// None yet. On a device other than a GPU, passes run operation by operation.
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

    /// As [`new`](Self::new), but passes always run operation by operation.
    pub fn off(device: Device) -> Self {
        StepGraphs { told: true, off: Some(String::new()), ..Self::new(device) }
    }

    /// Why passes run operation by operation on a GPU, once it is known; each reason once.
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

    /// Makes a pass over `batch` and gives its loss, `[]`, which holds its value until the next
    /// call. `items` is what the pass divides its loss by: a graph reads it from the device at
    /// every replay, as it reads its batch.
    ///
    /// `batch` may lie on the host: it is copied to the device without waiting.
    ///
    /// # Errors
    /// The pass fails by itself. Where only its recording fails, there is no error.
    pub(super) fn run<B: MapTensors, E>(
        &mut self,
        tuner: &mut Tuner,
        batch: &B,
        items: f64,
        pass: impl Fn(&mut Tuner, &B, &Tensor) -> Result<PassOutput, E>,
    ) -> Result<Tensor, E> {
        if self.off.is_none() {
            let key = GraphKey {
                inputs: tensors(batch).iter().map(|t| (t.size(), t.kind())).collect(),
                first: tuner.gradients().is_empty(),
                probing: tuner.arena().probes(),
            };
            if !self.seen.insert(key.clone()) {
                if let Some(loss) = self.replay(tuner, batch, items, &key, &pass) {
                    return Ok(loss);
                }
            }
        }
        let PassOutput { loss, seeded } = pass(tuner, &self.staged(batch), &self.number(items))?;
        if seeded && self.off.is_none() {
            self.give_up(
                "checkpointed blocks with dropout seed their second run, which no graph can".into(),
            );
        }
        Ok(loss)
    }

    /// The loss by the shape's graph, which is recorded if it is missing or too old; `None` if it
    /// cannot be.
    fn replay<B: MapTensors, E>(
        &mut self,
        tuner: &mut Tuner,
        batch: &B,
        items: f64,
        key: &GraphKey,
        pass: &impl Fn(&mut Tuner, &B, &Tensor) -> Result<PassOutput, E>,
    ) -> Option<Tensor> {
        let old = self.recorded.get(key).is_some_and(|recorded| {
            // What trains again since is not computed. Matrices that froze since are computed in
            // vain: a new recording takes the time of ten steps or more, and all frozen saves a fiftieth
            // of one, so it pays after some hundreds, and is made where none is left.
            let graded = tuner.arena().graded();
            let missing = graded.iter().zip(&recorded.graded).any(|(now, then)| *now && !then);
            missing || recorded.matrices > 0 && matrices(tuner) == 0
        });
        if old {
            self.recorded.remove(key);
        }
        if !self.recorded.contains_key(key) {
            if self.recorded.len() >= MOST {
                return None;
            }
            match self.record(tuner, batch, items, pass) {
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
        if recorded.items.1 != items {
            // Its value goes along with the launch: nothing is copied or waited for.
            let _ = recorded.items.0.fill_(items);
            recorded.items.1 = items;
        }
        let recorded = &*recorded;
        for (place, input) in recorded.inputs.iter().zip(tensors(batch)) {
            place.shallow_clone().copy_(&stage(&input, self.device));
        }
        if let Err(error) = recorded.graph.replay() {
            self.give_up(error.to_string());
            return None;
        }
        tuner.gradients_replayed(&recorded.graded);
        Some(recorded.loss.shallow_clone())
    }

    fn record<B: MapTensors, E>(
        &mut self,
        tuner: &mut Tuner,
        batch: &B,
        items: f64,
        pass: &impl Fn(&mut Tuner, &B, &Tensor) -> Result<PassOutput, E>,
    ) -> Result<Recorded, Error> {
        let batch = self.staged(batch);
        let items = (self.number(items), items);
        let (graded, matrices) = (tuner.arena().graded(), matrices(tuner));
        // What the steps before used and left is given back: graphs have memory of their own.
        aflora_cuda::release_unused();
        let pool = match &mut self.pool {
            Some(pool) => pool,
            none => none.insert(Pool::new()?),
        };
        let (graph, made) = Graph::capture(pool, || pass(tuner, &batch, &items.0))?;
        let Ok(PassOutput { loss, .. }) = made else {
            return Err(Error::Capture("the loss fails while it is recorded".into()));
        };
        Ok(Recorded { graph, inputs: tensors(&batch), items, loss, graded, matrices })
    }

    fn give_up(&mut self, reason: String) {
        self.off = Some(reason);
        self.recorded.clear();
        self.seen.clear();
    }

    /// The batch with all its tensors on the device.
    fn staged<B: MapTensors>(&self, batch: &B) -> B {
        batch.map_tensors(&mut |t| stage(t, self.device))
    }

    /// A number on the device, `[]`.
    fn number(&self, value: f64) -> Tensor {
        Tensor::full([0i64; 0], value, (Kind::Float, self.device))
    }
}

impl Tuner {
    /// Takes it that recorded work has just run, which writes to the gradients of the parameters
    /// that are `graded` in it: work from before a freeze goes on to write the frozen matrices'
    /// gradients, and they are zeroed.
    fn gradients_replayed(&mut self, graded: &[bool]) {
        if self.arena.graded() != graded {
            self.arena.clear_frozen(&mut self.gradients);
        }
        self.gradients.mark_written();
    }
}

/// Handles to the tensors of a batch, in their order.
fn tensors<B: MapTensors>(batch: &B) -> Vec<Tensor> {
    let mut found = Vec::new();
    let _ = batch.map_tensors(&mut |t| {
        found.push(t.shallow_clone());
        t.shallow_clone()
    });
    found
}

/// A tensor on the device; from the host through pinned memory, without waiting.
fn stage(t: &Tensor, device: Device) -> Tensor {
    match (t.device(), device) {
        (Device::Cpu, Device::Cuda(index)) => ops::to_gpu(t, index),
        _ => None,
    }
    .unwrap_or_else(|| t.to_device(device))
}

/// Projection matrices whose gradients are computed.
fn matrices(tuner: &Tuner) -> usize {
    let probed = |group: &Group| if group.is_probing() { group.resting() } else { 0 };
    let groups = tuner.arena().groups().filter(|(role, _)| *role == Role::Projection);
    groups.map(|(_, group)| group.len() + probed(group)).sum()
}

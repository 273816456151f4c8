//! Gradient checkpointing: a stretch of the model keeps its input alone, and is run a second
//! time when its gradient is due (Chen et al. 2016, "Training Deep Nets with Sublinear Memory
//! Cost").
//!
//! A model of n blocks then holds n inputs and the insides of one block instead of those of all
//! of them, for one more forward pass. The gradients are the same numbers: the second run reads
//! the same input, and draws the same dropout.
//!
//! ```
//! use aflora_core::Checkpoints;
//! use tch::{Device, Kind, Tensor};
//!
//! let w = Tensor::randn([3, 3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
//! let x = Tensor::randn([2, 3], (Kind::Float, Device::Cpu));
//! let weight = w.shallow_clone();
//! let mut checkpoints = Checkpoints::new(false);
//! let y = checkpoints.run(&x, move |x| x.matmul(&weight).tanh());
//! let gradients = checkpoints.gradients(&y.square().sum(Kind::Float), &[&w])?;
//!
//! x.matmul(&w).tanh().square().sum(Kind::Float).backward();
//! assert_eq!(gradients[0], w.grad());
//! # Ok::<(), aflora_core::Error>(())
//! ```

use crate::{Error, Result};
use tch::{Device, Kind, Tensor};

type Segment = Box<dyn Fn(&Tensor) -> Tensor>;

struct CheckpointedSegment {
    input: Tensor,
    /// What the segment gave, as a leaf: the graph of what follows ends here.
    output: Tensor,
    segment: Segment,
    seed: Option<i64>,
}

/// Segments one after the other, each reading what the one before it gave.
struct Chain {
    /// What the first segment read, where something that trains was before it: its graph goes on
    /// from here.
    source: Option<Tensor>,
    passed: Vec<CheckpointedSegment>,
    /// Of the first segment's dropout; none where nothing is random.
    seed: Option<i64>,
    /// Whether a segment drew random numbers, or may have.
    draws: bool,
}

/// The checkpointed segments of one forward pass: a chain of them, each reading what the one before
/// it gave, or several chains, of which a later one may also read what an earlier one gave in the
/// end, as a decoder reads an encoder.
///
/// A loss behind them has its gradient by them alone: whoever drops them, or takes those of
/// another pass, would leave the segments' parameters without one.
#[derive(Default)]
#[must_use]
pub struct Checkpoints {
    chains: Vec<Chain>,
}

impl std::fmt::Debug for Checkpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoints").field("segments", &self.segments()).finish()
    }
}

impl Checkpoints {
    /// A chain without segments yet. With `random`, segments draw random numbers (dropout): each
    /// gets a seed, drawn from libtorch's generator, that gives its second run the same ones. A pass that
    /// is recorded seeds nothing, for no graph can: it is one whose segments drew [nothing](Self::is_random).
    pub fn new(random: bool) -> Self {
        let seed = (random && !aflora_cuda::is_recording()).then(|| {
            let drawn = Tensor::randint(i64::MAX / 2, [1], (Kind::Int64, Device::Cpu));
            drawn.int64_value(&[0])
        });
        Checkpoints { chains: vec![Chain { source: None, passed: Vec::new(), seed, draws: false }] }
    }

    /// These chains, then the `later` ones.
    pub fn followed_by(mut self, later: Checkpoints) -> Self {
        self.chains.extend(later.chains);
        self
    }

    fn segments(&self) -> usize {
        self.chains.iter().map(|chain| chain.passed.len()).sum()
    }

    /// Whether segments drew random numbers, or may have: then their second run has to be seeded.
    pub fn is_random(&self) -> bool {
        self.chains.iter().any(|chain| chain.draws)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.segments() == 0
    }

    /// What `segment` makes of `x`, `[..]` to `[..]`, of which `x` alone is kept: the next segment
    /// of the last chain. `x` is what its first segment reads, which may come of what trains, then
    /// what the segment before gave. What earlier chains gave in the end, `segment` may hold.
    pub fn run(&mut self, x: &Tensor, segment: impl Fn(&Tensor) -> Tensor + 'static) -> Tensor {
        if self.chains.is_empty() {
            *self = Checkpoints::new(false);
        }
        let chain = self.chains.len() - 1;
        self.chains[chain].run(x, Box::new(segment))
    }

    /// d loss / d leaf for every leaf, in the shape of the leaf, through the segments; an undefined
    /// tensor where the loss does not depend on a leaf. `loss`, `[]`, is made of what the last
    /// chain gave.
    ///
    /// # Errors
    /// The loss is made of another forward pass than these segments are of; or libtorch refuses
    /// the backward pass: the loss has no graph, or a leaf needs no gradient.
    pub fn gradients(mut self, loss: &Tensor, leaves: &[&Tensor]) -> Result<Vec<Tensor>> {
        let segments = self.segments();
        self.chains.retain(|chain| !chain.passed.is_empty());
        // Where a chain ends, the graphs of what follows end: it is one of their leaves.
        let ends: Vec<Tensor> = self.chains.iter().filter_map(Chain::end).collect();
        let wanted: Vec<&Tensor> = leaves.iter().copied().chain(&ends).collect();
        let mut sums = Tensor::f_run_backward(&[loss], &wanted, false, false)?;
        if !ends.is_empty() && !sums.last().is_some_and(Tensor::defined) {
            return Err(Error::Checkpoints { segments });
        }
        while let Some(chain) = self.chains.pop() {
            let flowing = sums.pop();
            chain.add_gradients(flowing, &wanted[..sums.len()], &mut sums)?;
        }
        Ok(sums)
    }
}

impl Chain {
    /// What the last segment gave.
    fn end(&self) -> Option<Tensor> {
        self.passed.last().map(|segment| segment.output.shallow_clone())
    }

    fn run(&mut self, x: &Tensor, segment: Segment) -> Tensor {
        let seed = self.seed.map(|seed| seed + self.passed.len() as i64);
        let output = tch::no_grad(|| seeded(seed, x, &segment));
        self.draws |= seed.is_some() && aflora_cuda::has_drawn(x.device());
        let output = output.detach().set_requires_grad(true);
        let handle = output.shallow_clone();
        if self.passed.is_empty() && x.requires_grad() {
            self.source = Some(x.shallow_clone());
        }
        self.passed.push(CheckpointedSegment { input: x.detach(), output, segment, seed });
        handle
    }

    /// Adds to `sums`, the gradients of `leaves` so far, those through this chain, whose end has
    /// the gradient `flowing`.
    fn add_gradients(
        self,
        flowing: Option<Tensor>,
        leaves: &[&Tensor],
        sums: &mut [Tensor],
    ) -> Result<()> {
        let mut flowing = flowing.filter(Tensor::defined);
        let first = self.passed.len() - 1;
        for (i, checkpoint) in self.passed.into_iter().rev().enumerate() {
            // Nothing that follows depends on this segment: nor on those before it.
            let Some(gradient) = flowing.take().filter(Tensor::defined) else { break };
            // Before the first segment, mostly, are frozen embeddings.
            let flows = i < first || self.source.is_some();
            let input = checkpoint.input.set_requires_grad(flows);
            let output =
                tch::with_grad(|| seeded(checkpoint.seed, &input, checkpoint.segment.as_ref()));
            if !output.requires_grad() {
                break;
            }
            // Its gradient is that of the output, times what flows into it: the chain rule.
            let root = output * gradient;
            let mut wanted = leaves.to_vec();
            if flows {
                wanted.push(&input);
            }
            let mut found = Tensor::f_run_backward(&[&root], &wanted, false, false)?;
            flowing = if flows { found.pop() } else { None };
            add(sums, found);
        }
        if let (Some(source), Some(gradient)) = (self.source, flowing.filter(Tensor::defined)) {
            add(sums, Tensor::f_run_backward(&[source * gradient], leaves, false, false)?);
        }
        Ok(())
    }
}

fn seeded(seed: Option<i64>, x: &Tensor, segment: &dyn Fn(&Tensor) -> Tensor) -> Tensor {
    if let Some(seed) = seed {
        tch::manual_seed(seed);
    }
    segment(x)
}

/// Adds `found` to the gradients of the same leaves so far; undefined ones are none.
fn add(sums: &mut [Tensor], found: Vec<Tensor>) {
    tch::no_grad(|| {
        for (sum, part) in sums.iter_mut().zip(found).filter(|(_, part)| part.defined()) {
            *sum = if sum.defined() { &*sum + part } else { part };
        }
    });
}

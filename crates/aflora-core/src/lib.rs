//! Adaptive freezing of low-rank adaptation (AFLoRA) on libtorch tensors.
//!
//! Beside a frozen pretrained weight `W0` runs a low-rank path with two small feature
//! transformation vectors (Eq. 1 of the paper, arXiv 2403.13269):
//!
//! ```text
//! y = W0 x + b ⊙ B (d ⊙ (A x))
//! ```
//!
//! Training starts with everything in that path trainable. A score from the gradients
//! (Eq. 2-4) and a cubic schedule (Eq. 5) then decide which projection matrices `A` and `B`
//! freeze, until only `d` and `b` train.
//!
//! A step of training reads as the paper has it, in `tuner/step.rs`: forward, loss, backward,
//! guard, score, freeze, clip, update. What it is made of:
//!
//! * [`adapter`]: the modules that run beside a frozen linear layer
//! * [`nn`]: layers as tch's, that take an adapter after they were made
//! * [`Injection`]: the adapters of a model whose layers have such slots, and what trains beside them
//! * [`Tuner`]: trains them over one run, step by step; [`StepGraphs`] records passes on a GPU,
//!   [`Checkpoints`] spares the memory of deep models, [`sum_in_chunks`] that of large vocabularies
//! * [`weight`]: frozen weights, dense or in 4 or 8 bits; [`sharded`]: over several ranks
//! * [`optim`]: the [arena](optim::Arena) that holds every trained parameter in a few flat
//!   buffers, the guard against what is not finite, clipping, AdamW, the learning-rate schedule
//! * [`freeze`]: scores, schedule, rules and the controller that freezes matrices
//! * [`Hook`]: what a method does during training beside the update
//! * [`kernels`]: the one door to what a GPU computes in one go
//! * [`Recorder`]: other work that a GPU runs from a recording, such as a step of writing text
//! * [`state`]: all that changes in a run, to stop and to go on
//! * [`accounting`] and [`flops`]: how many parameters trained, when each matrix froze, what a
//!   layer costs and what a freeze saves
//!
//! `cargo run --example wrap_linear` shows all of it on plain [`tch::nn::Linear`] layers.

#![forbid(unsafe_code)]

pub mod accounting;
pub mod adapter;
mod checkpoint;
mod chunked;
mod error;
pub mod flops;
pub mod freeze;
mod hook;
mod injection;
pub mod kernels;
pub mod nn;
pub mod optim;
mod recorder;
pub mod sharded;
mod span;
pub mod state;
mod tuner;
pub mod weight;

pub use adapter::{AdaptedLinear, Adapter, Block, Method, Site};
pub use checkpoint::Checkpoints;
pub use chunked::sum_in_chunks;
pub use error::{Error, Result};
pub use hook::Hook;
pub use injection::{Injected, Injection};
pub use nn::shapes_only;
pub use recorder::Recorder;
pub use span::{Ends, RunLength, Span};
pub use state::TunerState;
pub use tuner::{Loss, MapTensors, StepGraphs, StepReport, Tuner, TunerConfig};

/// The snippets of the README compile and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

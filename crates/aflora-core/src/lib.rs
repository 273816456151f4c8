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
//! The crate reads in the order in which a step runs:
//!
//! * [`adapter`]: the modules that run beside a frozen linear layer
//! * [`optim`]: the [arena](optim::Arena) that holds every trained parameter in a few flat
//!   buffers, AdamW, clipping and the learning-rate schedule
//! * [`freeze`]: scores, schedule, rules and the controller that freezes matrices
//! * [`Hook`]: what a method does during training beside the update
//! * [`Checkpoints`]: gradient checkpointing, for models too deep for the memory
//! * [`Tuner`]: one training step: backward, clip, score, freeze, update
//! * [`fused`]: a door for kernels that compute a path in one go
//! * [`flops`]: what a layer costs, and what a freeze saves
//! * [`state`]: all of that, to stop and to go on
//! * [`accounting`]: how many parameters trained, and when each matrix froze
//!
//! `cargo run --example wrap_linear` shows all of it on plain [`tch::nn::Linear`] layers.

#![forbid(unsafe_code)]

pub mod accounting;
pub mod adapter;
mod checkpoint;
mod error;
pub mod flops;
pub mod freeze;
pub mod fused;
mod hook;
pub mod optim;
mod product;
mod span;
pub mod state;
mod tuner;

pub use adapter::{AdaptedLinear, Adapter, Block, Method, Site};
pub use checkpoint::Checkpoints;
pub use error::{Error, Result};
pub use hook::{Hook, RunLength};
pub use span::{Ends, Span};
pub use state::TunerState;
pub use tuner::{StepReport, Tuner, TunerConfig};

//! The update of the trained parameters: all of them in a few flat buffers.

mod adamw;
mod arena;
mod clip;
mod schedule;

pub use adamw::{AdamW, AdamWConfig};
pub use arena::{Arena, Gradients, Group, Parameter};
pub use clip::clip_global_norm;
pub use schedule::LinearWarmup;

//! The update of the trained parameters: all of them in a few flat buffers.

mod adamw;
mod arena;
mod clip;
mod gradients;
mod guard;
mod parameter;
mod read;
mod resting;
mod schedule;
mod state;

pub use adamw::{AdamW, AdamWConfig, GroupUpdate};
pub use arena::{Arena, Group};
pub use clip::clip_global_norm;
pub(crate) use clip::{clip_to, joint_norm};
pub use gradients::Gradients;
pub(crate) use guard::{guard, Skipped};
pub use parameter::Parameter;
pub(crate) use read::Reading;
pub use resting::Standing;
pub use schedule::{LrSchedule, Schedule};

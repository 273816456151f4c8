//! Tasks: what they ask of a model, as their YAML files say it, and their examples.
//!
//! * [`spec`]: all that a file of `configs/tasks` says
//! * `check`: what can be wrong with one
//! * [`Kind`]: the names of the kinds of tasks, which [`kinds`](crate::kinds) holds
//! * [`example`]: examples, made of the rows of files (`load`); [`Examples`]: a batch of them
//! * [`conversation`]: what an example of a conversation is; [`LossOn`]: what of it is learned
//! * `inputs`: which columns to predict for hold its texts

mod check;
pub mod conversation;
pub mod example;
mod examples;
mod inputs;
mod kind;
mod load;
mod loss_on;
pub mod spec;

pub use example::{pair, Example};
pub use examples::Examples;
pub use kind::Kind;
pub use loss_on::LossOn;
pub use spec::{ClassWeights, Label, TaskSpec, INPUT};

//! Tasks: what they ask of a model, as their YAML files say it, and their examples.
//!
//! * [`spec`]: all that a file of `configs/tasks` says
//! * `check`: what can be wrong with one
//! * [`Kind`]: the kinds of tasks
//! * [`example`]: examples, made of the rows of files; [`Examples`]: a batch of them

mod check;
pub mod example;
mod examples;
mod kind;
pub mod spec;

pub use example::Example;
pub use examples::Examples;
pub use kind::Kind;
pub use spec::{TaskSpec, INPUT};

//! The configuration of a run: YAML building blocks, one run file, `key=value` overrides.
//!
//! A run file names a task, a model and a method; each is a block of its own in the folders
//! `tasks/`, `models/` and `methods/` beside the run file. Settings are laid over one another,
//! later ones winning:
//!
//! 1. built-in defaults
//! 2. `run:` of the model
//! 3. `run:` of the task (the paper's settings)
//! 4. `run_for: {<model>: …}` of the task
//! 5. `run:` of the method
//! 6. the run file
//! 7. `key=value` on the command line
//!
//! Every problem in all of these is collected and told at once, with its place.
//!
//! * [`settings`]: what can be set
//! * [`tree`]: YAML as a list of settings that know where they stand
//! * [`layers`]: laying settings over defaults, checking each
//! * [`resolve`]: from a run file and overrides to a [`Resolved`] configuration

mod layers;
mod problem;
pub mod resolve;
pub mod settings;
mod tree;

pub use problem::{ConfigErrors, Problem};
pub use resolve::{load, Resolved};
pub use settings::{MethodConfig, ModelConfig, RunSettings, TaskConfig};

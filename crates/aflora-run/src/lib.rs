//! Fine-tuning experiments with AFLoRA: the library behind the `aflora` command.
//!
//! * [`config`]: what to run
//! * [`task`], [`kinds`], [`feed`], [`metrics`], [`hub`]: tasks and their kinds, the files of their
//!   examples, and how answers are judged
//! * [`discover`]: what rows of the user's own ask for
//! * [`experiment`]: grids of runs, and what they found
//! * [`run`]: one run, from a configuration to a finished folder
//! * [`launch`]: several processes that train one run
//! * [`check`], [`inspect`]: whether a configuration can run, and what it would train
//! * [`doctor`]: whether anything can run on this machine, and how well
//! * [`saved`], [`predict`]: a finished run opened again
//! * [`interrupt`], [`logging`]: what signals ask for, what `AFLORA_LOG` asks for
//! * [`device`], [`ui`], [`provenance`]: where it computes, what people see, where it came from
//! * [`installation`]: the release that the program is of
//!
//! What a run leaves is [`aflora_record`]'s, and what is shown of it [`aflora_report`]'s.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod allocator;
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
mod begin;
mod bits;
pub mod check;
mod cli;
pub mod config;
pub mod device;
pub mod discover;
pub mod doctor;
#[cfg(test)]
#[path = "../tests/common/documents.rs"]
mod documents;
pub mod evaluate;
pub mod experiment;
pub mod feed;
pub mod hub;
pub mod inspect;
pub mod installation;
#[allow(unsafe_code)]
pub mod interrupt;
pub mod kinds;
pub mod launch;
#[allow(unsafe_code)]
mod leave;
pub mod logging;
pub mod metrics;
pub mod precision;
pub mod predict;
pub mod provenance;
mod refused;
pub mod replay;
pub mod run;
pub mod saved;
pub mod task;
pub mod threads;
pub mod ui;
mod usage;
mod verdict;

// The commands are written as any other user of this library would write them.
extern crate self as aflora_run;

#[cfg(target_os = "linux")]
pub use begin::{begin, Begin};
pub use cli::main;
pub use leave::leave;
pub(crate) use usage::usage;
pub use usage::{check_makeable, UsageError};
pub use verdict::is_usage;

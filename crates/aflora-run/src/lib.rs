//! Fine-tuning experiments with AFLoRA: the library behind the `aflora` command.
//!
//! * [`config`]: what to run
//! * [`data`], [`metrics`], [`hub`]: tasks, their examples, and how answers are judged
//! * [`experiment`]: grids of runs, and what they found
//! * [`run`]: one run, from a configuration to a finished folder
//! * [`check`], [`inspect`], [`list`]: whether a configuration can run, what it would train, and what
//!   was run
//! * [`saved`], [`predict`]: a finished run opened again
//! * [`report`], [`watch`]: what experiments found, and a run under way
//! * [`interrupt`], [`logging`]: what signals ask for, what `AFLORA_LOG` asks for
//! * [`device`], [`ui`], [`provenance`]: where it computes, what people see, where it came from

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod allocator;
pub mod check;
pub mod config;
pub mod data;
pub mod device;
pub mod experiment;
pub mod hub;
pub mod inspect;
pub mod interrupt;
pub mod list;
pub mod logging;
pub mod metrics;
pub mod precision;
pub mod predict;
pub mod provenance;
pub mod replay;
pub mod report;
pub mod run;
pub mod saved;
pub mod threads;
pub mod ui;
mod usage;
pub mod watch;

pub(crate) use usage::usage;
pub use usage::{check_makeable, is_usage, UsageError};

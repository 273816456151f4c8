//! Fine-tuning experiments with AFLoRA: the library behind the `aflora` command.
//!
//! * [`config`]: what to run
//! * [`data`], [`metrics`], [`hub`]: tasks, their examples, and how answers are judged
//! * [`experiment`]: grids of runs, and what they found
//! * [`run`]: one run, from a configuration to a finished folder
//! * [`inspect`], [`list`]: what a configuration would train, and what was run
//! * [`saved`], [`predict`]: a finished run opened again
//! * [`report`], [`watch`]: what experiments found, and a run under way
//! * [`interrupt`], [`logging`]: what signals ask for, what `AFLORA_LOG` asks for
//! * [`device`], [`ui`], [`provenance`]: where it computes, what people see, where it came from

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod allocator;
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
pub mod watch;

/// A wrong call: what was asked for cannot be done as asked. The command ends with code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Ends the function with a [`UsageError`].
macro_rules! usage {
    ($($words:tt)*) => {
        return Err($crate::UsageError(format!($($words)*)).into())
    };
}
pub(crate) use usage;

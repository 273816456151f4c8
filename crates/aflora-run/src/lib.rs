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
pub mod watch;

/// A wrong call: what was asked for cannot be done as asked. The command ends with code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Whether an error is a wrong call, a wrong configuration or missing data, and not the run's own
/// failure: the command ends with code 2 then.
pub fn is_usage(error: &anyhow::Error) -> bool {
    use aflora_models::Error as ModelError;
    error.is::<config::ConfigErrors>()
        || error.is::<UsageError>()
        || matches!(error.downcast_ref(), Some(aflora_core::Error::Setting { .. }))
        || matches!(error.downcast_ref(), Some(data::DataError::NotFound { .. }))
        || matches!(
            error.downcast_ref(),
            Some(
                ModelError::Targets(_)
                    | ModelError::TrainModules(_)
                    | ModelError::Export(_)
                    | ModelError::UnknownBackbone { .. }
                    | ModelError::NoLanguageHead { .. }
                    | ModelError::Unbuilt(_)
                    | ModelError::Precision { .. }
                    | ModelError::Core(aflora_core::Error::Setting { .. })
            )
        )
}

/// Ends the function with a [`UsageError`].
macro_rules! usage {
    ($($words:tt)*) => {
        return Err($crate::UsageError(format!($($words)*)).into())
    };
}
pub(crate) use usage;

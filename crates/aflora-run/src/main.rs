//! The `aflora` command.

mod cli;

use aflora_files::printable;
use aflora_run::config::ConfigErrors;
use aflora_run::data::DataError;
use aflora_run::interrupt::Interrupted;
use aflora_run::ui;
use aflora_run::{logging, threads, UsageError};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    if cli.command.computes() {
        threads::settle();
    }
    let (mut progress, sink) = ui::for_stderr();
    logging::start(sink);
    match cli.command.run(progress.as_mut()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress.end();
            match error.is::<Interrupted>() {
                true => eprintln!("{error:#}; the same command goes on from there"),
                false => eprintln!("error: {}", printable(&format!("{error:#}"))),
            }
            exit_code(&error)
        }
    }
}

/// 2 for a wrong call, configuration or missing data; 1 for a run that failed.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    use aflora_models::Error as ModelError;
    if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
        return ExitCode::from(interrupted.exit_code());
    }
    let usage = error.is::<ConfigErrors>()
        || error.is::<UsageError>()
        || matches!(error.downcast_ref(), Some(aflora_core::Error::Setting { .. }))
        || matches!(error.downcast_ref(), Some(DataError::NotFound { .. }))
        || matches!(
            error.downcast_ref(),
            Some(
                ModelError::Targets(_)
                    | ModelError::UnknownBackbone { .. }
                    | ModelError::Purpose { .. }
                    | ModelError::Unbuilt(_)
            )
        );
    ExitCode::from(if usage { 2 } else { 1 })
}

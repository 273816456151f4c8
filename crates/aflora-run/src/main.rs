//! The `aflora` command.

mod cli;

use aflora_run::config::ConfigErrors;
use aflora_run::data::DataError;
use aflora_run::interrupt::Interrupted;
use aflora_run::ui::{self, LogSink};
use aflora_run::UsageError;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let (mut progress, sink) = ui::for_stderr();
    start_logging(sink);
    match cli.command.run(progress.as_mut()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress.end();
            match error.is::<Interrupted>() {
                true => eprintln!("{error:#}; the same command goes on from there"),
                false => eprintln!("error: {error:#}"),
            }
            exit_code(&error)
        }
    }
}

fn start_logging(sink: LogSink) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("AFLORA_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .without_time()
        .with_ansi(false)
        .with_writer(move || sink.clone())
        .init();
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

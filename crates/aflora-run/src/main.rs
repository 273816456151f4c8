//! The `aflora` command.

mod cli;

use aflora_files::printable;
use aflora_run::interrupt::{self, Interrupted};
use aflora_run::{logging, threads, ui};
use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return cli::arguments::refuse(error),
    };
    if cli.command.only_prints() {
        // Where it cannot be set, a write tells.
        drop(interrupt::end_with_the_reader());
    }
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
                false => eprintln!("error: {}", printable(&ui::words(&error))),
            }
            exit_code(&error)
        }
    }
}

/// 2 for a wrong call, configuration or missing data; 1 for a run that failed.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
        return ExitCode::from(interrupted.exit_code());
    }
    ExitCode::from(if aflora_run::is_usage(error) { 2 } else { 1 })
}

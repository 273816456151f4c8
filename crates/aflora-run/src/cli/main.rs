//! From the arguments of a call to its exit code.

use super::{arguments, Cli};
use aflora_files::printable;
use aflora_run::interrupt::{self, Interrupted};
use aflora_run::launch::start::Ended;
use aflora_run::{launch, logging, ui};
use clap::Parser as _;
use std::ffi::OsString;
use std::io::Write;

/// The `aflora` command: what these arguments ask for, of which the first is the program's name. What it
/// tells goes to the process's own streams, what it returns is to be the process's exit code.
///
/// It is to be called once in a process, before any threads are started: it says how the process takes
/// signals, and what is logged. How threads on a CPU wait is said by the program before (`begin.rs`): a program of another's that calls this
/// sets `GOMP_SPINCOUNT` itself.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return arguments::refuse(error, &arguments),
    };
    if cli.command.only_prints() {
        // Where it cannot be set, a write tells.
        drop(interrupt::end_with_the_reader());
    }
    if cli.command.computes() {
        aflora_cuda::count_host_memory();
    }
    let (mut progress, mut sink) = match cli.command.trains() && launch::rank() > 0 {
        true => ui::for_another_process(),
        false => ui::for_stderr(),
    };
    logging::start(sink.clone());
    match cli.command.run(progress.as_mut()) {
        Ok(()) => 0,
        Err(error) => {
            progress.end();
            if error.is::<Ended>() {
                return exit_code(&error);
            }
            let words = match error.is::<Interrupted>() {
                true => format!("{error:#}; the same command goes on from there\n"),
                false => format!("error: {}\n", printable(&ui::words(&error))),
            };
            // What nobody can be told is nobody's loss.
            let _ = match launch::speaks() {
                true => std::io::stderr().write_all(words.as_bytes()),
                false if launch::rank() > 0 => sink.write_all(words.as_bytes()),
                // Another tells it, or did.
                false => Ok(()),
            };
            exit_code(&error)
        }
    }
}

/// 2 for a wrong call, configuration or missing data; 1 for a run that failed.
fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
        return interrupted.exit_code();
    }
    if let Some(Ended(code)) = error.downcast_ref() {
        return u8::try_from(*code).unwrap_or(1);
    }
    if aflora_run::is_usage(error) {
        2
    } else {
        1
    }
}

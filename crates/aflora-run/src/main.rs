//! The `aflora` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(aflora_run::main(std::env::args_os()))
}

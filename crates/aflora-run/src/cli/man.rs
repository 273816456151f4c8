//! `aflora man`: manual pages.

use aflora_run::UsageError;
use anyhow::{Context, Result};
use clap::{Args, Command};
use clap_mangen::Man as Page;
use std::io;

/// What the command takes.
#[derive(Args)]
pub struct Man {
    /// The command whose page it is; the whole program's if not given.
    command: Option<String>,
}

/// Words for `--help`.
pub const HELP: &str = "\
Examples:
  aflora man > ~/.local/share/man/man1/aflora.1
  aflora man run > ~/.local/share/man/man1/aflora-run.1
  aflora man run | man -l -";

impl Man {
    /// Prints the page, made from `program`, the whole declaration.
    ///
    /// # Errors
    /// There is no such command, or standard output cannot be written.
    pub fn run(&self, mut program: Command) -> Result<()> {
        program.build();
        let page = match &self.command {
            None => program,
            Some(name) => program.find_subcommand(name).cloned().ok_or_else(|| {
                UsageError(format!("there is no command `{name}`; `aflora --help` lists them"))
            })?,
        };
        Page::new(page)
            .render(&mut io::stdout().lock())
            .context("standard output cannot be written")
    }
}

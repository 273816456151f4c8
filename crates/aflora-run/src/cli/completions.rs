//! `aflora completions`: a shell's completion of this program's arguments.

use anyhow::{Context, Result};
use clap::{Args, Command};
use clap_complete::Shell;
use std::io::{self, Write};

/// What the command takes.
#[derive(Args)]
pub struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Words for `--help`.
pub const HELP: &str = "\
Examples:
  aflora completions bash > ~/.local/share/bash-completion/completions/aflora
  aflora completions fish > ~/.config/fish/completions/aflora.fish
  aflora completions zsh > \"${fpath[1]}/_aflora\"";

impl Completions {
    /// Prints the script for `command`, the whole program's declaration.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn run(&self, mut command: Command) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "aflora", &mut script);
        io::stdout().write_all(&script).context("standard output cannot be written")
    }
}

//! `aflora generate`: what a finished run's model writes after a prompt.

use super::saved::Saved;
use super::writing::{Screen, Writer, Writing};
use aflora_run::run::objective::live::Prompt;
use aflora_run::ui::Progress;
use aflora_run::UsageError;
use anyhow::{Context, Result};
use clap::Args;
use std::io::{self, BufRead, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// What the command takes.
#[derive(Args)]
pub struct Generate {
    #[command(flatten)]
    saved: Saved,
    /// What to write on after; several times for several texts.
    #[arg(long, value_name = "TEXT")]
    prompt: Vec<String>,
    /// A file whose whole text is a prompt, or `-` for standard input.
    #[arg(long, value_name = "FILE")]
    prompt_file: Vec<PathBuf>,
    /// Give the model the prompts as they stand, without the task's own `prompt` around them.
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    writing: Writing,
}

/// Words for `--help`.
pub const HELP: &str = "\
Each text comes token by token, and ends with a line end. Without --prompt and --prompt-file every
line of standard input is a prompt. A prompt stands where the task's rows have their input: of a
task with `prompt: \"{input} =>\"`, `--prompt four` has the model read `four =>`. --raw leaves that out. Of a task
of conversations a prompt is what the user says first; `aflora chat` goes on from there.

The same prompt and seed give the same text, here and in `aflora predict`, which writes for many rows
at once and keeps their columns.

Examples:
  aflora generate runs/lines-tiny-bart-aflora-seed42 --prompt 'four two'
  aflora generate runs/mine --prompt 'Once upon' --raw --temperature 0.8 --top-p 0.95 --seed 1
  aflora generate runs/mine --beams 4 < prompts.txt";

impl Generate {
    /// Writes on.
    ///
    /// # Errors
    /// The run cannot be opened, a prompt cannot be read, or the model fails.
    pub fn run(self, progress: &mut dyn Progress) -> Result<()> {
        let files: Vec<String> =
            self.prompt_file.iter().map(|file| text_of(file)).collect::<Result<_>>()?;
        let prompts: Vec<String> = self.prompt.into_iter().chain(files).collect();
        let writer = self.writing.open(&self.saved, progress)?;
        let screen = Screen::new();
        if !prompts.is_empty() {
            return prompts.iter().try_for_each(|prompt| write(&writer, &screen, prompt, self.raw));
        }
        if screen.is_for_people() {
            tracing::info!("a prompt a line; Ctrl-D ends");
        }
        for line in io::stdin().lock().lines() {
            let line = line.context("standard input cannot be read")?;
            write(&writer, &screen, &line, self.raw)?;
        }
        Ok(())
    }
}

/// The text of a file without the line end behind it.
fn text_of(file: &Path) -> Result<String> {
    let mut text = String::new();
    let read = match file == Path::new("-") {
        true => io::stdin().lock().read_to_string(&mut text).map(drop),
        false => aflora_files::read_text(file).map(|read| text = read),
    };
    match read {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(UsageError(format!("{}: there is no such file", file.display())).into());
        }
        Err(error) => {
            return Err(error).with_context(|| format!("{} cannot be read", file.display()))
        }
    }
    let end = text.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text));
    Ok(end.unwrap_or(&text).to_string())
}

fn write(writer: &Writer, screen: &Screen, prompt: &str, raw: bool) -> Result<()> {
    let prompt = if raw { Prompt::Raw(prompt) } else { Prompt::Input(prompt) };
    let (ids, cut) = writer.texts.prompt(prompt)?;
    if cut {
        tracing::warn!("the prompt is longer than the model reads here, and was cut");
    }
    let mut shown = Ok(());
    writer.texts.write_live(&writer.model, &ids, &mut |piece| {
        shown = screen.show(piece);
        if shown.is_err() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    shown.and_then(|()| screen.show("\n")).context("standard output cannot be written")
}

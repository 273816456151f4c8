//! `aflora chat`: a conversation with a finished run's model.

use super::saved::Saved;
use super::writing::{Screen, Writer, Writing};
use aflora_models::chat::message;
use aflora_models::ChatTemplate;
use aflora_run::interrupt::Interrupts;
use aflora_run::ui::{counted, Progress};
use aflora_run::UsageError;
use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;
use std::io::{self, BufRead};
use std::ops::ControlFlow;
use std::sync::Arc;

/// What the command takes.
#[derive(Args)]
pub struct Chat {
    #[command(flatten)]
    saved: Saved,
    /// What the model is told before the conversation.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    writing: Writing,
}

/// Words for `--help`.
pub const HELP: &str = "\
A line is what you say, and the model answers with the whole conversation before it, written as the
chat template in its files says. /reset begins anew, /quit or Ctrl-D ends; a line that should begin
with a slash begins with two. Ctrl-C ends an answer, and what there is of it stays. Where a
conversation becomes longer than the model reads, its first turns are left out.

In a pipe every line of standard input is a turn, and the answers alone are written.

Examples:
  aflora chat runs/support-smollm-aflora-seed42 --system 'You are terse.'
  aflora chat runs/mine --temperature 0.7 --seed 3";

impl Chat {
    /// Talks.
    ///
    /// # Errors
    /// The run cannot be opened, its model has no chat template, or it fails.
    pub fn run(self, progress: &mut dyn Progress) -> Result<()> {
        let (writer, template) = self.writing.open_to_chat(&self.saved, progress)?;
        let system = self.system.map(|words| message("system", &words));
        let mut talk = Talk {
            writer,
            template,
            messages: system.iter().cloned().collect(),
            screen: Screen::new(),
            interrupts: Interrupts::listen().context("signals cannot be listened for")?,
        };
        let prompts = talk.screen.is_for_people();
        let mut lines = io::stdin().lock().lines();
        loop {
            if prompts {
                talk.screen.show("> ")?;
            }
            let Some(line) = lines.next() else { break };
            let line = line.context("standard input cannot be read")?;
            match line.trim() {
                "" => {}
                "/quit" => return Ok(()),
                "/reset" => talk.messages = system.iter().cloned().collect(),
                said => match said.strip_prefix('/') {
                    Some(escaped) if escaped.starts_with('/') => talk.turn(escaped)?,
                    Some(_) => tracing::warn!(
                        "there is no command {said}; there are /reset and /quit, and a text that \
                         begins with a slash is written with two"
                    ),
                    None => talk.turn(said)?,
                },
            }
        }
        if prompts {
            talk.screen.show("\n")?;
        }
        Ok(())
    }
}

struct Talk {
    writer: Writer,
    template: Arc<ChatTemplate>,
    messages: Vec<Value>,
    screen: Screen,
    interrupts: Interrupts,
}

impl Talk {
    /// Adds what was said, and the answer to it.
    fn turn(&mut self, said: &str) -> Result<()> {
        self.messages.push(message("user", said));
        let Some(ids) = self.fitting()? else {
            self.messages.pop();
            tracing::warn!("this alone is longer than the model reads; it is left out");
            return Ok(());
        };
        let (screen, interrupts) = (&self.screen, &self.interrupts);
        interrupts.forget();
        let mut shown = Ok(());
        let answer = self.writer.texts.write_live(&self.writer.model, &ids, &mut |piece| {
            shown = screen.show(piece);
            match shown.is_err() || interrupts.came() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        shown.and_then(|()| screen.show("\n")).context("standard output cannot be written")?;
        self.messages.push(message("assistant", &answer));
        Ok(())
    }

    /// The conversation as tokens, without its first turns where it would be longer than the model
    /// reads; none where the last alone is.
    fn fitting(&mut self) -> Result<Option<Vec<i64>>> {
        let asked = self.writer.texts.ask(&self.template, &self.messages, None);
        let asked = asked.map_err(|error| UsageError(format!("{error:#}")))?;
        if asked.cut {
            return Ok(None);
        }
        if asked.left_out > 0 {
            let turns = counted(asked.left_out, "turn");
            tracing::warn!(
                "the conversation is longer than the model reads: {turns} at its beginning left out"
            );
        }
        self.messages = asked.messages;
        Ok(Some(asked.ids))
    }
}

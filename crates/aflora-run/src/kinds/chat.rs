//! Conversations, as the model's chat template writes them: the cross entropy of the assistant's
//! tokens.

use super::traits::{ModelContext, Processor, TaskKind, Usual};
use super::write::check_generation;
use crate::feed::row::Row;
use crate::feed::Source;
use crate::metrics::{Answer, Sort};
use crate::run::objective::texts::{Learned, TextPairs};
use crate::task::conversation::{Conversation, BESIDE, MESSAGES, PAIR};
use crate::task::TaskSpec;
use aflora_models::merged::OutputKind;
use aflora_models::Head;
use anyhow::Result;

/// The kind `chat`.
#[derive(Debug)]
pub(super) struct Chat;

impl TaskKind for Chat {
    fn asks_for(&self) -> &'static str {
        "asks for the next turn of conversations"
    }

    fn keys(&self) -> &'static [&'static str] {
        &["loss_on", "chat_template", "packing", "label_smoothing", "generation"]
    }

    fn check(&self, task: &TaskSpec, tell: &mut dyn FnMut(&str, String)) {
        check_generation(task, tell);
    }

    fn inputs(&self) -> &'static [&'static [&'static str]] {
        &[&[MESSAGES], &PAIR]
    }

    fn target(&self, _: &TaskSpec) -> Option<&'static str> {
        None
    }

    fn further<'a>(&self, _: &'a TaskSpec) -> Vec<&'a str> {
        BESIDE.to_vec()
    }

    fn whole(
        &self,
        row: &Row,
        source: &Source,
    ) -> std::result::Result<Option<Vec<String>>, String> {
        Ok(Conversation::of(row, source)?.map(|conversation| vec![conversation.to_text()]))
    }

    /// What the assistant says last.
    fn right(
        &self,
        _: &TaskSpec,
        row: &Row,
        source: &Source,
    ) -> std::result::Result<Answer, String> {
        let conversation = Conversation::of(row, source)?;
        let missing = || format!("there is no conversation, only {}", row.shown());
        Ok(Answer::Text(conversation.ok_or_else(missing)?.answer()?))
    }

    fn usual(&self, _: &[String]) -> Usual {
        // Conversations are longer than most texts: fewer at once.
        const RUN: &[(&str, f64)] = &[
            ("epochs", 3.0),
            ("batch_size", 8.0),
            ("max_length", 1024.0),
            ("lr", 5e-3),
            ("weight_decay", 0.0),
            ("max_grad_norm", 1.0),
        ];
        Usual { model: None, metrics: &["perplexity"], run: RUN }
    }

    fn answers(&self) -> Sort {
        Sort::Text
    }

    fn head(&self, _: &TaskSpec) -> Head {
        Head::Language
    }

    fn output<'a>(&self, task: &'a TaskSpec) -> OutputKind<'a> {
        OutputKind::Text(task.generation.clone())
    }

    fn names(&self, _: &TaskSpec) -> [&'static [&'static str]; 2] {
        [&["prediction"], &["predicted_text"]]
    }

    fn processor(&self, with: &ModelContext<'_>) -> Result<Box<dyn Processor>> {
        Ok(Box::new(TextPairs::new(with, Learned::Conversations)?))
    }
}

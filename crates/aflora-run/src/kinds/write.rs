//! A text for a text: the cross entropy of every token to be written.

use super::traits::{ModelContext, Processor, TaskKind};
use crate::feed::row::Row;
use crate::feed::Source;
use crate::metrics::{Answer, Sort};
use crate::run::objective::texts::TextPairs;
use crate::task::TaskSpec;
use aflora_models::merged::OutputKind;
use aflora_models::Head;
use anyhow::Result;

/// The kind `write`.
#[derive(Debug)]
pub(super) struct Write;

impl TaskKind for Write {
    fn asks_for(&self) -> &'static str {
        "asks for text"
    }

    fn keys(&self) -> &'static [&'static str] {
        &["prompt", "train_on_inputs", "max_target_length", "label_smoothing", "generation"]
    }

    fn check(&self, _: &TaskSpec, _: &mut dyn FnMut(&str, String)) {}

    fn inputs(&self) -> &'static [&'static [&'static str]] {
        &[&["input"]]
    }

    fn target(&self) -> &'static str {
        "target"
    }

    fn right(
        &self,
        _: &TaskSpec,
        row: &Row,
        source: &Source,
    ) -> std::result::Result<Answer, String> {
        Ok(Answer::Text(row.text(source.column(self.target()))?))
    }

    fn only_answer(&self, _: &TaskSpec, _: &Answer) -> Option<String> {
        None
    }

    fn answers(&self) -> Sort {
        Sort::Text
    }

    fn head(&self, _: &TaskSpec) -> Head {
        Head::Language
    }

    fn output<'a>(&self, _: &'a TaskSpec) -> OutputKind<'a> {
        OutputKind::Text
    }

    fn names(&self) -> [&'static [&'static str]; 2] {
        [&["prediction"], &["predicted_text"]]
    }

    fn processor(&self, with: &ModelContext<'_>) -> Result<Box<dyn Processor>> {
        Ok(Box::new(TextPairs::new(with)?))
    }
}

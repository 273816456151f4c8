//! A text for a text: the cross entropy of every token to be written.

use super::traits::{ModelContext, Processor, TaskKind, Usual};
use crate::feed::row::Row;
use crate::feed::Source;
use crate::metrics::{Answer, Sort};
use crate::run::objective::texts::{Learned, TextPairs};
use crate::task::TaskSpec;
use aflora_models::generate::FOR_SAMPLING;
use aflora_models::merged::OutputKind;
use aflora_models::Head;
use anyhow::Result;

/// The kind `write`.
#[derive(Debug)]
pub(super) struct Write;

/// Tells which settings for drawing tokens have no say, because none are drawn.
pub(super) fn check_generation(task: &TaskSpec, tell: &mut dyn FnMut(&str, String)) {
    let generation = serde_json::to_value(&task.generation).unwrap_or_default();
    let idle = FOR_SAMPLING.into_iter().filter(|key| !generation[key].is_null());
    for key in idle.filter(|_| task.generation.do_sample != Some(true)) {
        let words = "counts where tokens are drawn alone: set `generation.do_sample: true`";
        tell(&format!("generation.{key}"), format!("`generation.{key}` {words}"));
    }
}

impl TaskKind for Write {
    fn asks_for(&self) -> &'static str {
        "asks for text"
    }

    fn keys(&self) -> &'static [&'static str] {
        &[
            "prompt",
            "train_on_inputs",
            "packing",
            "max_target_length",
            "label_smoothing",
            "generation",
        ]
    }

    fn check(&self, task: &TaskSpec, tell: &mut dyn FnMut(&str, String)) {
        check_generation(task, tell);
    }

    fn inputs(&self) -> &'static [&'static [&'static str]] {
        &[&["input"]]
    }

    fn target(&self, _: &TaskSpec) -> Option<&'static str> {
        Some("target")
    }

    fn right(
        &self,
        _: &TaskSpec,
        row: &Row,
        source: &Source,
    ) -> std::result::Result<Answer, String> {
        Ok(Answer::Text(row.text(source.column("target"))?))
    }

    fn usual(&self, _: &[String]) -> Usual {
        Usual::of_texts(&["exact_match", "rougeL"])
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
        Ok(Box::new(TextPairs::new(with, Learned::Pairs)?))
    }
}

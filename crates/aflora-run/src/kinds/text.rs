//! Plain texts, for a decoder to go on writing like them: the cross entropy of every token. Long
//! texts are cut into pieces of `max_length` tokens, short ones packed together.

use super::traits::{ModelContext, Processor, TaskKind, Usual};
use crate::feed::row::Row;
use crate::feed::Source;
use crate::metrics::{Answer, Sort};
use crate::run::objective::texts::{Learned, TextPairs};
use crate::task::TaskSpec;
use aflora_models::merged::OutputKind;
use aflora_models::Head;
use anyhow::Result;

/// The kind `text`.
#[derive(Debug)]
pub(super) struct Text;

impl TaskKind for Text {
    fn asks_for(&self) -> &'static str {
        "asks for the likelihood of texts"
    }

    fn keys(&self) -> &'static [&'static str] {
        &["label_smoothing", "generation"]
    }

    fn check(&self, task: &TaskSpec, tell: &mut dyn FnMut(&str, String)) {
        for metric in task.metrics.iter().filter(|metric| !metric.is_of_loss()) {
            let name = metric.name();
            if metric.judges() == Sort::Text {
                let words =
                    format!("`{name}` compares texts, but the task has none to compare with");
                tell("metrics", words);
            }
        }
    }

    fn inputs(&self) -> &'static [&'static [&'static str]] {
        &[&["text"]]
    }

    fn target(&self, _: &TaskSpec) -> Option<&'static str> {
        None
    }

    fn right(&self, _: &TaskSpec, _: &Row, _: &Source) -> std::result::Result<Answer, String> {
        Ok(Answer::Text(String::new()))
    }

    fn cuts_long_rows(&self) -> bool {
        false
    }

    fn usual(&self, _: &[String]) -> Usual {
        Usual::of_texts(&["perplexity"])
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

    /// What the model writes behind a text.
    fn names(&self, _: &TaskSpec) -> [&'static [&'static str]; 2] {
        [&["prediction"], &["predicted_text"]]
    }

    fn processor(&self, with: &ModelContext<'_>) -> Result<Box<dyn Processor>> {
        Ok(Box::new(TextPairs::new(with, Learned::Documents)?))
    }
}

//! How good answers are: by the task's metrics, and whether they are any better than a guess.

use crate::metrics::{Answers, Value};
use crate::run::chance;
use crate::task::TaskSpec;

/// What a split's answers are worth.
#[derive(Debug)]
pub(super) struct Judged {
    /// The task's metrics by their names.
    pub metrics: Vec<(&'static str, Value)>,
    /// Why the answers are no better than a guess, where they are not.
    pub doubt: Option<String>,
}

/// Judges the answers to a split's rows.
pub(super) fn judge(task: &TaskSpec, answers: &Answers, right: &Answers) -> Judged {
    let metrics = task.metrics.iter();
    let metrics: Vec<_> = metrics.map(|m| (m.name(), m.judge(answers, right))).collect();
    let doubt = match (answers, right) {
        (Answers::Classes(answers), Answers::Classes(right)) => {
            let labels: Vec<&str> = task.labels.iter().map(|label| label.as_str()).collect();
            chance::of_classes(&labels, answers, right)
        }
        (Answers::Scores(answers), Answers::Scores(right)) => chance::of_scores(answers, right),
        (Answers::Texts(texts), _) => {
            let deciding =
                metrics.first().and_then(|(name, of)| Some((*name, of.rows.as_deref()?)));
            chance::of_texts(texts, deciding)
        }
        _ => None,
    };
    Judged { metrics, doubt }
}

//! How good answers are: by the task's metrics, class by class, and whether they are any better than
//! a guess.

use crate::metrics::{Answers, Judgement, Value};
use crate::run::chance;
use crate::task::TaskSpec;
use aflora_record::{ByClass, Selection};

/// What a split's answers are worth.
#[derive(Debug)]
pub(super) struct Judged {
    /// The task's metrics by their names, in its order.
    pub metrics: Vec<(&'static str, Value)>,
    /// The answers class by class, where there are classes.
    pub by_class: Option<ByClass>,
    /// Why the answers are no better than a guess, where they are not.
    pub doubt: Option<String>,
}

/// Judges the answers to the rows of `split`.
pub(super) fn judge(task: &TaskSpec, split: &str, given: &Judgement) -> Judged {
    let metrics = task.metrics.iter();
    let metrics: Vec<_> = metrics.map(|m| (m.name(), m.judge(given))).collect();
    let (mut by_class, mut doubt) = (None, None);
    match (given.answers, given.right) {
        (Answers::Classes(answers), Answers::Classes(right)) => {
            by_class = Some(ByClass::of_classes(split, &task.class_names(), answers, right));
            let labels: Vec<&str> = task.labels.iter().map(|label| label.as_str()).collect();
            doubt = chance::of_classes(&labels, answers, right);
        }
        (Answers::Scores(answers), Answers::Scores(right)) => {
            doubt = chance::of_scores(answers, right);
        }
        (Answers::Texts(texts), _) => {
            let deciding =
                metrics.first().and_then(|(name, of)| Some((*name, of.rows.as_deref()?)));
            doubt = chance::of_texts(texts, deciding);
        }
        _ => {}
    }
    Judged { metrics, by_class, doubt }
}

/// What decides which evaluation of a task is best: its first metric on its first split. `name` is
/// what a metric is called on a split.
pub(super) fn selection(
    task: &TaskSpec,
    splits: &[&str],
    name: impl Fn(&str, &str) -> String,
) -> Selection {
    let first = task.metrics.first().zip(splits.first());
    let lower = task.metrics.iter().filter(|metric| metric.is_lower_better());
    let on_splits = |metric| splits.iter().map(move |split| (metric, split));
    Selection {
        metric: first.map_or(String::new(), |(metric, split)| name(metric.name(), split)),
        lower_is_better: lower
            .flat_map(on_splits)
            .map(|(metric, split)| name(metric.name(), split))
            .collect(),
    }
}

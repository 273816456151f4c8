//! How good answers are: by the task's metrics, class by class, and whether they are any better than
//! a guess.

use crate::metrics::{by_type, of_each, Answers, Judgement, Metric, Sort, Value};
use crate::run::chance;
use crate::task::TaskSpec;
use aflora_record::{ByClass, Selection};

/// What a split's answers are worth.
#[derive(Debug)]
pub(super) struct Judged {
    /// The task's metrics by their names, in its order.
    pub metrics: Vec<(String, Value)>,
    /// The answers class by class, where there are classes; entities by their types.
    pub by_class: Option<ByClass>,
    /// Why the answers are no better than a guess, where they are not.
    pub doubt: Option<String>,
}

/// Judges the answers to the rows of `split`.
pub(super) fn judge(task: &TaskSpec, split: &str, given: &Judgement) -> Judged {
    let metrics = task.metrics.iter().flat_map(|metric| match given.answers {
        Answers::SeveralScores(_) => of_columns(*metric, task, given),
        _ => vec![(metric.name().to_string(), metric.judge(given))],
    });
    let metrics: Vec<_> = metrics.collect();
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
        (Answers::Sets(answers), Answers::Sets(right)) => {
            let counts = of_each(answers, right);
            by_class = Some(ByClass::of_counts(split, &task.class_names(), counts));
            doubt = chance::of_sets(answers, right);
        }
        (Answers::SeveralScores(_), _) => {
            let of = |(i, name): (usize, &str)| {
                let (answers, right) = (given.answers.column(i), given.right.column(i));
                let (Answers::Scores(answers), Answers::Scores(right)) = (answers, right) else {
                    return None;
                };
                Some(format!("{name}: {}", chance::of_scores(&answers, &right)?))
            };
            let doubts: Vec<String> =
                task.class_names().into_iter().enumerate().filter_map(of).collect();
            doubt = (!doubts.is_empty()).then(|| doubts.join("; "));
        }
        (Answers::Tags(answers), Answers::Tags(right)) => {
            let (types, counts): (Vec<String>, Vec<_>) =
                by_type(answers, right).into_iter().unzip();
            let types: Vec<&str> = types.iter().map(String::as_str).collect();
            by_class = (!types.is_empty()).then(|| ByClass::of_counts(split, &types, counts));
            doubt = chance::of_tags(answers, right);
        }
        (Answers::Texts(texts), _) => {
            let deciding =
                metrics.first().and_then(|(name, of)| Some((name.as_str(), of.rows.as_deref()?)));
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
    // What a metric is called of all answers; where they are several scores, also of each.
    let called = |metric: &Metric| {
        let columns = task.class_names().into_iter().filter(|_| metric.judges() == Sort::Score);
        let columns = columns.map(|column| of_column(metric.name(), column));
        std::iter::once(metric.name().to_string()).chain(columns).collect::<Vec<_>>()
    };
    let lower = task.metrics.iter().filter(|metric| metric.is_lower_better()).flat_map(called);
    let on_splits = |metric: String| splits.iter().map(move |split| (metric.clone(), split));
    Selection {
        metric: first.map_or(String::new(), |(metric, split)| name(metric.name(), split)),
        lower_is_better: lower
            .flat_map(on_splits)
            .map(|(metric, split)| name(&metric, split))
            .collect(),
    }
}

/// A metric of several scores a row: its mean over them, undefined where one is; then of each
/// alone, called as [`of_column`] says.
fn of_columns(metric: Metric, task: &TaskSpec, given: &Judgement) -> Vec<(String, Value)> {
    let each = task.class_names().into_iter().enumerate().map(|(i, column)| {
        let (answers, right) = (given.answers.column(i), given.right.column(i));
        let value = metric.judge(&Judgement::of(&answers, &right));
        (of_column(metric.name(), column), value)
    });
    let each: Vec<(String, Value)> = each.collect();
    let values: Option<Vec<f64>> = each.iter().map(|(_, of)| of.value).collect();
    let value = values.map(|values| values.iter().sum::<f64>() / values.len() as f64);
    let mean = (metric.name().to_string(), Value { value, rows: None });
    std::iter::once(mean).chain(each).collect()
}

/// What a metric is called of one of several scores.
fn of_column(metric: &str, column: &str) -> String {
    format!("{metric}_{column}")
}

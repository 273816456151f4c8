//! A number for a text or a pair of texts, by squared error; or several, of which `labels` names the
//! columns.

use super::classify::check_labels;
use super::traits::{ModelContext, Processor, TaskKind, Usual};
use crate::feed::row::Row;
use crate::feed::{short, Source};
use crate::metrics::{Answer, Sort};
use crate::run::objective::labeller::{Labeller, Labelling, Rows};
use crate::task::{Label, TaskSpec};
use aflora_models::merged::OutputKind;
use aflora_models::Head;
use anyhow::Result;
use serde_json::{Map, Value};
use std::cmp::Ordering;
use tch::{Device, Kind, Reduction, Tensor};

/// The kind `score`.
#[derive(Debug)]
pub(super) struct Score;

impl TaskKind for Score {
    fn asks_for(&self) -> &'static str {
        "asks for a score"
    }

    fn keys(&self) -> &'static [&'static str] {
        &["range", "labels", "label_names"]
    }

    fn check(&self, task: &TaskSpec, tell: &mut dyn FnMut(&str, String)) {
        if !task.labels.is_empty() {
            check_labels(task, 1, tell);
        }
        if let Some([low, high]) =
            task.range.filter(|[low, high]| low.partial_cmp(high) != Some(Ordering::Less))
        {
            tell("range", format!("`range` is {low} to {high}, but must rise"));
        }
    }

    fn inputs(&self) -> &'static [&'static [&'static str]] {
        &[&["text"], &["text_a", "text_b"]]
    }

    fn target(&self, task: &TaskSpec) -> Option<&'static str> {
        task.labels.is_empty().then_some("label")
    }

    /// A column for each of several scores.
    fn further<'a>(&self, task: &'a TaskSpec) -> Vec<&'a str> {
        task.labels.iter().map(Label::as_str).collect()
    }

    fn right(
        &self,
        task: &TaskSpec,
        row: &Row,
        source: &Source,
    ) -> std::result::Result<Answer, String> {
        let of = |role: &str| score(task, &row.label(source.column(role))?);
        Ok(match task.labels.is_empty() {
            true => Answer::Score(of("label")?),
            false => {
                let scores = task.labels.iter().map(|label| of(label.as_str()));
                Answer::Scores(scores.collect::<std::result::Result<_, _>>()?)
            }
        })
    }

    fn only_answer(&self, _: &TaskSpec, right: &Answer) -> Option<String> {
        match right {
            Answer::Score(score) => Some(score.to_string()),
            Answer::Scores(scores) => Some(format!("{scores:?}")),
            _ => None,
        }
    }

    fn usual(&self, _: &[String]) -> Usual {
        Usual::of_labels(&["pearson", "spearman", "mse"])
    }

    fn answers(&self) -> Sort {
        Sort::Score
    }

    fn head(&self, task: &TaskSpec) -> Head {
        Head::Scores(task.labels.len().max(1) as i64)
    }

    fn output<'a>(&self, task: &'a TaskSpec) -> OutputKind<'a> {
        match task.labels.is_empty() {
            // As transformers calls the one label of a regression.
            true => OutputKind::Scores(vec!["LABEL_0"]),
            false => OutputKind::Scores(task.class_names()),
        }
    }

    fn names(&self, task: &TaskSpec) -> [&'static [&'static str]; 2] {
        match task.labels.is_empty() {
            true => [&["score"], &["predicted_score"]],
            false => [&["scores"], &["predicted_scores"]],
        }
    }

    fn processor(&self, with: &ModelContext<'_>) -> Result<Box<dyn Processor>> {
        Ok(Box::new(Labeller::new(&Score, with)?))
    }
}

impl Labelling for Score {
    /// The squared error, of several scores the mean of theirs.
    fn loss(
        &self,
        task: &TaskSpec,
        logits: &Tensor,
        labels: &Tensor,
        _: Option<&Tensor>,
    ) -> Result<Tensor> {
        Ok(match task.labels.is_empty() {
            true => logits.f_squeeze_dim(1)?.f_mse_loss(labels, Reduction::Sum)?,
            false => logits.f_mse_loss(labels, Reduction::Sum)? / logits.size()[1],
        })
    }

    fn answers(&self, task: &TaskSpec, _: Rows<'_>, logits: &Tensor) -> Result<Vec<Answer>> {
        let answer = |mut scores: Vec<f64>| match task.labels.is_empty() {
            true => Answer::Score(scores.remove(0)),
            false => Answer::Scores(scores),
        };
        Ok(scores(logits)?.into_iter().map(answer).collect())
    }

    fn shown(
        &self,
        task: &TaskSpec,
        _: Rows<'_>,
        _: &[&[String]],
        logits: &Tensor,
    ) -> Result<Vec<Vec<Value>>> {
        let names = task.class_names();
        let row = |scores: Vec<f64>| match names.is_empty() {
            true => scores.into_iter().map(Value::from).collect(),
            false => {
                let by_name = names.iter().zip(scores).map(|(n, s)| (n.to_string(), s.into()));
                vec![by_name.collect::<Map<String, Value>>().into()]
            }
        };
        Ok(scores(logits)?.into_iter().map(row).collect())
    }
}

/// The scores of each row.
fn scores(logits: &Tensor) -> Result<Vec<Vec<f64>>> {
    Ok(Vec::try_from(logits.to_kind(Kind::Double).to_device(Device::Cpu))?)
}

fn score(task: &TaskSpec, text: &str) -> std::result::Result<f64, String> {
    let score = text.parse::<f64>().ok().filter(|score| score.is_finite());
    match (score, task.range) {
        (Some(score), Some([low, high])) if (low..=high).contains(&score) => Ok(score),
        (Some(score), None) => Ok(score),
        (_, Some([low, high])) => {
            Err(format!("the score is `{}`, but must be between {low} and {high}", short(text)))
        }
        (None, None) => Err(format!("the score is `{}`, but must be a number", short(text))),
    }
}

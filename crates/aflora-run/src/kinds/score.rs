//! A number for a text or a pair of texts, by squared error.

use super::traits::{ModelContext, Processor, TaskKind};
use crate::feed::row::Row;
use crate::feed::{short, Source};
use crate::metrics::{Answer, Sort};
use crate::run::objective::labeller::{Labeller, Labelling};
use crate::task::TaskSpec;
use aflora_models::merged::OutputKind;
use aflora_models::Head;
use anyhow::Result;
use serde_json::Value;
use std::cmp::Ordering;
use tch::{Kind, Reduction, Tensor};

/// The kind `score`.
#[derive(Debug)]
pub(super) struct Score;

impl TaskKind for Score {
    fn asks_for(&self) -> &'static str {
        "asks for a score"
    }

    fn keys(&self) -> &'static [&'static str] {
        &["range"]
    }

    fn check(&self, task: &TaskSpec, tell: &mut dyn FnMut(&str, String)) {
        if let Some([low, high]) =
            task.range.filter(|[low, high]| low.partial_cmp(high) != Some(Ordering::Less))
        {
            tell("range", format!("`range` is {low} to {high}, but must rise"));
        }
    }

    fn inputs(&self) -> &'static [&'static [&'static str]] {
        &[&["text"], &["text_a", "text_b"]]
    }

    fn target(&self) -> &'static str {
        "label"
    }

    fn right(
        &self,
        task: &TaskSpec,
        row: &Row,
        source: &Source,
    ) -> std::result::Result<Answer, String> {
        Ok(Answer::Score(score(task, &row.label(source.column(self.target()))?)?))
    }

    fn only_answer(&self, _: &TaskSpec, right: &Answer) -> Option<String> {
        let Answer::Score(score) = right else { return None };
        Some(score.to_string())
    }

    fn answers(&self) -> Sort {
        Sort::Score
    }

    fn head(&self, _: &TaskSpec) -> Head {
        Head::Scores(1)
    }

    fn output<'a>(&self, _: &'a TaskSpec) -> OutputKind<'a> {
        OutputKind::Scores(1)
    }

    fn names(&self) -> [&'static [&'static str]; 2] {
        [&["score"], &["predicted_score"]]
    }

    fn processor(&self, with: &ModelContext<'_>) -> Result<Box<dyn Processor>> {
        Ok(Box::new(Labeller::new(&Score, with)?))
    }
}

impl Labelling for Score {
    fn loss(
        &self,
        _: &TaskSpec,
        logits: &Tensor,
        labels: &Tensor,
        _: Option<&Tensor>,
    ) -> Result<Tensor> {
        Ok(logits.f_squeeze_dim(1)?.f_mse_loss(labels, Reduction::Sum)?)
    }

    fn answers(&self, logits: &Tensor) -> Result<Vec<Answer>> {
        Ok(scores(logits)?.into_iter().map(Answer::Score).collect())
    }

    fn shown(&self, _: &TaskSpec, logits: &Tensor) -> Result<Vec<Vec<Value>>> {
        Ok(scores(logits)?.into_iter().map(|score| vec![score.into()]).collect())
    }
}

fn scores(logits: &Tensor) -> Result<Vec<f64>> {
    Ok(Vec::try_from(logits.f_squeeze_dim(1)?.to_kind(Kind::Double))?)
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

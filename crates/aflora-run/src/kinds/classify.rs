//! One of several classes for a text or a pair of texts: the softmax of a logit each, by cross
//! entropy.

use super::traits::{ModelContext, Processor, TaskKind};
use crate::feed::row::Row;
use crate::feed::{short, Source};
use crate::metrics::{Answer, Sort};
use crate::run::objective::labeller::{Labeller, Labelling};
use crate::task::{Label, TaskSpec};
use aflora_models::merged::OutputKind;
use aflora_models::Head;
use anyhow::Result;
use serde_json::{json, Map, Value};
use tch::{Device, Kind, Reduction, Tensor};

/// The kind `classify`.
#[derive(Debug)]
pub(super) struct Classify;

impl TaskKind for Classify {
    fn asks_for(&self) -> &'static str {
        "asks for labels"
    }

    fn keys(&self) -> &'static [&'static str] {
        &["labels", "label_names"]
    }

    fn check(&self, task: &TaskSpec, tell: &mut dyn FnMut(&str, String)) {
        check_labels(task, 2, tell);
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
        let label = row.label(source.column(self.target()))?;
        Ok(Answer::Class(match source.numbered_labels {
            true => by_number(task, &label)?,
            false => by_name(task, &label)?,
        }))
    }

    fn only_answer(&self, task: &TaskSpec, right: &Answer) -> Option<String> {
        let Answer::Class(class) = right else { return None };
        Some(task.label(*class).to_string())
    }

    fn answers(&self) -> Sort {
        Sort::Class
    }

    fn head(&self, task: &TaskSpec) -> Head {
        Head::Classes(task.labels.len() as i64)
    }

    fn output<'a>(&self, task: &'a TaskSpec) -> OutputKind<'a> {
        OutputKind::Classes(task.class_names())
    }

    fn names(&self) -> [&'static [&'static str]; 2] {
        [&["label", "scores"], &["predicted_label", "predicted_scores"]]
    }

    fn processor(&self, with: &ModelContext<'_>) -> Result<Box<dyn Processor>> {
        Ok(Box::new(Labeller::new(&Classify, with)?))
    }
}

impl Labelling for Classify {
    fn loss(&self, _: &TaskSpec, logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
        Ok(logits.f_cross_entropy_loss(labels, None::<&Tensor>, Reduction::Sum, -100, 0.0)?)
    }

    fn answers(&self, logits: &Tensor) -> Result<Vec<Answer>> {
        let classes = logits.f_argmax(1, false)?;
        Ok(Vec::try_from(classes)?.into_iter().map(Answer::Class).collect())
    }

    fn probabilities(&self, logits: &Tensor) -> Result<Vec<Vec<f64>>> {
        let shares = logits.f_softmax(1, Kind::Float)?.to_kind(Kind::Double);
        Ok(Vec::try_from(shares.to_device(Device::Cpu))?)
    }

    /// The class's name, and the probability of each class.
    fn shown(&self, task: &TaskSpec, logits: &Tensor) -> Result<Vec<Vec<Value>>> {
        let names = task.class_names();
        let shares = self.probabilities(logits)?;
        let classes = Vec::<i64>::try_from(logits.f_argmax(1, false)?)?;
        let row = |(class, shares): (i64, Vec<f64>)| {
            let name = usize::try_from(class).ok().and_then(|i| names.get(i));
            let by_name = names.iter().zip(shares).map(|(n, s)| (n.to_string(), s.into()));
            vec![json!(name), by_name.collect::<Map<String, Value>>().into()]
        };
        Ok(classes.into_iter().zip(shares).map(row).collect())
    }
}

/// Tells what is wrong with the labels of a task that has at least so many.
fn check_labels(task: &TaskSpec, least: usize, tell: &mut dyn FnMut(&str, String)) {
    if task.labels.len() < least {
        let n = task.labels.len();
        tell("labels", format!("`labels` has {n} classes, but must have at least two"));
    }
    let names = task.class_names();
    let twice = |names: &[&str]| {
        let again = |(i, name): &(usize, &&str)| names[..*i].contains(*name);
        names.iter().enumerate().find(again).map(|(_, name)| name.to_string())
    };
    let own: Vec<&str> = task.labels.iter().map(Label::as_str).collect();
    for (key, names) in [("labels", &own), ("label_names", &names)] {
        if let Some(name) = twice(names) {
            tell(key, format!("`{key}` has `{name}` twice"));
        }
    }
    if names.len() != own.len() {
        let (n, all) = (names.len(), own.len());
        tell("label_names", format!("`label_names` has {n} names for {all} labels"));
    }
}

/// A class by the value that the task's own files have for it.
fn by_name(task: &TaskSpec, text: &str) -> std::result::Result<i64, String> {
    match task.class_of(text) {
        Some(class) => Ok(class as i64),
        None => {
            Err(format!("the label is `{}`, but must be one of {:?}", short(text), task.labels))
        }
    }
}

/// A class by its number.
fn by_number(task: &TaskSpec, text: &str) -> std::result::Result<i64, String> {
    let last = task.labels.len().saturating_sub(1);
    let number = text.parse::<f64>().ok().filter(|n| n.fract() == 0.0);
    match number.filter(|n| (0.0..=last as f64).contains(n)) {
        Some(class) => Ok(class as i64),
        None => Err(format!("the label is {}, but must be 0 to {last}", short(text))),
    }
}

//! Any of several labels for a text or a pair of texts: a logit each, whose sigmoid is its
//! probability, by binary cross entropy. Rows have them in one column, or a column of 0 and 1 for
//! each.

use super::classify::{check_labels, class};
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
use tch::{Device, Kind, Reduction, Tensor};

/// The kind `multilabel`.
#[derive(Debug)]
pub(super) struct Multilabel;

impl TaskKind for Multilabel {
    fn asks_for(&self) -> &'static str {
        "asks for any of several labels"
    }

    fn keys(&self) -> &'static [&'static str] {
        &["labels", "label_names", "label_separator", "labels_in_columns", "threshold"]
    }

    fn check(&self, task: &TaskSpec, tell: &mut dyn FnMut(&str, String)) {
        check_labels(task, 1, tell);
        let separator = task.label_separator;
        let is_within = |label: &&crate::task::Label| label.as_str().contains(separator);
        if let Some(label) = task.labels.iter().find(is_within).filter(|_| !task.labels_in_columns)
        {
            tell(
                "label_separator",
                format!("`label_separator` is {separator:?}, which the label {label:?} holds"),
            );
        }
    }

    fn inputs(&self) -> &'static [&'static [&'static str]] {
        &[&["text"], &["text_a", "text_b"]]
    }

    fn target(&self, task: &TaskSpec) -> Option<&'static str> {
        (!task.labels_in_columns).then_some("label")
    }

    /// A column for each label.
    fn further<'a>(&self, task: &'a TaskSpec) -> Vec<&'a str> {
        let labels = task.labels.iter().filter(|_| task.labels_in_columns);
        labels.map(Label::as_str).collect()
    }

    /// Of a list, or of a text with `label_separator` between the labels; an empty one has none. Or of
    /// a column for each label.
    fn right(
        &self,
        task: &TaskSpec,
        row: &Row,
        source: &Source,
    ) -> std::result::Result<Answer, String> {
        if task.labels_in_columns {
            let is = |label: &Label| {
                let column = source.column(label.as_str());
                let text = row.label(column)?;
                truth(&text)
                    .ok_or_else(|| format!("`{column}` is `{}`, but must be 0 or 1", short(&text)))
            };
            return task
                .labels
                .iter()
                .map(is)
                .collect::<std::result::Result<_, _>>()
                .map(Answer::Set);
        }
        let mut set = vec![false; task.labels.len()];
        for label in row.list(source.column("label"), task.label_separator)? {
            let class = class(task, &label, source.numbered_labels)?;
            set[class as usize] = true;
        }
        Ok(Answer::Set(set))
    }

    fn only_answer(&self, task: &TaskSpec, right: &Answer) -> Option<String> {
        let Answer::Set(set) = right else { return None };
        let labels = task.labels.iter().zip(set).filter(|(_, is)| **is);
        Some(format!("{:?}", labels.map(|(label, _)| label.as_str()).collect::<Vec<_>>()))
    }

    fn usual(&self, _: &[String]) -> Usual {
        Usual::of_labels(&["multilabel_f1_micro", "multilabel_f1_macro"])
    }

    fn answers(&self) -> Sort {
        Sort::Set
    }

    fn head(&self, task: &TaskSpec) -> Head {
        Head::Classes(task.labels.len() as i64)
    }

    fn output<'a>(&self, task: &'a TaskSpec) -> OutputKind<'a> {
        OutputKind::Multilabel(task.class_names())
    }

    fn names(&self, _: &TaskSpec) -> [&'static [&'static str]; 2] {
        [&["labels", "scores"], &["predicted_labels", "predicted_scores"]]
    }

    fn processor(&self, with: &ModelContext<'_>) -> Result<Box<dyn Processor>> {
        Ok(Box::new(Labeller::new(&Multilabel, with)?))
    }
}

impl Labelling for Multilabel {
    /// The mean over the labels.
    fn loss(
        &self,
        _: &TaskSpec,
        logits: &Tensor,
        labels: &Tensor,
        _: Option<&Tensor>,
    ) -> Result<Tensor> {
        let none = None::<&Tensor>;
        let sum = logits.f_binary_cross_entropy_with_logits(labels, none, none, Reduction::Sum)?;
        Ok(sum / logits.size()[1])
    }

    fn answers(&self, task: &TaskSpec, _: Rows<'_>, logits: &Tensor) -> Result<Vec<Answer>> {
        let set = |shares: Vec<f64>| shares.iter().map(|share| *share >= task.threshold).collect();
        Ok(probabilities(logits)?.into_iter().map(|shares| Answer::Set(set(shares))).collect())
    }

    /// The names of the labels, and the probability of each.
    fn shown(
        &self,
        task: &TaskSpec,
        _: Rows<'_>,
        _: &[&[String]],
        logits: &Tensor,
    ) -> Result<Vec<Vec<Value>>> {
        let names = task.class_names();
        let row = |shares: Vec<f64>| {
            let found = names.iter().zip(&shares).filter(|(_, share)| **share >= task.threshold);
            let found: Vec<&str> = found.map(|(name, _)| *name).collect();
            let by_name = names.iter().zip(shares).map(|(n, s)| (n.to_string(), s.into()));
            vec![found.into(), by_name.collect::<Map<String, Value>>().into()]
        };
        Ok(probabilities(logits)?.into_iter().map(row).collect())
    }
}

/// Whether a label is one of the row's, as its column says it.
pub(crate) fn truth(text: &str) -> Option<bool> {
    match text.parse::<f64>() {
        Ok(number) => (number == 0.0 || number == 1.0).then_some(number == 1.0),
        Err(_) => text.to_ascii_lowercase().parse().ok(),
    }
}

/// The probability of each label, of each row.
fn probabilities(logits: &Tensor) -> Result<Vec<Vec<f64>>> {
    let shares = logits.f_sigmoid()?.to_kind(Kind::Double);
    Ok(Vec::try_from(shares.to_device(Device::Cpu))?)
}

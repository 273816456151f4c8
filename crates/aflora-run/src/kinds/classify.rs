//! One of several classes for a text or a pair of texts: the softmax of a logit each, by cross
//! entropy.

use super::traits::{ModelContext, Processor, TaskKind, Usual};
use crate::config::problem::nearest;
use crate::feed::row::Row;
use crate::feed::{short, Source};
use crate::metrics::{Answer, Answers, Sort};
use crate::run::objective::labeller::{Labeller, Labelling, Rows};
use crate::task::{ClassWeights, Label, TaskSpec};
use crate::usage;
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
        &["labels", "label_names", "label_smoothing", "class_weights"]
    }

    fn check(&self, task: &TaskSpec, tell: &mut dyn FnMut(&str, String)) {
        check_labels(task, 2, tell);
        if let Some(ClassWeights::Each(weights)) = &task.class_weights {
            let (n, all) = (weights.len(), task.labels.len());
            if n != all {
                tell("class_weights", format!("`class_weights` has {n} weights for {all} labels"));
            }
            if let Some(odd) = weights.iter().find(|w| !(w.is_finite() && **w > 0.0)) {
                tell("class_weights", format!("`class_weights` holds {odd}, but must be positive"));
            }
        }
    }

    fn inputs(&self) -> &'static [&'static [&'static str]] {
        &[&["text"], &["text_a", "text_b"]]
    }

    fn target(&self, _: &TaskSpec) -> Option<&'static str> {
        Some("label")
    }

    fn right(
        &self,
        task: &TaskSpec,
        row: &Row,
        source: &Source,
    ) -> std::result::Result<Answer, String> {
        let label = row.label(source.column("label"))?;
        Ok(Answer::Class(class(task, &label, source.numbered_labels)?))
    }

    fn only_answer(&self, task: &TaskSpec, right: &Answer) -> Option<String> {
        let Answer::Class(class) = right else { return None };
        Some(task.label(*class).to_string())
    }

    fn usual(&self, _: &[String]) -> Usual {
        Usual::of_labels(&["accuracy", "matthews"])
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

    fn names(&self, _: &TaskSpec) -> [&'static [&'static str]; 2] {
        [&["label", "scores"], &["predicted_label", "predicted_scores"]]
    }

    fn processor(&self, with: &ModelContext<'_>) -> Result<Box<dyn Processor>> {
        Ok(Box::new(Labeller::new(&Classify, with)?))
    }
}

impl Labelling for Classify {
    /// Cross entropy. Divided by what the rows weigh, it is torch's mean with these weights and this
    /// smoothing.
    fn loss(
        &self,
        task: &TaskSpec,
        logits: &Tensor,
        labels: &Tensor,
        weights: Option<&Tensor>,
    ) -> Result<Tensor> {
        let smoothing = task.label_smoothing;
        Ok(logits.f_cross_entropy_loss(labels, weights, Reduction::Sum, -100, smoothing)?)
    }

    fn class_weights(&self, task: &TaskSpec, train: &Answers) -> Result<Option<Vec<f64>>> {
        match (&task.class_weights, train) {
            (None, _) => Ok(None),
            (Some(ClassWeights::Each(weights)), _) => Ok(Some(weights.clone())),
            (Some(ClassWeights::Balanced), Answers::Classes(classes)) => {
                balanced(task, classes).map(Some)
            }
            (Some(ClassWeights::Balanced), _) => Ok(None),
        }
    }

    fn answers(&self, _: &TaskSpec, _: Rows<'_>, logits: &Tensor) -> Result<Vec<Answer>> {
        let classes = logits.f_argmax(1, false)?;
        Ok(Vec::try_from(classes)?.into_iter().map(Answer::Class).collect())
    }

    fn probabilities(&self, logits: &Tensor) -> Result<Vec<Vec<f64>>> {
        let shares = logits.f_softmax(1, Kind::Float)?.to_kind(Kind::Double);
        Ok(Vec::try_from(shares.to_device(Device::Cpu))?)
    }

    /// The class's name, and the probability of each class.
    fn shown(
        &self,
        task: &TaskSpec,
        _: Rows<'_>,
        _: &[&[String]],
        logits: &Tensor,
    ) -> Result<Vec<Vec<Value>>> {
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

/// Weights by which every class has as much to say as any other: n rows / (K classes · rows of the
/// class), as scikit-learn's `compute_class_weight` has them.
fn balanced(task: &TaskSpec, classes: &[i64]) -> Result<Vec<f64>> {
    let mut counts = vec![0usize; task.labels.len()];
    for &class in classes {
        counts[class as usize] += 1;
    }
    let weight = |(class, &count): (usize, &usize)| {
        if count == 0 {
            usage!(
                "`class_weights` is balanced, and no training row has the label {:?}: give the \
                 weights as a list, or leave the label out",
                task.label(class as i64)
            );
        }
        Ok(classes.len() as f64 / (counts.len() * count) as f64)
    };
    counts.iter().enumerate().map(weight).collect()
}

/// Tells what is wrong with the labels of a task that has at least so many.
pub(super) fn check_labels(task: &TaskSpec, least: usize, tell: &mut dyn FnMut(&str, String)) {
    if task.labels.len() < least {
        let n = task.labels.len();
        let least = ["none", "one", "two"][least];
        tell("labels", format!("`labels` has {n} classes, but must have at least {least}"));
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

/// The class that a file has as `text`: its number, or the task's own value.
pub(super) fn class(
    task: &TaskSpec,
    text: &str,
    numbered: bool,
) -> std::result::Result<i64, String> {
    match numbered {
        true => by_number(task, text),
        false => by_name(task, text),
    }
}

/// A class by the value that the task's own files have for it.
fn by_name(task: &TaskSpec, text: &str) -> std::result::Result<i64, String> {
    match task.class_of(text) {
        Some(class) => Ok(class as i64),
        None => {
            let known: Vec<&str> = task.labels.iter().map(Label::as_str).collect();
            let meant = nearest(text, &known).map(|near| format!("; did you mean `{near}`?"));
            let meant = meant.unwrap_or_default();
            Err(format!("the label is `{}`, but must be one of {known:?}{meant}", short(text)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_and_smoothing_are_torch_s_and_balance_is_scikit_learn_s() {
        let golden: Value =
            serde_json::from_str(include_str!("../../tests/fixtures/losses.json")).unwrap();
        let numbers = |value: &Value| -> Vec<f64> {
            value.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect()
        };
        let labels: Vec<i64> = numbers(&golden["labels"]).into_iter().map(|n| n as i64).collect();
        let rows = golden["logits"].as_array().unwrap();
        let logits: Vec<f64> = rows.iter().flat_map(numbers).collect();
        let logits = Tensor::from_slice(&logits).to_kind(Kind::Float).view([-1, 3]);
        let task = |smoothing, weights| TaskSpec {
            labels: ["a", "b", "c"].map(Label::from).to_vec(),
            label_smoothing: smoothing,
            class_weights: weights,
            ..TaskSpec::default()
        };
        let right = Answers::Classes(labels.clone());
        for case in golden["cases"].as_array().unwrap() {
            let given = case["weights"].is_array().then(|| numbers(&case["weights"]));
            let task = task(case["smoothing"].as_f64().unwrap(), given.map(ClassWeights::Each));
            let weights = Classify.class_weights(&task, &right).unwrap();
            let tensor = weights.as_ref().map(|w| Tensor::from_slice(w).to_kind(Kind::Float));
            let targets = Tensor::from_slice(&labels);
            let sum = Classify.loss(&task, &logits, &targets, tensor.as_ref()).unwrap();
            let weight = |&label: &i64| weights.as_ref().map_or(1.0, |w| w[label as usize]);
            let mean = sum.double_value(&[]) / labels.iter().map(weight).sum::<f64>();
            assert!((mean - case["loss"].as_f64().unwrap()).abs() < 1e-6, "{case}: {mean}");
        }
        let balanced = task(0.0, Some(ClassWeights::Balanced));
        let found = Classify.class_weights(&balanced, &right).unwrap().unwrap();
        for (found, expected) in found.iter().zip(numbers(&golden["balanced"])) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        let one = Answers::Classes(vec![0, 2]);
        let error = Classify.class_weights(&balanced, &one).unwrap_err().to_string();
        assert!(error.contains("no training row has the label \"b\""), "{error}");
    }
}

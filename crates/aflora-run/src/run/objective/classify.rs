//! Labels for texts: classes by cross entropy, scores by squared error.

use super::{Evaluated, Objective};
use crate::data::{Labels, TaskSpec};
use crate::metrics::Predictions;
use crate::run::batches::{width_for, EncodedSet};
use crate::run::chance;
use crate::run::passes::Passes;
use crate::ui::Progress;
use aflora_core::Loss;
use aflora_models::{AdaptedModel, Batch, Forward};
use anyhow::{bail, Result};
use std::collections::BTreeMap;
use tch::{Device, Kind, Reduction, Tensor};

/// A task that asks for labels.
#[derive(Debug)]
pub struct Classify {
    /// The task.
    pub task: &'static TaskSpec,
    /// Training rows.
    pub train: EncodedSet,
    /// Evaluation rows by split.
    pub evals: Vec<(String, EncodedSet)>,
    /// The token that fills batches up.
    pub pad_id: i64,
    /// What an evaluation takes at once.
    pub passes: Passes,
    /// Tokens to which texts were cut.
    pub max_length: usize,
    /// Where it computes.
    pub device: Device,
}

impl Objective for Classify {
    fn training_batches(&self, size: usize, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
        self.train.training_batches(size, seed, epoch)
    }

    fn longest(&self, n: usize) -> Vec<usize> {
        self.train.longest_first().into_iter().take(n).collect()
    }

    fn batch(&self, rows: &[usize]) -> Vec<Tensor> {
        self.collate(&self.train, rows).into()
    }

    fn items(&self, rows: &[usize]) -> usize {
        rows.len()
    }

    fn loss(&self, model: &AdaptedModel, batch: &[Tensor]) -> Result<Loss> {
        let (batch, labels) = on_device(batch)?;
        let Forward { logits, checkpoints } = model.forward(&batch, true)?;
        Ok(Loss { value: self.loss_of(&logits, &labels)?, checkpoints })
    }

    fn evaluate(&self, model: &AdaptedModel, progress: &mut dyn Progress) -> Result<Evaluated> {
        let mut metrics = BTreeMap::new();
        let mut first_loss = None;
        let mut doubts = Vec::new();
        for (split, set) in &self.evals {
            let (predictions, mean_loss) = self.predict(model, split, set, progress)?;
            first_loss.get_or_insert(mean_loss);
            let guessed = match self.task.labels {
                Labels::Classes(names) => chance::of_classes(names, &predictions),
                Labels::Score(..) => chance::of_scores(&predictions),
            };
            doubts.extend(guessed.map(|words| format!("{split}: {words}")));
            for metric in self.task.metrics {
                metrics.insert(self.name(metric.name(), split), metric.compute(&predictions));
            }
        }
        let loss = first_loss.unwrap_or(f64::NAN);
        Ok(Evaluated { metrics, loss, doubts, predictions: Vec::new() })
    }

    /// The task's first metric, on its first split.
    fn selection(&self) -> String {
        let split = self.evals.first().map_or("", |(name, _)| name);
        self.name(self.task.metrics[0].name(), split)
    }

    fn rows(&self, split: &str) -> usize {
        match split {
            "train" => self.train.labels.len(),
            _ => self.evals.iter().find(|(n, _)| n == split).map_or(0, |(_, e)| e.labels.len()),
        }
    }

    fn tokens(&self) -> usize {
        self.train.tokens()
    }

    fn remarks(&self) -> Vec<String> {
        let cut = self.train.truncated();
        let length = self.max_length;
        let words = format!("{cut} training texts are longer than {length} tokens: cut");
        (cut > 0).then_some(words).into_iter().collect()
    }
}

/// A batch and its labels, of what [`Classify::collate`] made.
fn on_device(tensors: &[Tensor]) -> Result<(Batch, Tensor)> {
    let [ids, mask, types, labels] = tensors else {
        bail!("a batch of texts with labels has four tensors");
    };
    let token_type_ids = Some(types.shallow_clone());
    let batch = Batch::new(ids.shallow_clone(), mask.shallow_clone());
    Ok((Batch { token_type_ids, ..batch }, labels.shallow_clone()))
}

impl Classify {
    /// Token ids, mask, token types and labels of these rows, on the host.
    fn collate(&self, set: &EncodedSet, rows: &[usize]) -> [Tensor; 4] {
        let width = width_for(set.longest(rows), self.max_length, self.device);
        let [ids, mask, types] = set.collate(rows, width, self.pad_id);
        [ids, mask, types, set.labels(rows, self.task.is_regression())]
    }

    /// A metric's name on a split, which only several splits need.
    fn name(&self, metric: &str, split: &str) -> String {
        match self.evals.len() {
            1 => metric.to_string(),
            _ => format!("{metric}_{split}"),
        }
    }

    /// Summed over the rows.
    fn loss_of(&self, logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
        Ok(if self.task.is_regression() {
            logits.f_squeeze_dim(1)?.f_mse_loss(labels, Reduction::Sum)?
        } else {
            logits.f_cross_entropy_loss(labels, None::<&Tensor>, Reduction::Sum, -100, 0.0)?
        })
    }

    /// Predictions in row order and the mean loss.
    fn predict(
        &self,
        model: &AdaptedModel,
        split: &str,
        set: &EncodedSet,
        progress: &mut dyn Progress,
    ) -> Result<(Predictions, f64)> {
        let rows = set.labels.len();
        let mut predicted = vec![0.0; rows];
        let mut total = 0.0;
        let mut done = 0;
        progress.begin(&format!("eval {split}"), rows as u64);
        let _no_grad = tch::no_grad_guard();
        let regression = self.task.is_regression();
        self.passes.each(&set.longest_first(), |batch_rows| {
            let tensors = self.collate(set, batch_rows).map(|t| t.to_device(self.device));
            let (batch, labels) = on_device(&tensors)?;
            let logits = model.forward(&batch, false)?.logits;
            let sum = self.loss_of(&logits, &labels)?.double_value(&[]);
            let answers = if regression { logits.squeeze_dim(1) } else { logits.argmax(1, false) };
            let answers = Vec::<f64>::try_from(answers.to_kind(Kind::Double))?;
            for (&row, answer) in batch_rows.iter().zip(answers) {
                predicted[row] = answer;
            }
            total += sum;
            done += batch_rows.len() as u64;
            progress.update(done, "");
            Ok(())
        })?;
        progress.end();
        let predictions = Predictions { predicted, expected: set.labels.clone() };
        Ok((predictions, total / rows.max(1) as f64))
    }
}

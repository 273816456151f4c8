//! Predictions and metrics on held-out examples.

use super::batches::EncodedSet;
use super::prepare::Prepared;
use super::recorder::Evaluation;
use crate::data::Task;
use crate::metrics::Predictions;
use crate::ui::Progress;
use anyhow::Result;
use std::collections::BTreeMap;
use std::time::Instant;
use tch::{Kind, Reduction, Tensor};

/// Mean loss of logits: cross entropy over classes, squared error for a regression.
pub fn loss(task: Task, logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    Ok(if task.is_regression() {
        logits.f_squeeze_dim(1)?.f_mse_loss(labels, Reduction::Mean)?
    } else {
        logits.cross_entropy_for_logits(labels)
    })
}

/// Evaluates the model on every evaluation split of the task.
pub fn evaluate(
    run: &Prepared,
    step: u64,
    epoch: f64,
    progress: &mut dyn Progress,
) -> Result<Evaluation> {
    let started = Instant::now();
    let mut metrics = BTreeMap::new();
    let mut first_loss = None;
    for (split, set) in &run.evals {
        let (predictions, mean_loss) = predict(run, split, set, progress)?;
        first_loss.get_or_insert(mean_loss);
        let several = run.evals.len() > 1;
        for metric in run.task.metrics() {
            let name = if several {
                format!("{}_{split}", metric.name())
            } else {
                metric.name().to_string()
            };
            metrics.insert(name, metric.compute(&predictions));
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(Evaluation { step, epoch, metrics, loss: first_loss.unwrap_or(f64::NAN), seconds })
}

/// Predictions in row order and the mean loss.
fn predict(
    run: &Prepared,
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
    for batch_rows in set.evaluation_batches(run.config.eval_batch_size) {
        let regression = run.task.is_regression();
        let (batch, labels) = set.collate(&batch_rows, run.pad_id, regression, run.device);
        let logits = run.model.forward(&batch, false)?;
        let mean = loss(run.task, &logits, &labels)?;
        let answers = if regression { logits.squeeze_dim(1) } else { logits.argmax(1, false) };
        let answers = Vec::<f64>::try_from(answers.to_kind(Kind::Double))?;
        for (&row, answer) in batch_rows.iter().zip(answers) {
            predicted[row] = answer;
        }
        total += mean.double_value(&[]) * batch_rows.len() as f64;
        done += batch_rows.len() as u64;
        progress.update(done, "");
    }
    progress.end();
    let predictions = Predictions { predicted, expected: set.labels.clone() };
    Ok((predictions, total / rows.max(1) as f64))
}

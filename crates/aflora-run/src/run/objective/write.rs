//! Texts for texts: the loss of every token to be written, and what the model writes itself.

use super::texts::{on_device, Texts, IDS, LABELS, NONE, PROMPT};
use super::{Evaluated, Objective};
use crate::data::Pair;
use crate::run::batches::shuffled_by_length;
use crate::run::chance;
use crate::run::passes::Passes;
use crate::run::tokens::{Tokens, EMPTY, TRUNCATED};
use crate::ui::Progress;
use aflora_core::Loss;
use aflora_models::{AdaptedModel, Forward};
use anyhow::Result;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Tensor};

/// A task that asks for text.
#[derive(Debug)]
pub struct Write {
    texts: Texts,
    train: Tokens,
    /// Rows of `train` with something to learn; the others' targets are cut off whole.
    used: Vec<usize>,
    eval_split: String,
    eval: Tokens,
    eval_pairs: Vec<Pair>,
    /// What is taken at once for the loss of an evaluation, and to write.
    loss_passes: Passes,
    write_passes: Passes,
    device: Device,
}

impl Write {
    /// The rows of a task as tokens.
    ///
    /// # Errors
    /// A text cannot be encoded, or no training row has a target within the maximum length.
    pub fn new(
        texts: Texts,
        train: &[Pair],
        (eval_split, eval_pairs): (String, Vec<Pair>),
        eval_batch_size: usize,
        device: Device,
        cache: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let train = texts.encode(train, cache, progress)?;
        let used: Vec<usize> = (0..train.rows()).filter(|&row| !train.has(row, EMPTY)).collect();
        if used.is_empty() {
            crate::usage!(
                "of {} training texts, none has its target within max_length={}; raise it",
                train.rows(),
                texts.max_length
            );
        }
        let eval = texts.encode(&eval_pairs, cache, progress)?;
        let [loss_passes, write_passes] = [(), ()].map(|()| Passes::new(eval_batch_size));
        Ok(Write {
            texts,
            train,
            used,
            eval_split,
            eval,
            eval_pairs,
            loss_passes,
            write_passes,
            device,
        })
    }

    /// Tokens of the training rows.
    fn lengths(&self) -> Vec<usize> {
        self.used.iter().map(|&row| self.train.length(row, IDS)).collect()
    }

    /// The sum of the loss over all wanted tokens, and how many there are.
    fn total_loss(&self, model: &AdaptedModel, rows: &[usize]) -> Result<(f64, f64)> {
        let tensors = self.texts.collate(&self.eval, rows, self.device);
        let tensors: Vec<Tensor> = tensors.iter().map(|t| t.to_device(self.device)).collect();
        let (batch, labels) = on_device(&tensors)?;
        let logits = model.forward(&batch, false)?.logits;
        let sum = self.texts.cross_entropy_in_slices(&logits, &labels)?;
        Ok((sum, wanted(&self.eval, rows) as f64))
    }

    /// The mean loss over all tokens to be written.
    fn mean_loss(&self, model: &AdaptedModel, progress: &mut dyn Progress) -> Result<f64> {
        let mut order: Vec<usize> =
            (0..self.eval.rows()).filter(|&row| !self.eval.has(row, EMPTY)).collect();
        order.sort_by_key(|&row| std::cmp::Reverse(self.eval.length(row, IDS)));
        progress.begin(&format!("loss {}", self.eval_split), order.len() as u64);
        let _no_grad = tch::no_grad_guard();
        let vocabulary = usize::try_from(model.backbone().about().vocab_size)?;
        let width = |row: usize| self.eval.length(row, LABELS) * vocabulary;
        let (mut total, mut count, mut done) = (0.0, 0.0, 0);
        self.loss_passes.each_of_size(&order, width, |rows| {
            let (sum, tokens) = self.total_loss(model, rows)?;
            (total, count, done) = (total + sum, count + tokens, done + rows.len());
            progress.update(done as u64, "");
            Ok(())
        })?;
        progress.end();
        Ok(total / count)
    }
}

/// Tokens of these rows that are to be written.
fn wanted(table: &Tokens, rows: &[usize]) -> usize {
    let labels = rows.iter().flat_map(|&row| table.get(row, LABELS));
    labels.filter(|&label| label != NONE).count()
}

impl Objective for Write {
    fn training_batches(&self, size: usize, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
        shuffled_by_length(&self.lengths(), size, seed, epoch)
    }

    fn longest(&self, n: usize) -> Vec<usize> {
        let lengths = self.lengths();
        let mut rows: Vec<usize> = (0..lengths.len()).collect();
        rows.sort_by_key(|&row| std::cmp::Reverse(lengths[row]));
        rows.truncate(n);
        rows
    }

    fn batch(&self, rows: &[usize]) -> Vec<Tensor> {
        let rows: Vec<usize> = rows.iter().map(|&row| self.used[row]).collect();
        self.texts.collate(&self.train, &rows, self.device)
    }

    fn items(&self, rows: &[usize]) -> usize {
        let rows: Vec<usize> = rows.iter().map(|&row| self.used[row]).collect();
        wanted(&self.train, &rows)
    }

    fn loss(&self, model: &AdaptedModel, batch: &[Tensor]) -> Result<Loss> {
        let (batch, labels) = on_device(batch)?;
        let Forward { logits, checkpoints } = model.forward(&batch, true)?;
        Ok(Loss { value: self.texts.cross_entropy(&logits, &labels)?, checkpoints })
    }

    fn evaluate(&self, model: &AdaptedModel, progress: &mut dyn Progress) -> Result<Evaluated> {
        let loss = self.mean_loss(model, progress)?;
        progress.begin(&format!("write {}", self.eval_split), self.eval.rows() as u64);
        let column = self.texts.prompts();
        let prompts = (0..self.eval.rows()).map(|row| self.eval.get(row, column).collect());
        let prompts: Vec<Vec<i64>> = prompts.collect();
        let mut done = |n: usize| progress.update(n as u64, "");
        let written =
            self.texts.write_after(model, &prompts, &self.write_passes, self.device, &mut done)?;
        progress.end();
        let pairs: Vec<(String, String)> =
            written.into_iter().zip(&self.eval_pairs).map(|(w, p)| (w, p.target.clone())).collect();
        let mut metrics = BTreeMap::new();
        let mut by_row: Vec<(&str, Vec<f64>)> = Vec::new();
        for metric in &self.texts.config.metrics {
            metrics.insert(metric.name().to_string(), metric.compute(&pairs));
            by_row.push((metric.name(), metric.scores(&pairs)));
        }
        let mut lines = Vec::new();
        for (row, ((written, target), pair)) in pairs.iter().zip(&self.eval_pairs).enumerate() {
            let mut line = json!({ "input": pair.input, "target": target, "prediction": written });
            for (name, scores) in &by_row {
                line[*name] = scores[row].into();
            }
            serde_json::to_writer(&mut lines, &line)?;
            lines.push(b'\n');
        }
        let predictions = vec![(self.eval_split.clone(), lines)];
        let written: Vec<&str> = pairs.iter().map(|(written, _)| written.as_str()).collect();
        let deciding = by_row.first().map(|(name, scores)| (*name, &scores[..]));
        let guessed = chance::of_texts(&written, deciding);
        let doubts = guessed.map(|words| format!("{}: {words}", self.eval_split));
        Ok(Evaluated { metrics, loss, doubts: doubts.into_iter().collect(), predictions })
    }

    fn selection(&self) -> String {
        self.texts.config.metrics.first().map_or(String::new(), |m| m.name().to_string())
    }

    fn rows(&self, split: &str) -> usize {
        match split {
            "train" => self.used.len(),
            _ => self.eval.rows(),
        }
    }

    fn tokens(&self) -> usize {
        self.lengths().iter().sum()
    }

    fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        let cut = self.used.iter().filter(|&&row| self.train.has(row, TRUNCATED)).count();
        if cut > 0 {
            let length = self.texts.max_length;
            remarks.push(match self.texts.tokens.decoder_start {
                None => format!("{cut} training texts are longer than {length} tokens: cut"),
                Some(_) => format!(
                    "{cut} training texts are longer than {length} tokens, or their targets than {}: cut",
                    self.texts.config.max_target_length
                ),
            });
        }
        let dropped = self.train.rows() - self.used.len();
        if dropped > 0 {
            remarks.push(format!(
                "{dropped} training texts have their whole target behind the cut: left out"
            ));
        }
        let full = |&row: &usize| self.eval.length(row, PROMPT) == self.texts.longest_prompt;
        let full = (0..self.eval.rows()).filter(full).count();
        if full > 0 && self.texts.tokens.decoder_start.is_none() {
            remarks.push(format!(
                "{full} prompts leave no room for {} new tokens: cut at their beginning",
                self.texts.generation.max_new_tokens
            ));
        }
        remarks
    }
}

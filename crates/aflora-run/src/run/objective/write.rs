//! Texts for texts: the loss of every token to be written, and what the model writes itself.

use super::judge::{judge, selection, Judged};
use super::texts::{input_of, target_of, TextPairs, IDS, LABELS, NONE, PROMPT};
use super::{Evaluated, Objective};
use crate::kinds::{Prediction, Processor, Splits};
use crate::metrics::{Answers, Judgement, Value};
use crate::run::batches::shuffled_by_length;
use crate::run::passes::Passes;
use crate::run::tokens::{Tokens, EMPTY, TRUNCATED};
use crate::task::{pair, Example, Examples};
use crate::ui::Progress;
use aflora_core::Loss;
use aflora_models::{AdaptedModel, Forward};
use aflora_record::Selection;
use anyhow::Result;
use serde_json::json;
use std::path::Path;

/// A task that asks for text.
#[derive(Debug)]
pub struct Write {
    texts: TextPairs,
    train: Tokens,
    /// Rows of `train` with something to learn; the others' targets are cut off whole.
    used: Vec<usize>,
    eval_split: String,
    eval: Tokens,
    eval_examples: Vec<Example>,
    /// Their targets.
    right: Answers,
    /// What is taken at once for the loss of an evaluation, and to write.
    loss_passes: Passes,
    write_passes: Passes,
}

impl Write {
    /// The rows of a task as tokens.
    ///
    /// # Errors
    /// A text cannot be encoded, or no training row has a target within the maximum length.
    pub fn new(
        texts: TextPairs,
        train: &[Example],
        (eval_split, eval_examples): (String, Vec<Example>),
        eval_batch_size: usize,
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
        let eval = texts.encode(&eval_examples, cache, progress)?;
        let right = eval_examples.iter().map(|e| e.right.clone()).collect();
        let [loss_passes, write_passes] = [(), ()].map(|()| Passes::new(eval_batch_size));
        Ok(Write {
            texts,
            train,
            used,
            eval_split,
            eval,
            eval_examples,
            right,
            loss_passes,
            write_passes,
        })
    }

    /// Tokens of the training rows.
    fn lengths(&self) -> Vec<usize> {
        self.used.iter().map(|&row| self.train.length(row, IDS)).collect()
    }

    /// The sums of the loss and of the loss without smoothing over all wanted tokens, and how many
    /// there are.
    fn total_losses(&self, model: &AdaptedModel, rows: &[usize]) -> Result<[f64; 3]> {
        let Examples { batch, labels } =
            self.texts.collate(&self.eval, rows).to_device(self.texts.device);
        let logits = model.forward(&batch, false)?.logits;
        let smoothing = self.texts.task.label_smoothing;
        let sum = |smoothing| self.texts.cross_entropy_in_slices(&logits, &labels, smoothing);
        let loss = sum(smoothing)?;
        let plain = if smoothing == 0.0 { loss } else { sum(0.0)? };
        Ok([loss, plain, wanted(&self.eval, rows) as f64])
    }

    /// What was written for each row beside what should be, with its metrics: a line of JSON each.
    fn told(&self, answers: &Answers, metrics: &[(&str, Value)]) -> Result<Vec<u8>> {
        let Answers::Texts(written) = answers else { return Ok(Vec::new()) };
        let mut lines = Vec::new();
        for (row, (written, example)) in written.iter().zip(&self.eval_examples).enumerate() {
            let (input, target) = (input_of(example), target_of(example));
            let mut line = json!({ "input": input, "target": target, "prediction": written });
            for (name, of) in metrics {
                if let Some(rows) = &of.rows {
                    line[*name] = rows[row].into();
                }
            }
            serde_json::to_writer(&mut lines, &line)?;
            lines.push(b'\n');
        }
        Ok(lines)
    }

    /// The mean loss over all tokens to be written, and that without smoothing.
    fn mean_losses(&self, model: &AdaptedModel, progress: &mut dyn Progress) -> Result<(f64, f64)> {
        let mut order: Vec<usize> =
            (0..self.eval.rows()).filter(|&row| !self.eval.has(row, EMPTY)).collect();
        order.sort_by_key(|&row| std::cmp::Reverse(self.eval.length(row, IDS)));
        progress.begin(&format!("loss {}", self.eval_split), order.len() as u64);
        let _no_grad = tch::no_grad_guard();
        let vocabulary = usize::try_from(model.backbone().about().vocab_size)?;
        let width = |row: usize| self.eval.length(row, LABELS) * vocabulary;
        let (mut total, mut plain, mut count, mut done) = (0.0, 0.0, 0.0, 0);
        self.loss_passes.each_of_size(&order, width, |rows| {
            let [sum, sum_plain, tokens] = self.total_losses(model, rows)?;
            (total, plain) = (total + sum, plain + sum_plain);
            (count, done) = (count + tokens, done + rows.len());
            progress.update(done as u64, "");
            Ok(())
        })?;
        progress.end();
        Ok((total / count, plain / count))
    }
}

impl Processor for TextPairs {
    fn vocab_size(&self) -> i64 {
        self.encoder().vocab_size()
    }

    fn objective(
        self: Box<Self>,
        mut rows: Splits,
        eval_batch_size: usize,
        cache: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<Box<dyn Objective>> {
        // One came, so one is there.
        let eval = rows.evals.swap_remove(0);
        Ok(Box::new(Write::new(*self, &rows.train, eval, eval_batch_size, cache, progress)?))
    }

    fn predict(
        &self,
        model: &AdaptedModel,
        rows: &[&[String]],
        passes: &Passes,
    ) -> Result<Vec<Prediction>> {
        let inputs: Vec<&str> = rows.iter().map(|texts| pair(texts).0).collect();
        let written = self.write(model, &inputs, passes)?.into_iter();
        Ok(written.map(|(text, cut)| Prediction { values: vec![text.into()], cut }).collect())
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

    fn batch(&self, rows: &[usize]) -> Examples {
        let rows: Vec<usize> = rows.iter().map(|&row| self.used[row]).collect();
        self.texts.collate(&self.train, &rows)
    }

    fn items(&self, rows: &[usize]) -> usize {
        let rows: Vec<usize> = rows.iter().map(|&row| self.used[row]).collect();
        wanted(&self.train, &rows)
    }

    fn loss(&self, model: &AdaptedModel, examples: &Examples) -> Result<Loss> {
        let Forward { logits, checkpoints } = model.forward(&examples.batch, true)?;
        let smoothing = self.texts.task.label_smoothing;
        let value = self.texts.cross_entropy(&logits, &examples.labels, smoothing)?;
        Ok(Loss { value, checkpoints })
    }

    fn evaluate(&self, model: &AdaptedModel, progress: &mut dyn Progress) -> Result<Evaluated> {
        let (loss, nll) = self.mean_losses(model, progress)?;
        progress.begin(&format!("write {}", self.eval_split), self.eval.rows() as u64);
        let column = self.texts.prompts();
        let prompts = (0..self.eval.rows()).map(|row| self.eval.get(row, column).collect());
        let prompts: Vec<Vec<i64>> = prompts.collect();
        let mut done = |n: usize| progress.update(n as u64, "");
        let written = self.texts.write_after(model, &prompts, &self.write_passes, &mut done)?;
        progress.end();
        let answers = Answers::Texts(written);
        let given = Judgement { token_loss: Some(nll), ..Judgement::of(&answers, &self.right) };
        let Judged { metrics, by_class, doubt } = judge(&self.texts.task, &self.eval_split, &given);
        let lines = self.told(&answers, &metrics)?;
        let metrics = metrics.into_iter().map(|(name, of)| (name.to_string(), of.value));
        let doubts = doubt.map(|words| format!("{}: {words}", self.eval_split));
        Ok(Evaluated {
            metrics: metrics.collect(),
            by_class: by_class.into_iter().collect(),
            loss,
            doubts: doubts.into_iter().collect(),
            predictions: vec![(self.eval_split.clone(), lines)],
        })
    }

    fn selection(&self) -> Selection {
        selection(&self.texts.task, &[&self.eval_split], |metric, _| metric.to_string())
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
                    self.texts.task.max_target_length
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

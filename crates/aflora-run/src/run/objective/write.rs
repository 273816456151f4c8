//! Texts for texts: the loss of every token to be written, and what the model writes itself.
//!
//! A mere decoder reads prompt and target as one text that ends with the end token; its loss is
//! on the target, or on the prompt too. An encoder-decoder reads the prompt and writes the
//! target. Texts are written with the prompt alone, as after training.

use super::{Evaluated, Objective};
use crate::config::{TaskConfig, INPUT};
use crate::data::Pair;
use crate::run::batches::{shuffled_by_length, width_for};
use crate::ui::Progress;
use aflora_models::generate::SpecialTokens;
use aflora_models::{AdaptedModel, Batch, TextEncoder};
use anyhow::{bail, Result};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, Reduction, Tensor};

/// What a label says where there is nothing to learn.
const NONE: i64 = -100;

/// Pairs of texts and what makes tokens of them.
#[derive(Debug)]
pub struct Texts {
    encoder: TextEncoder,
    /// For what an encoder-decoder writes.
    target_encoder: TextEncoder,
    config: TaskConfig,
    tokens: SpecialTokens,
    eos: i64,
    pad: i64,
    max_length: usize,
    /// The longest prompt that leaves room for what is written.
    longest_prompt: usize,
}

/// One pair as tokens.
#[derive(Debug)]
struct Row {
    /// What is read in training: prompt and target of a decoder, the source of an
    /// encoder-decoder.
    ids: Vec<i64>,
    /// The token wanted after each of a decoder's tokens, or the tokens an encoder-decoder
    /// should write; [`NONE`] where it does not matter.
    labels: Vec<i64>,
    /// What is read to write on.
    prompt: Vec<i64>,
    truncated: bool,
}

impl Texts {
    /// Tokens as `folder`'s tokenizer makes them, for a model with these special tokens and
    /// positions.
    ///
    /// # Errors
    /// The tokenizer is missing or damaged, or the model knows no end token, or too few
    /// positions for what should be written.
    pub fn new(
        folder: &Path,
        config: &TaskConfig,
        tokens: &SpecialTokens,
        max_length: usize,
        max_positions: i64,
    ) -> Result<Self> {
        let Some(&eos) = tokens.eos.first() else {
            bail!(
                "{}: its config.json has no eos_token_id, without which no text ends",
                folder.display()
            );
        };
        let positions = usize::try_from(max_positions).unwrap_or(usize::MAX);
        let new = config.generation.max_new_tokens;
        let room = match tokens.decoder_start {
            Some(_) => positions.saturating_sub(1),
            // A prompt of some length must fit before it.
            None => positions.saturating_sub(aflora_models::tokenizer::SHORTEST),
        };
        if new > room {
            crate::usage!(
                "task.generation.max_new_tokens is {new}, but the model has {positions} positions; \
                 set it to {room} or less"
            );
        }
        let (encoder, longest_prompt) = match tokens.decoder_start {
            Some(_) => (TextEncoder::from_folder(folder, max_length)?, max_length),
            None => (TextEncoder::from_folder(folder, 1 << 30)?, positions - new),
        };
        let target_length = config.max_target_length.max(aflora_models::tokenizer::SHORTEST);
        let target_encoder = TextEncoder::from_folder(folder, target_length)?;
        let pad = tokens.pad.unwrap_or(encoder.pad_id());
        let (config, tokens) = (config.clone(), tokens.clone());
        Ok(Texts { encoder, target_encoder, config, tokens, eos, pad, max_length, longest_prompt })
    }

    /// The largest token id plus one.
    pub fn vocab_size(&self) -> i64 {
        self.encoder.vocab_size()
    }

    fn prompt(&self, input: &str) -> String {
        self.config.prompt.replace(INPUT, input)
    }

    fn encode(&self, pairs: &[Pair]) -> Result<Vec<Row>> {
        let prompts: Vec<String> = pairs.iter().map(|pair| self.prompt(&pair.input)).collect();
        let prompt_tokens = tokens(&self.encoder, prompts.iter().map(String::as_str))?;
        if self.tokens.decoder_start.is_some() {
            let targets = tokens(&self.target_encoder, pairs.iter().map(|p| p.target.as_str()))?;
            let rows = prompt_tokens.into_iter().zip(targets).map(|((ids, cut), target)| {
                let (labels, target_cut) = target;
                let labels = with_end(labels, self.eos, target_cut);
                Row { prompt: ids.clone(), ids, labels, truncated: cut || target_cut }
            });
            return Ok(rows.collect());
        }
        let whole =
            prompts.iter().zip(pairs).map(|(prompt, pair)| format!("{prompt}{}", pair.target));
        let whole: Vec<String> = whole.collect();
        let whole = tokens(&self.encoder, whole.iter().map(String::as_str))?;
        let rows = prompt_tokens.into_iter().zip(whole).map(|((prompt, _), (ids, _))| {
            let mut ids = with_end(ids, self.eos, false);
            // Tokens of which the first characters belong to the prompt count as the target's.
            let shared = prompt.iter().zip(&ids).take_while(|(a, b)| a == b).count();
            let first = if self.config.train_on_inputs { 1 } else { shared };
            let truncated = ids.len() > self.max_length;
            ids.truncate(self.max_length);
            let next = |i: usize| ids.get(i + 1).filter(|_| i + 1 >= first).copied();
            let labels = (0..ids.len()).map(|i| next(i).unwrap_or(NONE)).collect();
            Row { ids, labels, prompt: self.fitting(prompt), truncated }
        });
        Ok(rows.collect())
    }

    /// The prompt's end, where it is too long, behind its first token.
    fn fitting(&self, mut prompt: Vec<i64>) -> Vec<i64> {
        let over = prompt.len().saturating_sub(self.longest_prompt);
        if over > 0 {
            prompt.drain(1..=over);
        }
        prompt
    }

    /// What `model` writes for these inputs, `batch_size` at once, in their order.
    ///
    /// # Errors
    /// The model fails.
    pub fn write(
        &self,
        model: &AdaptedModel,
        inputs: &[&str],
        batch_size: usize,
        device: Device,
        done: &mut dyn FnMut(usize),
    ) -> Result<Vec<String>> {
        let prompts: Vec<String> = inputs.iter().map(|input| self.prompt(input)).collect();
        let encoded = tokens(&self.encoder, prompts.iter().map(String::as_str))?;
        let prompts: Vec<Vec<i64>> = encoded.into_iter().map(|(p, _)| self.fitting(p)).collect();
        let prompts: Vec<&[i64]> = prompts.iter().map(Vec::as_slice).collect();
        self.write_after(model, &prompts, batch_size, device, done)
    }

    fn write_after(
        &self,
        model: &AdaptedModel,
        prompts: &[&[i64]],
        batch_size: usize,
        device: Device,
        done: &mut dyn FnMut(usize),
    ) -> Result<Vec<String>> {
        let mut order: Vec<usize> = (0..prompts.len()).collect();
        order.sort_by_key(|&row| std::cmp::Reverse(prompts[row].len()));
        let mut written = vec![String::new(); prompts.len()];
        let mut finished = 0;
        for rows in order.chunks(batch_size) {
            let batch = self.beginning(rows.iter().map(|&row| prompts[row]), device);
            for (&row, ids) in rows.iter().zip(model.write(&batch, &self.config.generation)?) {
                written[row] = self.encoder.decode(&ids)?.trim().to_string();
            }
            finished += rows.len();
            done(finished);
        }
        Ok(written)
    }

    /// A batch to write on after.
    fn beginning<'a>(&self, prompts: impl Iterator<Item = &'a [i64]>, device: Device) -> Batch {
        let prompts: Vec<&[i64]> = prompts.collect();
        let left_padded = self.tokens.decoder_start.is_none();
        let width = prompts.iter().map(|p| p.len()).max().unwrap_or(0);
        let (ids, mask) = padded(&prompts, width, self.pad, left_padded);
        let (ids, mask) = (ids.to_device(device), mask.to_device(device));
        let decoder_input_ids = self
            .tokens
            .decoder_start
            .map(|start| Tensor::full([prompts.len() as i64, 1], start, (Kind::Int64, device)));
        Batch { left_padded, decoder_input_ids, ..Batch::new(ids, mask) }
    }

    /// A batch to learn from, on the host: token ids, mask, labels, and for an encoder-decoder
    /// what its decoder reads. `device` is where it will go.
    fn collate(&self, rows: &[&Row], device: Device) -> Vec<Tensor> {
        let longest = |of: fn(&Row) -> usize| rows.iter().map(|r| of(r)).max().unwrap_or(0);
        let width = width_for(longest(|r| r.ids.len()), self.max_length, device);
        let ids: Vec<&[i64]> = rows.iter().map(|r| r.ids.as_slice()).collect();
        let labels: Vec<&[i64]> = rows.iter().map(|r| r.labels.as_slice()).collect();
        let (input_ids, mask) = padded(&ids, width, self.pad, false);
        match self.tokens.decoder_start {
            None => vec![input_ids, mask, padded(&labels, width, NONE, false).0],
            Some(start) => {
                let longest = longest(|r| r.labels.len());
                let width = width_for(longest, self.config.max_target_length, device);
                let shifted: Vec<Vec<i64>> = labels
                    .iter()
                    .map(|l| {
                        std::iter::once(start).chain(l.iter().copied()).take(l.len()).collect()
                    })
                    .collect();
                let shifted: Vec<&[i64]> = shifted.iter().map(Vec::as_slice).collect();
                let read = padded(&shifted, width, self.pad, false).0;
                vec![input_ids, mask, padded(&labels, width, NONE, false).0, read]
            }
        }
    }
}

/// Token ids of texts, and whether each was cut.
fn tokens<'a>(
    encoder: &TextEncoder,
    texts: impl Iterator<Item = &'a str>,
) -> Result<Vec<(Vec<i64>, bool)>> {
    let texts: Vec<(&str, Option<&str>)> = texts.map(|text| (text, None)).collect();
    Ok(encoder.encode(&texts)?.into_iter().map(|e| (e.ids, e.truncated)).collect())
}

/// A text with its end token, unless it was cut before its end.
fn with_end(mut ids: Vec<i64>, eos: i64, cut: bool) -> Vec<i64> {
    if !cut && ids.last() != Some(&eos) {
        ids.push(eos);
    }
    ids
}

/// A batch and its labels, of what [`Texts::collate`] made.
fn on_device(tensors: &[Tensor]) -> Result<(Batch, Tensor)> {
    let [ids, mask, labels, read @ ..] = tensors else {
        bail!("a batch of texts to write has three tensors or four");
    };
    let decoder_input_ids = read.first().map(Tensor::shallow_clone);
    let batch = Batch::new(ids.shallow_clone(), mask.shallow_clone());
    Ok((Batch { decoder_input_ids, ..batch }, labels.shallow_clone()))
}

/// Rows as one tensor and its mask, filled up with `fill` before or behind.
fn padded(rows: &[&[i64]], width: usize, fill: i64, left: bool) -> (Tensor, Tensor) {
    let (mut ids, mut mask) = (Vec::new(), Vec::new());
    for row in rows {
        let padding = width - row.len();
        let (before, behind) = if left { (padding, 0) } else { (0, padding) };
        for (values, filling, of_row) in
            [(&mut ids, fill, row.to_vec()), (&mut mask, 0, vec![1; row.len()])]
        {
            values.extend(std::iter::repeat_n(filling, before));
            values.extend(of_row);
            values.extend(std::iter::repeat_n(filling, behind));
        }
    }
    let shape = [rows.len() as i64, width as i64];
    let tensor = |values: &[i64]| Tensor::from_slice(values).view(shape);
    (tensor(&ids), tensor(&mask))
}

/// A task that asks for text.
#[derive(Debug)]
pub struct Write {
    texts: Texts,
    train: Vec<Row>,
    /// Training rows whose target is cut off whole: there is nothing to learn from them.
    dropped: usize,
    eval_split: String,
    eval: Vec<Row>,
    eval_pairs: Vec<Pair>,
    eval_batch_size: usize,
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
    ) -> Result<Self> {
        let mut rows = texts.encode(train)?;
        let before = rows.len();
        rows.retain(|row| row.labels.iter().any(|&label| label != NONE));
        if rows.is_empty() {
            crate::usage!(
                "of {before} training texts, none has its target within max_length={}; raise it",
                texts.max_length
            );
        }
        let dropped = before - rows.len();
        let eval = texts.encode(&eval_pairs)?;
        Ok(Write {
            texts,
            train: rows,
            dropped,
            eval_split,
            eval,
            eval_pairs,
            eval_batch_size,
            device,
        })
    }

    /// The sum of the loss over all wanted tokens, and how many there are.
    fn total_loss(&self, model: &AdaptedModel, rows: &[&Row]) -> Result<(f64, f64)> {
        let tensors = self.texts.collate(rows, self.device);
        let tensors: Vec<Tensor> = tensors.iter().map(|t| t.to_device(self.device)).collect();
        let (batch, labels) = on_device(&tensors)?;
        let sum = self.cross_entropy(&model.forward(&batch, false)?, &labels, Reduction::Sum);
        let count = labels.ne(NONE).sum(Kind::Double);
        Ok((sum.double_value(&[]), count.double_value(&[])))
    }

    fn cross_entropy(&self, logits: &Tensor, labels: &Tensor, reduction: Reduction) -> Tensor {
        let (logits, labels) = (logits.flatten(0, 1), labels.flatten(0, 1));
        let smoothing = self.texts.config.label_smoothing;
        logits.cross_entropy_loss(&labels, None::<&Tensor>, reduction, NONE, smoothing)
    }

    fn mean_loss(&self, model: &AdaptedModel, progress: &mut dyn Progress) -> Result<f64> {
        let mut order: Vec<&Row> =
            self.eval.iter().filter(|row| row.labels.iter().any(|&l| l != NONE)).collect();
        order.sort_by_key(|row| std::cmp::Reverse(row.ids.len()));
        progress.begin(&format!("loss {}", self.eval_split), order.len() as u64);
        let _no_grad = tch::no_grad_guard();
        let (mut total, mut count, mut done) = (0.0, 0.0, 0);
        for rows in order.chunks(self.eval_batch_size) {
            let (sum, tokens) = self.total_loss(model, rows)?;
            (total, count, done) = (total + sum, count + tokens, done + rows.len());
            progress.update(done as u64, "");
        }
        progress.end();
        Ok(total / count)
    }
}

impl Objective for Write {
    fn training_batches(&self, batch_size: usize, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
        let lengths: Vec<usize> = self.train.iter().map(|row| row.ids.len()).collect();
        shuffled_by_length(&lengths, batch_size, seed, epoch)
    }

    fn batch(&self, rows: &[usize]) -> Vec<Tensor> {
        let rows: Vec<&Row> = rows.iter().map(|&row| &self.train[row]).collect();
        self.texts.collate(&rows, self.device)
    }

    fn loss(&self, model: &AdaptedModel, batch: &[Tensor]) -> Result<Tensor> {
        let (batch, labels) = on_device(batch)?;
        Ok(self.cross_entropy(&model.forward(&batch, true)?, &labels, Reduction::Mean))
    }

    fn evaluate(&self, model: &AdaptedModel, progress: &mut dyn Progress) -> Result<Evaluated> {
        let loss = self.mean_loss(model, progress)?;
        progress.begin(&format!("write {}", self.eval_split), self.eval.len() as u64);
        let prompts: Vec<&[i64]> = self.eval.iter().map(|row| row.prompt.as_slice()).collect();
        let mut done = |n: usize| progress.update(n as u64, "");
        let written = self.texts.write_after(
            model,
            &prompts,
            self.eval_batch_size,
            self.device,
            &mut done,
        )?;
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
        Ok(Evaluated { metrics, loss, predictions })
    }

    fn selection(&self) -> String {
        self.texts.config.metrics.first().map_or(String::new(), |m| m.name().to_string())
    }

    fn rows(&self, split: &str) -> usize {
        match split {
            "train" => self.train.len(),
            _ => self.eval.len(),
        }
    }

    fn tokens(&self) -> usize {
        self.train.iter().map(|row| row.ids.len()).sum()
    }

    fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        let cut = self.train.iter().filter(|row| row.truncated).count();
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
        if self.dropped > 0 {
            remarks.push(format!(
                "{} training texts have their whole target behind the cut: left out",
                self.dropped
            ));
        }
        let full = self.eval.iter().filter(|row| row.prompt.len() == self.texts.longest_prompt);
        let full = full.count();
        if full > 0 && self.texts.tokens.decoder_start.is_none() {
            remarks.push(format!(
                "{full} prompts leave no room for {} new tokens: cut at their beginning",
                self.texts.config.generation.max_new_tokens
            ));
        }
        remarks
    }
}

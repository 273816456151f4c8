//! Texts for texts: the loss of every token to be written, and what the model writes itself.

use super::judge::{judge, selection, Judged};
use super::texts::{input_of, target_of, Learned, TextPairs, IDS, LABELS, NONE, PROMPT};
use super::{Evaluated, Objective};
use crate::bits;
use crate::feed::TRAIN;
use crate::kinds::{Prediction, Processor, Splits};
use crate::metrics::{Answers, Judgement, Value};
use crate::run::batches::shuffled_by_length;
use crate::run::packing::packs;
use crate::run::passes::Passes;
use crate::run::tokens::{Tokens, EMPTY, TRUNCATED};
use crate::task::conversation::Conversation;
use crate::task::{pair, Example, Examples};
use crate::ui::Progress;
use aflora_core::Loss;
use aflora_models::AdaptedModel;
use aflora_record::Selection;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::Path;

/// The widest layer of a block, in hidden states: that of its MLP in most models.
const WIDEST: usize = 4;

/// A task that asks for text.
#[derive(Debug)]
pub struct Write {
    texts: TextPairs,
    train: Tokens,
    /// Rows of the training files that `packs` are of.
    rows: usize,
    /// Rows of `train` with something to learn, those together that are one row of a batch; the
    /// others' targets are cut off whole.
    packs: Vec<Vec<usize>>,
    eval: HeldOut,
    /// What is judged at the end, if there is such a split.
    test: Option<HeldOut>,
    /// What is taken at once for the loss of an evaluation, and to write.
    loss_passes: Passes,
    write_passes: Passes,
}

/// The losses of some rows, and how many tokens they are of; handed on to the bit.
#[derive(Serialize, Deserialize)]
struct Part(#[serde(with = "bits::row")] Vec<f64>);

/// A split that is judged.
#[derive(Debug)]
struct HeldOut {
    split: String,
    tokens: Tokens,
    examples: Vec<Example>,
    /// Their targets.
    right: Answers,
}

impl HeldOut {
    fn new(
        texts: &TextPairs,
        (split, examples): (String, Vec<Example>),
        cache: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let tokens = texts.encode(&examples, cache, progress).with_context(|| split.clone())?;
        let right = examples.iter().map(|e| e.right.clone()).collect();
        Ok(HeldOut { split, tokens, examples, right })
    }
}

impl Write {
    /// The rows of a task as tokens.
    ///
    /// # Errors
    /// A text cannot be encoded, or no training row has a target within the maximum length.
    pub fn new(
        texts: TextPairs,
        rows: Splits,
        passes: &Passes,
        cache: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let train = texts.encode(&rows.train, cache, progress).context(TRAIN)?;
        let used: Vec<usize> = (0..train.rows()).filter(|&row| !train.has(row, EMPTY)).collect();
        if used.is_empty() && train.rows() > 0 {
            crate::usage!(
                "of {} training {}, none has {} within max_length={}; raise it",
                train.rows(),
                texts.called()[0],
                texts.called()[1],
                texts.max_length
            );
        }
        let rows_used = match texts.learned {
            // Of a text in pieces, the last may hold its end alone, which the piece before it learns.
            Learned::Documents => rows.train.len(),
            Learned::Pairs | Learned::Conversations => used.len(),
        };
        let packs: Vec<Vec<usize>> = match texts.packing {
            false => used.into_iter().map(|row| vec![row]).collect(),
            true => {
                let lengths: Vec<usize> = used.iter().map(|&row| train.length(row, IDS)).collect();
                let packs = packs(&lengths, texts.max_length).into_iter();
                packs.map(|pack| pack.into_iter().map(|i| used[i]).collect()).collect()
            }
        };
        let mut held_out = |of| HeldOut::new(&texts, of, cache, progress);
        // One came, so one is there.
        let mut evals = rows.evals;
        let eval = held_out(evals.swap_remove(0))?;
        let test = rows.test.map(held_out).transpose()?;
        let [loss_passes, write_passes] = [(), ()].map(|()| passes.clone());
        Ok(Write { texts, train, rows: rows_used, packs, eval, test, loss_passes, write_passes })
    }

    /// Tokens of the packs of training rows.
    fn lengths(&self) -> Vec<usize> {
        let length = |pack: &Vec<usize>| pack.iter().map(|&row| self.train.length(row, IDS)).sum();
        self.packs.iter().map(length).collect()
    }

    /// The training rows that are used.
    fn used(&self) -> impl Iterator<Item = usize> + '_ {
        self.packs.iter().flatten().copied()
    }

    /// The sums of the loss and of the loss without smoothing over all wanted tokens, and how many
    /// there are.
    fn total_losses(&self, model: &AdaptedModel, of: &Tokens, rows: &[usize]) -> Result<[f64; 3]> {
        let Examples { batch, labels } = {
            let packs: Vec<&[usize]> = rows.iter().map(std::slice::from_ref).collect();
            self.texts.collator().collate(of, &packs).to_device(self.texts.device)
        };
        let smoothing = self.texts.task.label_smoothing;
        let smoothings: &[f64] = if smoothing == 0.0 { &[0.0] } else { &[smoothing, 0.0] };
        let losses = model.next_tokens(&batch, false)?.losses(&labels, smoothings)?;
        let [loss, plain] = [0, -1].map(|i| losses.double_value(&[i]));
        Ok([loss, plain, wanted(of, rows) as f64])
    }

    /// What was written for each row beside what should be, with its metrics: a line of JSON each.
    fn told(
        &self,
        examples: &[Example],
        answers: &Answers,
        metrics: &[(String, Value)],
    ) -> Result<Vec<u8>> {
        let Answers::Texts(written) = answers else { return Ok(Vec::new()) };
        let mut lines = Vec::new();
        for (row, (written, example)) in written.iter().zip(examples).enumerate() {
            let (input, target) = (input_of(example), target_of(example));
            let mut line = match self.texts.learned {
                Learned::Conversations => {
                    json!({ "messages": Conversation::from_text(input)?.asked(true) })
                }
                Learned::Pairs | Learned::Documents => json!({ "input": input }),
            };
            line["target"] = target.into();
            line["prediction"] = written.as_str().into();
            for (name, of) in metrics {
                if let Some(rows) = &of.rows {
                    line[name.as_str()] = rows[row].into();
                }
            }
            serde_json::to_writer(&mut lines, &line)?;
            lines.push(b'\n');
        }
        Ok(lines)
    }

    /// What the model writes for each of these rows.
    fn written(
        &self,
        model: &AdaptedModel,
        HeldOut { split, tokens: table, .. }: &HeldOut,
        progress: &mut dyn Progress,
    ) -> Result<Vec<String>> {
        let share = self.write_passes.share(table.rows());
        progress.begin(&format!("write {split}"), share as u64);
        let column = self.texts.prompts();
        let prompts = (0..table.rows()).map(|row| table.get(row, column).collect());
        let prompts: Vec<Vec<i64>> = prompts.collect();
        let mut done = |n: usize| progress.update(n as u64, "");
        let written = self.texts.write_after(model, &prompts, &self.write_passes, &mut done)?;
        progress.end();
        Ok(written)
    }

    /// The mean loss over all tokens to be written, and that without smoothing.
    fn mean_losses(
        &self,
        model: &AdaptedModel,
        HeldOut { split, tokens: table, .. }: &HeldOut,
        progress: &mut dyn Progress,
    ) -> Result<(f64, f64)> {
        let mut order: Vec<usize> =
            (0..table.rows()).filter(|&row| !table.has(row, EMPTY)).collect();
        order.sort_by_key(|&row| std::cmp::Reverse(table.length(row, IDS)));
        progress.begin(&format!("loss {split}"), self.loss_passes.share(order.len()) as u64);
        let _no_grad = tch::no_grad_guard();
        let widest = usize::try_from(model.backbone().hidden_size())? * WIDEST;
        let width = |row: usize| table.length(row, IDS).max(table.length(row, LABELS)) * widest;
        let mut done = 0;
        let parts = self.loss_passes.of_size(&order, width, |rows| {
            let losses = self.total_losses(model, table, rows)?;
            done += rows.len();
            progress.update(done as u64, "");
            Ok(Part(losses.to_vec()))
        })?;
        progress.end();
        let (mut total, mut plain, mut count) = (0.0, 0.0, 0.0);
        for Part(part) in &parts {
            if let [sum, sum_plain, tokens] = part[..] {
                (total, plain, count) = (total + sum, plain + sum_plain, count + tokens);
            }
        }
        Ok((total / count, plain / count))
    }

    /// What the model writes for a split's rows, and what it is worth.
    fn judged(
        &self,
        model: &AdaptedModel,
        of: &HeldOut,
        progress: &mut dyn Progress,
    ) -> Result<Evaluated> {
        let HeldOut { split, examples, right, .. } = of;
        let (loss, nll) = self.mean_losses(model, of, progress)?;
        let written = match self.texts.writes() {
            true => self.written(model, of, progress)?,
            false => Vec::new(),
        };
        let answers = Answers::Texts(written);
        let given = Judgement { token_loss: Some(nll), ..Judgement::of(&answers, right) };
        let Judged { metrics, by_class, doubt } = judge(&self.texts.task, split, &given);
        let lines = self.told(examples, &answers, &metrics)?;
        let metrics = metrics.into_iter().map(|(name, of)| (name, of.value));
        let doubts = doubt.map(|words| format!("{split}: {words}"));
        let predictions = (!lines.is_empty()).then(|| (split.clone(), lines));
        Ok(Evaluated {
            metrics: metrics.collect(),
            by_class: by_class.into_iter().collect(),
            loss,
            doubts: doubts.into_iter().collect(),
            predictions: predictions.into_iter().collect(),
        })
    }
}

impl Processor for TextPairs {
    fn vocab_size(&self) -> i64 {
        self.encoder().vocab_size()
    }

    fn objective(
        self: Box<Self>,
        rows: Splits,
        passes: &Passes,
        cache: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<Box<dyn Objective>> {
        Ok(Box::new(Write::new(*self, rows, passes, cache, progress)?))
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
        let packs: Vec<&[usize]> = rows.iter().map(|&row| &self.packs[row][..]).collect();
        self.texts.collator().collate(&self.train, &packs)
    }

    fn items(&self, rows: &[usize]) -> f64 {
        rows.iter().map(|&row| wanted(&self.train, &self.packs[row]) as f64).sum()
    }

    fn loss(&self, model: &AdaptedModel, examples: &Examples) -> Result<Loss> {
        let tokens = model.next_tokens(&examples.batch, true)?;
        let value = tokens.loss(&examples.labels, self.texts.task.label_smoothing)?;
        Ok(Loss { value, checkpoints: tokens.checkpoints })
    }

    fn evaluate(&self, model: &AdaptedModel, progress: &mut dyn Progress) -> Result<Evaluated> {
        self.judged(model, &self.eval, progress)
    }

    fn test(&self, model: &AdaptedModel, progress: &mut dyn Progress) -> Result<Option<Evaluated>> {
        self.test.as_ref().map(|test| self.judged(model, test, progress)).transpose()
    }

    fn test_split(&self) -> Option<&str> {
        self.test.as_ref().map(|test| test.split.as_str())
    }

    fn selection(&self) -> Selection {
        selection(&self.texts.task, &[&self.eval.split], |metric, _| metric.to_string())
    }

    fn rows(&self, split: &str) -> usize {
        let mut judged = std::iter::once(&self.eval).chain(&self.test);
        match split {
            TRAIN => self.rows,
            _ => judged.find(|of| of.split == split).map_or(0, |of| of.examples.len()),
        }
    }

    fn packs(&self) -> Option<usize> {
        self.texts.packing.then_some(self.packs.len())
    }

    fn read(&self) -> Box<dyn Iterator<Item = Vec<i64>> + '_> {
        Box::new((0..self.train.rows()).map(|row| self.train.get(row, IDS).collect()))
    }

    fn tokens(&self) -> usize {
        self.lengths().iter().sum()
    }

    fn remarks(&self) -> Vec<String> {
        let mut remarks: Vec<String> = self.texts.remark().into_iter().collect();
        let cut = self.used().filter(|&row| self.train.has(row, TRUNCATED)).count();
        if cut > 0 {
            let length = self.texts.max_length;
            remarks.push(match self.texts.tokens.decoder_start {
                None => {
                    let called = self.texts.called()[0];
                    format!("{cut} training {called} are longer than {length} tokens: cut")
                }
                Some(_) => format!(
                    "{cut} training texts are longer than {length} tokens, or their targets than {}: cut",
                    self.texts.task.max_target_length
                ),
            });
        }
        let dropped = self.train.rows() - self.used().count();
        if dropped > 0 && self.texts.learned != Learned::Documents {
            let [called, _, learned] = self.texts.called();
            remarks.push(format!(
                "{dropped} training {called} have {learned} behind the cut: left out"
            ));
        }
        let full = |&row: &usize| self.eval.tokens.length(row, PROMPT) == self.texts.longest_prompt;
        let full = (0..self.eval.tokens.rows()).filter(full).count();
        if full > 0 && self.texts.tokens.decoder_start.is_none() {
            remarks.push(format!(
                "{full} prompts leave no room for {} new tokens: cut at their beginning",
                self.texts.generation.max_new_tokens
            ));
        }
        remarks
    }
}

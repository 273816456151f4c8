//! Labels for texts: classes by cross entropy, scores by squared error.

use super::judge::{judge, selection};
use super::labeller::{Labeller, Rows};
use super::{Evaluated, Objective};
use crate::bits;
use crate::feed::TRAIN;
use crate::kinds::{Prediction, Processor, Splits};
use crate::metrics::{Answer, Answers, Judgement};
use crate::run::batches::EncodedSet;
use crate::run::passes::Passes;
use crate::task::{Example, Examples};
use crate::ui::Progress;
use aflora_core::Loss;
use aflora_models::{AdaptedModel, Forward};
use aflora_record::evaluation::Metrics;
use aflora_record::Selection;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A task that asks for labels.
#[derive(Debug)]
pub struct Labels {
    /// What makes batches and answers.
    pub labeller: Labeller,
    /// Training rows.
    pub train: EncodedSet,
    /// Evaluation rows by split.
    pub evals: Vec<(String, EncodedSet)>,
    /// Rows of the split that is judged at the end, if there is one.
    pub test: Option<(String, EncodedSet)>,
    /// What an evaluation takes at once.
    pub passes: Passes,
}

impl Objective for Labels {
    fn training_batches(&self, size: usize, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
        self.train.training_batches(size, seed, epoch)
    }

    fn longest(&self, n: usize) -> Vec<usize> {
        self.train.longest_first().into_iter().take(n).collect()
    }

    fn batch(&self, rows: &[usize]) -> Examples {
        self.labeller.examples(Rows { set: &self.train, rows })
    }

    fn items(&self, rows: &[usize]) -> f64 {
        self.labeller.weight_of(Rows { set: &self.train, rows })
    }

    fn loss(&self, model: &AdaptedModel, examples: &Examples) -> Result<Loss> {
        let Forward { logits, checkpoints } = model.forward(&examples.batch, true)?;
        Ok(Loss { value: self.labeller.loss(&logits, &examples.labels)?, checkpoints })
    }

    fn evaluate(&self, model: &AdaptedModel, progress: &mut dyn Progress) -> Result<Evaluated> {
        self.judged(model, &self.evals, progress)
    }

    fn test(&self, model: &AdaptedModel, progress: &mut dyn Progress) -> Result<Option<Evaluated>> {
        match &self.test {
            None => Ok(None),
            Some(_) => self.judged(model, self.test.as_slice(), progress).map(Some),
        }
    }

    fn test_split(&self) -> Option<&str> {
        self.test.as_ref().map(|(name, _)| name.as_str())
    }

    fn selection(&self) -> Selection {
        let splits: Vec<&str> = self.evals.iter().map(|(name, _)| name.as_str()).collect();
        selection(&self.labeller.task, &splits, |metric, split| name(metric, split, splits.len()))
    }

    fn rows(&self, split: &str) -> usize {
        let mut judged = self.evals.iter().chain(&self.test);
        match split {
            TRAIN => self.train.rows(),
            _ => judged.find(|(name, _)| name == split).map_or(0, |(_, set)| set.rows()),
        }
    }

    fn read(&self) -> Box<dyn Iterator<Item = Vec<i64>> + '_> {
        Box::new((0..self.train.rows()).map(|row| self.train.ids(row)))
    }

    fn tokens(&self) -> usize {
        self.train.tokens()
    }

    fn remarks(&self) -> Vec<String> {
        let cut = self.train.truncated();
        let length = self.labeller.max_length;
        let words = format!("{cut} training texts are longer than {length} tokens: cut");
        (cut > 0).then_some(words).into_iter().collect()
    }
}

/// What a model answers to some rows of a split. Numbers are handed on to the bit, NaN too.
#[derive(Serialize, Deserialize)]
struct Part {
    rows: Vec<usize>,
    answers: Vec<Answer>,
    /// None where no metric asks for them.
    #[serde(with = "bits::rows")]
    probabilities: Vec<Vec<f64>>,
    /// Summed over the rows, each as often as it weighs.
    #[serde(with = "bits")]
    loss: f64,
    #[serde(with = "bits")]
    weight: f64,
}

/// What a model answers to a split's rows.
struct Answered {
    /// In row order.
    answers: Answers,
    /// Of each class, in row order; none where no metric asks for them.
    probabilities: Vec<Vec<f64>>,
    /// The mean loss.
    loss: f64,
}

impl Labels {
    /// What the model's answers to these splits are worth.
    fn judged(
        &self,
        model: &AdaptedModel,
        splits: &[(String, EncodedSet)],
        progress: &mut dyn Progress,
    ) -> Result<Evaluated> {
        let mut metrics = Metrics::new();
        let mut first_loss = None;
        let (mut by_class, mut doubts) = (Vec::new(), Vec::new());
        for (split, set) in splits {
            let Answered { answers, probabilities, loss } =
                self.answer(model, split, set, progress)?;
            first_loss.get_or_insert(loss);
            let given =
                Judgement { probabilities: &probabilities, ..Judgement::of(&answers, &set.right) };
            let judged = judge(&self.labeller.task, split, &given);
            by_class.extend(judged.by_class);
            doubts.extend(judged.doubt.map(|words| format!("{split}: {words}")));
            let values = judged.metrics.into_iter();
            metrics.extend(values.map(|(of, it)| (name(&of, split, splits.len()), it.value)));
        }
        let loss = first_loss.unwrap_or(f64::NAN);
        Ok(Evaluated { metrics, by_class, loss, doubts, predictions: Vec::new() })
    }

    /// What the model answers to a split's rows.
    fn answer(
        &self,
        model: &AdaptedModel,
        split: &str,
        set: &EncodedSet,
        progress: &mut dyn Progress,
    ) -> Result<Answered> {
        let asks = self.labeller.task.metrics.iter().any(|metric| metric.asks_probabilities());
        let mut done = 0;
        progress.begin(&format!("eval {split}"), self.passes.share(set.rows()) as u64);
        let parts = self.labeller.each(model, set, &self.passes, |rows, logits| {
            let of = Rows { set, rows };
            let loss = self.labeller.loss(logits, &self.labeller.labels(of))?.double_value(&[]);
            done += rows.len() as u64;
            progress.update(done, "");
            Ok(Part {
                rows: rows.to_vec(),
                answers: self.labeller.answers(of, logits)?,
                probabilities: match asks {
                    true => self.labeller.probabilities(logits)?,
                    false => Vec::new(),
                },
                loss,
                weight: self.labeller.weight_of(of),
            })
        })?;
        progress.end();
        let mut answers = vec![None; set.rows()];
        let mut probabilities = vec![Vec::new(); if asks { set.rows() } else { 0 }];
        let (mut total, mut weight) = (0.0, 0.0);
        for part in parts {
            for (&row, answer) in part.rows.iter().zip(part.answers) {
                answers[row] = Some(answer);
            }
            for (&row, found) in part.rows.iter().zip(part.probabilities) {
                probabilities[row] = found;
            }
            total += part.loss;
            weight += part.weight;
        }
        let answers: Option<Answers> = answers.into_iter().collect();
        let answers = answers.context("a row was passed over")?;
        Ok(Answered {
            answers,
            probabilities,
            loss: total / if weight > 0.0 { weight } else { 1.0 },
        })
    }
}

/// A metric's name on one of so many splits: only several need the split's.
fn name(metric: &str, split: &str, splits: usize) -> String {
    match splits {
        1 => metric.to_string(),
        _ => format!("{metric}_{split}"),
    }
}

impl Processor for Labeller {
    fn vocab_size(&self) -> i64 {
        self.encoder.vocab_size()
    }

    fn objective(
        mut self: Box<Self>,
        rows: Splits,
        passes: &Passes,
        cache: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<Box<dyn Objective>> {
        let mut encode = |rows: Vec<Example>| {
            let texts: Vec<&[String]> = rows.iter().map(|row| &row.texts[..]).collect();
            let right = rows.iter().map(|row| row.right.clone()).collect();
            self.encode(&texts, right, cache, progress)
        };
        let train = encode(rows.train)?;
        let mut held_out = |(name, rows)| Ok::<_, anyhow::Error>((name, encode(rows)?));
        let evals = rows.evals.into_iter().map(&mut held_out).collect::<Result<_>>()?;
        let test = rows.test.map(held_out).transpose()?;
        let passes = passes.clone();
        self.weigh_classes(&train.right)?;
        Ok(Box::new(Labels { labeller: *self, train, evals, test, passes }))
    }

    fn predict(
        &self,
        model: &AdaptedModel,
        rows: &[&[String]],
        passes: &Passes,
    ) -> Result<Vec<Prediction>> {
        self.predictions(model, rows, passes)
    }
}

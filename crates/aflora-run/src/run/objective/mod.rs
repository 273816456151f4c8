//! What a task asks of a model: its rows as batches, the loss, the evaluation.
//!
//! * [`labels`]: labels for texts, by the [`labeller`] that predictions use, too
//! * [`mod@write`]: texts for texts, by the [`texts`] that predictions use, too
//! * `conversations`: conversations as tokens, for the same; [`ask`]: one that waits for its next turn
//! * `learned`: what is learned of pairs, documents and conversations; `collate`: rows as a batch
//! * `writing`: what a model writes for many prompts; [`live`]: one text, told as it is written
//! * `judge`: how good answers are
//!
//! To the training loop both are an [`Objective`].

pub mod ask;
mod collate;
mod conversations;
mod judge;
pub mod labeller;
pub mod labels;
mod learned;
pub mod live;
mod prompt;
pub mod texts;
pub mod write;
mod writing;

use crate::feed::TRAIN;
use crate::task::Examples;
use crate::ui::Progress;
use aflora_core::Loss;
use aflora_models::AdaptedModel;
use aflora_record::evaluation::Metrics;
use aflora_record::{ByClass, Selection};
use anyhow::Result;

/// A task with its rows, encoded for one model.
pub trait Objective: std::fmt::Debug {
    /// The batches of a training epoch, `size` rows each: every row once.
    fn training_batches(&self, size: usize, seed: u64, epoch: u64) -> Vec<Vec<usize>>;

    /// The `n` longest training rows, or all if there are fewer.
    fn longest(&self, n: usize) -> Vec<usize>;

    /// These training rows as a batch on the host.
    fn batch(&self, rows: &[usize]) -> Examples;

    /// What the loss of these training rows is a mean over: how many rows with a label, or what their
    /// classes weigh together; or how many tokens to be written.
    fn items(&self, rows: &[usize]) -> f64;

    /// Loss of such a batch, summed over its items, on the model's device, and what its backward
    /// pass goes through. Everything in it is launched and nothing read, so that it can be
    /// recorded. [`Update`](super::update::Update) makes a mean of it.
    fn loss(&self, model: &AdaptedModel, examples: &Examples) -> Result<Loss>;

    /// Evaluates the model on every evaluation split; nothing of the model changes.
    ///
    /// # Errors
    /// The model fails, or a [signal](crate::interrupt) came meanwhile.
    fn evaluate(&self, model: &AdaptedModel, progress: &mut dyn Progress) -> Result<Evaluated>;

    /// Evaluates the model on the split that is judged at the end; none where there is no such
    /// split.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate).
    fn test(&self, model: &AdaptedModel, progress: &mut dyn Progress) -> Result<Option<Evaluated>>;

    /// The name of that split.
    fn test_split(&self) -> Option<&str>;

    /// What decides which epoch was best.
    fn selection(&self) -> Selection;

    /// Rows of a split's files that are used.
    fn rows(&self, split: &str) -> usize;

    /// What the training rows are put together in, or cut in pieces for; none where each is by
    /// itself.
    fn packs(&self) -> Option<usize> {
        None
    }

    /// Rows of the batches of an epoch.
    fn training_rows(&self) -> usize {
        self.packs().unwrap_or_else(|| self.rows(TRAIN))
    }

    /// The tokens that each training row gives to read, by itself and in file order.
    fn read(&self) -> Box<dyn Iterator<Item = Vec<i64>> + '_>;

    /// Tokens of all training rows together.
    fn tokens(&self) -> usize;

    /// What users should know about the rows, such as texts that were cut.
    fn remarks(&self) -> Vec<String>;
}

/// What an evaluation found.
#[derive(Debug)]
pub struct Evaluated {
    /// Metric values by name, in the task's order; `None` where undefined.
    pub metrics: Metrics,
    /// The answers of each split class by class, where there are classes.
    pub by_class: Vec<ByClass>,
    /// Mean loss over the rows of the first split, or over all tokens to be written.
    pub loss: f64,
    /// Why the metrics are no better than a guess, where they are not.
    pub doubts: Vec<String>,
    /// Every prediction, JSONL a split, where predictions are more than a label.
    pub predictions: Vec<(String, Vec<u8>)>,
}

//! A label for a text or a pair of texts: in training, in an evaluation and in a prediction.

use crate::device::synchronize;
use crate::kinds::{ModelContext, Prediction};
use crate::metrics::{Answer, Answers};
use crate::run::batches::{width_for, EncodedSet};
use crate::run::failure;
use crate::run::passes::Passes;
use crate::task::{Examples, TaskSpec};
use crate::ui::Progress;
use aflora_models::{AdaptedModel, Batch, Inference, TextEncoder};
use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::Serialize;
use serde_json::Value;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Rows of encoded texts.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// All of them.
    pub set: &'a EncodedSet,
    /// The numbers of those that are meant.
    pub rows: &'a [usize],
}

/// What sets one kind of labels apart from another: logits `[batch, labels]` and what they stand
/// for; of labels for tokens `[batch, length, labels]`.
pub trait Labelling: Debug + Sync {
    /// Makes tokens of texts, or maps what an earlier run left of that in `cache`.
    ///
    /// # Errors
    /// A text cannot be encoded.
    fn encode(
        &self,
        encoder: &TextEncoder,
        rows: &[&[String]],
        right: Answers,
        cache: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<EncodedSet> {
        EncodedSet::of_texts(encoder, rows, right, cache, progress)
    }

    /// What is right for rows that are filled up to `width` tokens.
    fn labels(&self, _task: &TaskSpec, of: Rows<'_>, _width: usize) -> Tensor {
        of.set.labels(of.rows)
    }

    /// What the loss of these rows is a mean over, counted.
    fn items(&self, of: Rows<'_>) -> usize {
        of.rows.len()
    }

    /// The loss of `logits`, summed over the items; `labels` are those of [`labels`](Self::labels).
    /// A row counts as often as its class [weighs](Self::class_weights), `[labels]`.
    ///
    /// # Errors
    /// The shapes do not fit each other.
    fn loss(
        &self,
        task: &TaskSpec,
        logits: &Tensor,
        labels: &Tensor,
        weights: Option<&Tensor>,
    ) -> Result<Tensor>;

    /// What each class weighs in the loss, where the training rows have these labels; none where
    /// all weigh 1.
    ///
    /// # Errors
    /// They are to be in balance, and a class has no row.
    fn class_weights(&self, _task: &TaskSpec, _train: &Answers) -> Result<Option<Vec<f64>>> {
        Ok(None)
    }

    /// The answers that `logits` stand for.
    ///
    /// # Errors
    /// They are of another shape.
    fn answers(&self, task: &TaskSpec, of: Rows<'_>, logits: &Tensor) -> Result<Vec<Answer>>;

    /// The probability of each class that `logits` stand for, row by row; none of a kind without
    /// classes.
    ///
    /// # Errors
    /// They are of another shape.
    fn probabilities(&self, logits: &Tensor) -> Result<Vec<Vec<f64>>> {
        Ok(vec![Vec::new(); logits.size()[0] as usize])
    }

    /// What predictions show of them, a value for each name of the kind. `texts` are those of all
    /// rows.
    ///
    /// # Errors
    /// They are of another shape.
    fn shown(
        &self,
        task: &TaskSpec,
        of: Rows<'_>,
        texts: &[&[String]],
        logits: &Tensor,
    ) -> Result<Vec<Vec<Value>>>;
}

/// What makes batches of texts, and answers of a model's logits.
#[derive(Debug)]
pub struct Labeller {
    labelling: &'static dyn Labelling,
    /// The task.
    pub task: Arc<TaskSpec>,
    pub(super) encoder: TextEncoder,
    /// The most tokens of a text: longer ones were cut.
    pub max_length: usize,
    /// The device on which the model computes.
    pub device: Device,
    /// What each class weighs in the loss, and the same on the device, `[labels]`, where a recorded
    /// step reads it.
    weights: Option<(Vec<f64>, Tensor)>,
}

impl Labeller {
    /// What labels texts by `labelling`.
    ///
    /// # Errors
    /// The model's tokenizer is missing or damaged.
    pub fn new(labelling: &'static dyn Labelling, with: &ModelContext<'_>) -> Result<Labeller> {
        let &ModelContext { task, source, max_length, device, .. } = with;
        let encoder = TextEncoder::from_folder(source.tokenizer, max_length)?;
        let (task, weights) = (task.clone(), None);
        Ok(Labeller { labelling, task, encoder, max_length, device, weights })
    }

    /// Lets classes weigh in the loss what the task says, for training rows with these labels.
    ///
    /// # Errors
    /// They are to be in balance, and a class has no row.
    pub(super) fn weigh_classes(&mut self, train: &Answers) -> Result<()> {
        let weights = self.labelling.class_weights(&self.task, train)?;
        self.weights = weights.map(|weights| {
            let tensor = Tensor::from_slice(&weights).to_kind(Kind::Float).to_device(self.device);
            (weights, tensor)
        });
        Ok(())
    }

    /// What rows weigh together in the loss: what their mean loss divides the sum by.
    pub(super) fn weight_of(&self, of: Rows<'_>) -> f64 {
        match (&self.weights, &of.set.right) {
            (Some((weights, _)), Answers::Classes(classes)) => {
                of.rows.iter().map(|&row| weights[classes[row] as usize]).sum()
            }
            _ => self.labelling.items(of) as f64,
        }
    }

    /// These rows' texts, encoded.
    ///
    /// # Errors
    /// A text cannot be encoded.
    pub(super) fn encode(
        &self,
        rows: &[&[String]],
        right: Answers,
        cache: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<EncodedSet> {
        self.labelling.encode(&self.encoder, rows, right, cache, progress)
    }

    fn width(&self, of: Rows<'_>) -> usize {
        width_for(of.set.longest(of.rows), self.max_length, self.device)
    }

    /// These rows as the model reads them, on the host.
    fn batch(&self, of: Rows<'_>) -> Batch {
        let [ids, mask, types] = of.set.collate(of.rows, self.width(of), self.encoder.pad_id());
        Batch { token_type_ids: Some(types), ..Batch::new(ids, mask) }
    }

    /// These rows with their labels, on the host.
    pub fn examples(&self, of: Rows<'_>) -> Examples {
        Examples { batch: self.batch(of), labels: self.labels(of) }
    }

    /// What is right for these rows, as the loss takes it, on the host.
    pub fn labels(&self, of: Rows<'_>) -> Tensor {
        self.labelling.labels(&self.task, of, self.width(of))
    }

    /// The loss of `logits`, summed over the items, each as often as it weighs.
    ///
    /// # Errors
    /// The shapes do not fit each other.
    pub fn loss(&self, logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
        // Who has logits on the host does not wait for the device.
        let weights = self.weights.as_ref().map(|(weights, tensor)| match logits.device() {
            Device::Cpu => Tensor::from_slice(weights).to_kind(Kind::Float),
            _ => tensor.shallow_clone(),
        });
        self.labelling.loss(&self.task, logits, labels, weights.as_ref())
    }

    /// The answers that the `logits` of these rows stand for.
    ///
    /// # Errors
    /// They are of another shape.
    pub fn answers(&self, of: Rows<'_>, logits: &Tensor) -> Result<Vec<Answer>> {
        self.labelling.answers(&self.task, of, logits)
    }

    /// The probability of each class that `logits`, `[batch, labels]`, stand for; none of a kind
    /// without classes.
    ///
    /// # Errors
    /// They are of another shape.
    pub fn probabilities(&self, logits: &Tensor) -> Result<Vec<Vec<f64>>> {
        self.labelling.probabilities(logits)
    }

    /// What `give` makes of the logits of all rows, some rows at a time and the longest first, without
    /// a gradient: of the numbers of the rows, and their logits, `[rows, labels]` or of each token, on the host.
    ///
    /// # Errors
    /// The model or `give` fails, or a [signal](crate::interrupt) came meanwhile.
    pub fn each<T: Serialize + DeserializeOwned>(
        &self,
        model: &AdaptedModel,
        set: &EncodedSet,
        passes: &Passes,
        mut give: impl FnMut(&[usize], &Tensor) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut inference = Inference::new(model, self.device, passes.records());
        let wait = || synchronize(self.device);
        let begin = |rows: &[usize]| {
            let batch = self.batch(Rows { set, rows });
            wait();
            let logits = match failure::guarded(|| Ok(inference.logits(&batch)?)) {
                // Recordings have memory of their own.
                Err(error) if inference.records() && failure::is_out_of_memory(&error) => {
                    inference = Inference::new(model, self.device, false);
                    aflora_cuda::release_unused();
                    inference.logits(&batch)?
                }
                found => found?,
            };
            // Beside the host, which reads them after the next `wait`.
            Ok(logits.to_device_(Device::Cpu, logits.kind(), true, false))
        };
        let end = |rows: &[usize], logits: Tensor| give(rows, &logits);
        let found = passes.overlapped(&set.longest_first(), &wait, begin, end);
        if let Some(reason) = inference.remark() {
            tracing::debug!("evaluating operation by operation: {reason}");
        }
        found
    }

    /// What predictions show of the answers to these texts, or pairs of texts, in their order.
    ///
    /// # Errors
    /// A text cannot be encoded, the model fails, or a [signal](crate::interrupt) came meanwhile.
    pub fn predictions(
        &self,
        model: &AdaptedModel,
        rows: &[&[String]],
        passes: &Passes,
    ) -> Result<Vec<Prediction>> {
        let texts = rows;
        let right = Answers::Classes(Vec::new());
        let set = self.encode(texts, right, None, &mut Silent)?;
        let all = self.each(model, &set, passes, |rows, logits| {
            let shown =
                self.labelling.shown(&self.task, Rows { set: &set, rows }, texts, logits)?;
            Ok(rows.iter().copied().zip(shown).collect::<Vec<_>>())
        })?;
        let mut found = vec![None; texts.len()];
        for (row, values) in all.into_iter().flatten() {
            found[row] = Some(Prediction { values, cut: set.is_truncated(row) });
        }
        found.into_iter().collect::<Option<_>>().context("a row was passed over")
    }
}

/// Progress that nobody sees.
struct Silent;

impl Progress for Silent {
    fn begin_at(&mut self, _: &str, _: u64, _: u64) {}
    fn update(&mut self, _: u64, _: &str) {}
    fn end(&mut self) {}
}

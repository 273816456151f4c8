//! A class or a score for a text or a pair of texts: in training, in an evaluation and in a
//! prediction.

use crate::metrics::Answer;
use crate::run::batches::{width_for, EncodedSet};
use crate::run::passes::Passes;
use crate::task::{Examples, Kind as TaskKind, TaskSpec};
use aflora_models::{AdaptedModel, Batch};
use anyhow::Result;
use std::sync::Arc;
use tch::{Device, Kind, Reduction, Tensor};

/// What makes batches of encoded texts, and answers of a model's logits.
#[derive(Debug)]
pub struct Labeller {
    /// The task.
    pub task: Arc<TaskSpec>,
    /// The token that fills batches up.
    pub pad_id: i64,
    /// The most tokens of a text: longer ones were cut.
    pub max_length: usize,
    /// The device on which the model computes.
    pub device: Device,
}

impl Labeller {
    /// These rows as the model reads them, on the host.
    fn batch(&self, set: &EncodedSet, rows: &[usize]) -> Batch {
        let width = width_for(set.longest(rows), self.max_length, self.device);
        let [ids, mask, types] = set.collate(rows, width, self.pad_id);
        Batch { token_type_ids: Some(types), ..Batch::new(ids, mask) }
    }

    /// These rows with their labels, on the host.
    pub fn examples(&self, set: &EncodedSet, rows: &[usize]) -> Examples {
        Examples { batch: self.batch(set, rows), labels: set.labels(rows) }
    }

    /// The loss of `logits`, `[batch, labels]`, summed over the rows.
    ///
    /// # Errors
    /// The shapes do not fit each other.
    pub fn loss(&self, logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
        Ok(match self.task.kind {
            TaskKind::Score => logits.f_squeeze_dim(1)?.f_mse_loss(labels, Reduction::Sum)?,
            _ => logits.f_cross_entropy_loss(labels, None::<&Tensor>, Reduction::Sum, -100, 0.0)?,
        })
    }

    /// The answers that `logits`, `[batch, labels]`, stand for.
    ///
    /// # Errors
    /// They are of another shape.
    pub fn answers(&self, logits: &Tensor) -> Result<Vec<Answer>> {
        Ok(match self.task.kind {
            TaskKind::Score => {
                let scores = logits.f_squeeze_dim(1)?.to_kind(Kind::Double);
                Vec::try_from(scores)?.into_iter().map(Answer::Score).collect()
            }
            _ => {
                let classes = logits.f_argmax(1, false)?;
                Vec::try_from(classes)?.into_iter().map(Answer::Class).collect()
            }
        })
    }

    /// The probability of each class that `logits`, `[batch, labels]`, stand for.
    ///
    /// # Errors
    /// They are of another shape.
    pub fn probabilities(&self, logits: &Tensor) -> Result<Vec<Vec<f64>>> {
        let shares = logits.f_softmax(1, Kind::Float)?.to_kind(Kind::Double);
        Ok(Vec::try_from(shares.to_device(Device::Cpu))?)
    }

    /// Gives the logits of all rows to `take`, some rows at a time and the longest first, without
    /// a gradient: the numbers of the rows, and their logits, `[rows, labels]`, on the device.
    ///
    /// # Errors
    /// The model or `take` fails, or a [signal](crate::interrupt) came meanwhile.
    pub fn each(
        &self,
        model: &AdaptedModel,
        set: &EncodedSet,
        passes: &Passes,
        mut take: impl FnMut(&[usize], &Tensor) -> Result<()>,
    ) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        passes.each(&set.longest_first(), |rows| {
            let Batch { input_ids, attention_mask, token_type_ids, .. } = self.batch(set, rows);
            let to = |tensor: &Tensor| tensor.to_device(self.device);
            let token_type_ids = token_type_ids.as_ref().map(to);
            let batch = Batch::new(to(&input_ids), to(&attention_mask));
            take(rows, &model.forward(&Batch { token_type_ids, ..batch }, false)?.logits)
        })
    }
}

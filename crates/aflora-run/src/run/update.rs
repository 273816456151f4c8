//! One update's loss and gradient, from as many passes as memory asks for.
//!
//! The loss of an update is a mean over all its items: rows with a label, tokens to be written.
//! Passes have unequal numbers of them, so a mean of their means would be another loss, and the
//! more passes the more so. Here, and nowhere else, the sum of a pass is divided by the number of
//! items of the whole update. So an update is the same however it is cut, up to rounding (and to
//! dropout, which draws anew in every pass).

use super::memory::{self, Pass};
use super::objective::Objective;
use aflora_core::Tuner;
use aflora_cuda::StepGraphs;
use aflora_models::AdaptedModel;
use anyhow::{Context, Result};
use tch::Tensor;

/// The rows of one update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// Those of each pass.
    pub passes: Vec<Vec<usize>>,
}

impl Update {
    /// An epoch's updates of `batch_size` × `accumulate` rows each, the last of them made of what
    /// is left. Which rows are in an update is the same for every way to cut it.
    pub fn epoch(
        objective: &dyn Objective,
        (batch_size, accumulate): (usize, usize),
        seed: u64,
        epoch: u64,
    ) -> Vec<Update> {
        let updates = objective.training_batches(batch_size * accumulate, seed, epoch);
        let cut = |rows: Vec<usize>| rows.chunks(batch_size).map(<[usize]>::to_vec).collect();
        updates.into_iter().map(|rows| Update { passes: cut(rows) }).collect()
    }

    /// All rows, pass by pass.
    pub fn rows(&self) -> impl Iterator<Item = usize> + '_ {
        self.passes.iter().flatten().copied()
    }

    /// What the update's loss is a mean over.
    pub fn items(&self, objective: &dyn Objective) -> usize {
        self.passes.iter().map(|rows| objective.items(rows)).sum()
    }

    /// Adds the gradient of the update's mean loss to `tuner`'s next update, and gives that loss,
    /// on the device.
    ///
    /// # Errors
    /// The model fails. Where the memory ran out, the error holds the [`Pass`] that was too large.
    pub fn accumulate(
        &self,
        objective: &dyn Objective,
        model: &AdaptedModel,
        tuner: &mut Tuner,
        graphs: &mut StepGraphs,
    ) -> Result<Tensor> {
        let items = self.items(objective) as f64;
        let mut mean: Option<Tensor> = None;
        for rows in &self.passes {
            let batch = objective.batch(rows);
            let sum = |batch: &[Tensor]| objective.loss(model, batch);
            let part = memory::guarded(|| graphs.accumulate(tuner, &batch, items, sum))
                .map_err(|error| Pass::of(&batch).blame(error))?;
            mean = Some(match mean {
                Some(mean) => mean + part,
                // A recorded loss holds its value until the next is made.
                None if self.passes.len() > 1 => part.copy(),
                None => part,
            });
        }
        mean.context("an update has no rows")
    }
}

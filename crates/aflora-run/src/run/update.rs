//! One update's loss and gradient, from as many passes as memory asks for.
//!
//! The loss of an update is a mean over all its items: rows with a label, tokens to be written.
//! Passes have unequal numbers of them, so a mean of their means would be another loss, and the
//! more passes the more so. So a pass gives the sum over its items, and the tuner divides it by the
//! number of items of the whole update. An update is the same however it is cut, up to rounding (and to
//! dropout, which draws anew in every pass).
//!
//! Of several processes each takes every n-th row of an update: similar lengths lie side by side, so
//! all get rows of about the same. Its passes are of its part of `batch_size`.

use super::failure::{self, Pass};
use super::objective::Objective;
use aflora_core::{StepGraphs, StepReport, Tuner};
use aflora_cuda::World;
use aflora_models::AdaptedModel;
use anyhow::Result;
use std::cell::Cell;

/// One update that was made.
pub struct Step<'a> {
    /// What it was made from.
    pub update: &'a Update,
    /// What it did.
    pub report: StepReport,
}

/// The rows of one update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// Those of all processes, so many at once where there is but one.
    rows: Vec<usize>,
    batch_size: usize,
    /// Those of each pass of this process.
    passes: Vec<Vec<usize>>,
}

impl Update {
    /// An epoch's updates of `batch_size` × `accumulate` rows each, the last of them made of what
    /// is left. Which rows are in an update is the same for every way to cut it, and for every number
    /// of processes.
    pub fn epoch(
        objective: &dyn Objective,
        (batch_size, accumulate): (usize, usize),
        seed: u64,
        epoch: u64,
        world: &World,
    ) -> Vec<Update> {
        let updates = objective.training_batches(batch_size * accumulate, seed, epoch);
        let at_once = batch_size.div_ceil(world.size());
        let cut =
            |rows: &[usize]| world.share(rows).chunks(at_once).map(<[usize]>::to_vec).collect();
        updates.into_iter().map(|rows| Update { passes: cut(&rows), rows, batch_size }).collect()
    }

    /// All rows, of all processes.
    pub fn rows(&self) -> impl Iterator<Item = usize> + '_ {
        self.rows.iter().copied()
    }

    /// What the update's loss is a mean over.
    pub fn items(&self, objective: &dyn Objective) -> f64 {
        self.rows.chunks(self.batch_size).map(|rows| objective.items(rows)).sum()
    }

    /// The first half of the update's step: forward, loss and backward of every pass. `tuner` has
    /// the gradient of the update's mean loss then, and that loss.
    ///
    /// # Errors
    /// The model fails. Where the memory ran out, the error holds the [`Pass`] that was too large.
    pub fn forward_backward(
        &self,
        objective: &dyn Objective,
        model: &AdaptedModel,
        tuner: &mut Tuner,
        graphs: &mut StepGraphs,
    ) -> Result<()> {
        // Rows of which no token has a label have no loss either.
        let items = self.items(objective);
        let items = if items > 0.0 { items } else { 1.0 };
        // The pass that is under way.
        let pass = Cell::new(None);
        let batches = self.passes.iter().map(|rows| {
            let batch = objective.batch(rows);
            pass.set(Some(Pass::of(&batch.batch.input_ids)));
            batch
        });
        failure::guarded(|| {
            tuner.forward_backward(batches, items, graphs, |batch| objective.loss(model, batch))
        })
        .map_err(|error| match pass.get() {
            Some(pass) => pass.blame(error),
            None => error,
        })
    }
}

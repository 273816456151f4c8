//! One update's loss and gradient, from as many passes as memory asks for.
//!
//! The loss of an update is a mean over all its items: rows with a label, tokens to be written.
//! Passes have unequal numbers of them, so a mean of their means would be another loss, and the
//! more passes the more so. So a pass gives the sum over its items, and the tuner divides it by the
//! number of items of the whole update. An update is the same however it is cut, up to rounding (and to
//! dropout, which draws anew in every pass).
//!
//! Of several processes each takes every n-th row of an update: similar lengths lie side by side, so
//! all get rows of about the same. Its passes are of its part of `batch_size`. Where they have the frozen
//! weights together, all make as many passes: who has no rows left goes along with one of another's, which
//! counts nothing.

use super::failure::{self, Pass};
use super::objective::Objective;
use crate::task::Examples;
use aflora_core::{Loss, MapTensors, StepGraphs, StepReport, Tuner};
use aflora_cuda::World;
use aflora_models::AdaptedModel;
use anyhow::Result;
use std::cell::Cell;
use tch::Tensor;

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
    /// Passes beyond these that some other process makes.
    further: usize,
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
        let cut = |rows: Vec<usize>| {
            let own = world.share(&rows);
            let passes: Vec<Vec<usize>> = own.chunks(at_once).map(<[usize]>::to_vec).collect();
            // The first process has as many rows as any.
            let most = rows.len().div_ceil(world.size()).div_ceil(at_once);
            Update { further: most - passes.len(), passes, rows, batch_size }
        };
        updates.into_iter().map(cut).collect()
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
        let own = self.passes.iter().map(|rows| (rows.as_slice(), true));
        let further = match model.backbone().sharded() {
            Some(_) => self.further,
            None => 0,
        };
        let further = std::iter::repeat_n((&self.rows[..1], false), further);
        let batches = own.chain(further).map(|(rows, counts)| {
            let examples = objective.batch(rows);
            pass.set(Some(Pass::of(&examples.batch.input_ids)));
            PassBatch { examples, counts }
        });
        failure::guarded(|| {
            tuner.forward_backward(batches, items, graphs, |batch: &PassBatch| {
                let Loss { value, checkpoints } = objective.loss(model, &batch.examples)?;
                let value = if batch.counts { value } else { value * 0.0 };
                Ok::<_, anyhow::Error>(Loss { value, checkpoints })
            })
        })
        .map_err(|error| match pass.get() {
            Some(pass) => pass.blame(error),
            None => error,
        })
    }
}

/// What a pass computes with.
struct PassBatch {
    examples: Examples,
    /// Whether its loss is a part of the update's.
    counts: bool,
}

impl MapTensors for PassBatch {
    fn map_tensors(&self, map: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        PassBatch { examples: self.examples.map_tensors(map), counts: self.counts }
    }
}

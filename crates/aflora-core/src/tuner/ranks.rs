//! Several processes that train one model, each with its share of every update's batches.
//!
//! Gradients and loss are added up by one message behind the last backward pass, on the stream of the
//! passes. What follows from them (guard, scores, freezing, clipping, the update) follows on every
//! rank alike, so that all stay equal to the bit without a further message;
//! [`check_equal`](Tuner::check_equal) sees to that.
//!
//! The message is not part of a recorded pass: work that was recorded before a freeze goes on to write
//! the frozen matrices' gradients, which are zeroed before they could reach a rank whose recording
//! is another. Launched behind the replay it costs the device nothing but its own time.

use super::Tuner;
use crate::{Error, Result};
use aflora_cuda::World;

/// Numbers that go along with the gradients: the loss, and how many ranks are asked to stop.
const LOSS: i64 = 0;
const STOP: i64 = 1;

impl Tuner {
    /// Trains with these processes from now on: each must have a tuner of the same model, method and
    /// settings. `items` of [`forward_backward`](Self::forward_backward) are those of all of them.
    pub fn join(&mut self, world: World) {
        self.world = world;
    }

    /// Says along with the next update's gradients that this rank was asked to stop.
    pub fn ask_to_stop(&mut self, asked: bool) {
        if !self.world.is_alone() {
            let _ = self.gradients.beside(STOP).fill_(if asked { 1.0 } else { 0.0 });
        }
    }

    /// How many ranks said with the last update that they were asked to stop: the same on all of them.
    /// Waits for the device.
    pub fn asked_to_stop(&self) -> u64 {
        match self.world.is_alone() {
            true => 0,
            false => self.gradients.beside(STOP).double_value(&[]) as u64,
        }
    }

    /// Adds up over all ranks what the next update is made of.
    pub(super) fn reduce(&mut self) -> Result<()> {
        if self.world.is_alone() || self.reduced {
            return Ok(());
        }
        tch::no_grad(|| {
            let mut place = self.gradients.beside(LOSS);
            match &self.loss {
                Some(loss) => place.copy_(&loss.reshape([0i64; 0])),
                None => drop(place.zero_()),
            }
            if self.gradients.is_empty() {
                // No row of this update is this rank's.
                let _ = self.gradients.flat().shallow_clone().zero_();
                self.gradients.mark_written();
            }
            self.world.all_reduce(self.gradients.whole())?;
            self.loss = Some(place);
            self.reduced = true;
            Ok(())
        })
    }

    /// Compares what trains over all ranks; they must be equal to the bit. Waits for the device.
    ///
    /// # Errors
    /// They are not, or a rank is lost.
    pub fn check_equal(&self) -> Result<()> {
        if self.world.is_alone() {
            return Ok(());
        }
        let digests = self.world.gather(&self.arena.digest()?.to_le_bytes())?;
        let differ: Vec<usize> =
            (1..digests.len()).filter(|&rank| digests[rank] != digests[0]).collect();
        match differ.is_empty() {
            true => Ok(()),
            false => Err(Error::Diverged { step: self.completed, ranks: differ }),
        }
    }

    /// Whether this rank adds what is added once an update, by whomever: the penalty of a method.
    pub(super) fn adds_penalty(&self) -> bool {
        self.world.leads() && self.gradients.is_empty()
    }
}

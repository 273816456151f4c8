//! Checkpoints of the loop.

use super::Loop;
use crate::run::checkpoint::{self, Id, ResumePoint};
use crate::run::start;
use anyhow::Result;
use std::time::Instant;

impl Loop<'_> {
    /// Writes a checkpoint, unless the last is of this very step.
    pub(super) fn checkpoint(&mut self) -> Result<()> {
        let Some(folder) = self.folder else { return Ok(()) };
        let id = Id::of(&self.loop_state, self.tuner.completed());
        if self.saved == Some(id) {
            return Ok(());
        }
        if let Some(log) = &mut self.gradients {
            log.flush()?;
        }
        let running = self.clock_at.is_some();
        self.stop_clock();
        self.loop_state.loss_sum = self.loss_sum.double_value(&[]);
        let state = self.tuner.state()?;
        let resume_point = ResumePoint {
            position: state.position,
            loop_state: self.loop_state.clone(),
            lengths: self.recorder.sync()?,
            inputs: start::inputs(self.run),
        };
        let saved = checkpoint::save(folder, id, &resume_point, state.tensors);
        // One that failed is tried again when the next is due, not at every step.
        self.saved_at = Instant::now();
        self.clock_at = running.then(Instant::now);
        saved?;
        self.saved = Some(id);
        tracing::debug!("checkpoint {id}");
        Ok(())
    }

    /// A checkpoint that cannot be written is no reason to lose the run: the one before it is
    /// still there.
    pub(super) fn checkpoint_or_warn(&mut self) {
        if let Err(error) = self.checkpoint() {
            tracing::warn!("no checkpoint: {error:#}");
        }
    }
}

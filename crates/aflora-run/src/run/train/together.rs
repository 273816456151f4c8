//! What keeps the processes that train together at one step: they stop behind the same, and are compared.

use super::Loop;
use crate::interrupt::{self, Interrupted};
use anyhow::Result;

/// Steps between two looks at whether they are still equal.
const COMPARED_EVERY: u64 = 100;

impl Loop<'_> {
    /// Ends what can be ended here where a signal came. Several processes end behind a step that all have
    /// done: [`stay_together`](Self::stay_together).
    pub(super) fn leave_if_asked(&self) -> Result<()> {
        match self.run.world.is_alone() {
            true => Ok(interrupt::check()?),
            false => Ok(()),
        }
    }

    /// Behind a step: compares the processes where that is due, and ends where a signal came to one of
    /// them. `looks` says whether the device may be waited for.
    pub(super) fn stay_together(&self, looks: bool) -> Result<()> {
        let completed = self.tuner.completed();
        if completed.is_multiple_of(COMPARED_EVERY) || completed == self.run.total_steps() {
            self.tuner.check_equal()?;
        }
        if looks && self.tuner.asked_to_stop() > 0 {
            interrupt::check()?;
            return Err(Interrupted::elsewhere().into());
        }
        Ok(())
    }
}

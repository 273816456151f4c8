//! All that changes while a tuner trains, to stop and to go on.

use super::Tuner;
use crate::error::misfit;
use crate::optim::Skipped;
use crate::state::{hook_key, Position, TunerState};
use crate::Result;
use std::collections::BTreeMap;

impl Tuner {
    /// All that training changes, to be kept. The tensors are the tuner's own: they are to be
    /// written before the next step. Nothing may be accumulated.
    ///
    /// # Errors
    /// libtorch cannot read how many steps were skipped.
    pub fn state(&self) -> Result<TunerState> {
        let mut tensors = BTreeMap::new();
        let groups =
            self.arena.groups().map(|(role, group)| group.state_of(role, &mut tensors)).collect();
        let hook = self.hook.state();
        tensors.extend(hook.tensors.into_iter().map(|(name, t)| (hook_key(&name), t)));
        let (skipped, skipped_in_a_row) = self.skipped()?;
        let position = Position {
            step: self.completed,
            skipped,
            skipped_in_a_row,
            accounting: self.accounting.clone(),
            groups,
            counts: hook.counts,
        };
        Ok(TunerState { position, tensors })
    }

    /// Takes up a state of a tuner for the same model, method and length of run: what comes next
    /// is what would have come there.
    ///
    /// # Errors
    /// The state is of other parameters, another method or another length; nothing is changed
    /// then.
    pub fn restore(&mut self, state: &TunerState) -> Result<()> {
        state.position.check(self.schedule.total)?;
        let Position { step, skipped, skipped_in_a_row, accounting, groups, .. } = &state.position;
        let (found, expected) = (groups.len(), self.arena.groups().count());
        if found != expected {
            return Err(misfit("the number of groups", found, expected));
        }
        for ((role, group), of) in self.arena.groups().zip(groups) {
            if of.role != role {
                return Err(misfit("a group", format!("{:?}", of.role), format!("{role:?}")));
            }
            group.check_state(of, state)?;
        }
        self.hook.restore(&state.hook(), &self.arena)?;
        tch::no_grad(|| {
            let mut pairs = self.arena.groups_mut().zip(groups);
            pairs.try_for_each(|((_, group), of)| group.restore(of, state))
        })?;
        // Recorded work goes on to write to this very buffer of gradients.
        self.discard();
        self.arena.clear_frozen(&mut self.gradients);
        self.skipped = Skipped::new(*skipped, *skipped_in_a_row, self.arena.device());
        self.accounting = accounting.clone();
        self.completed = *step;
        Ok(())
    }
}

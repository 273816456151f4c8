//! The gradients of one step, in one flat buffer.

use crate::adapter::Role;
use std::collections::BTreeMap;
use tch::Tensor;

/// How many numbers may go along with the gradients of one step.
pub(super) const BESIDE: i64 = 4;

/// The gradients of one step in one flat buffer, laid out like the arena's values; zero where
/// a parameter is frozen.
#[derive(Debug)]
pub struct Gradients {
    /// The flat buffer, and behind it a place for what ranks add up along with it.
    pub(super) whole: Tensor,
    pub(super) flat: Tensor,
    pub(super) groups: BTreeMap<Role, Tensor>,
    /// Whether nothing was added yet; what the buffer holds does not count then.
    pub(super) empty: bool,
}

impl Gradients {
    /// A group's part, laid out like its values, `[n]`.
    pub fn get(&self, role: Role) -> Option<&Tensor> {
        self.groups.get(&role)
    }

    /// Those of all groups, end to end, `[numbers of all groups]`; between groups lie zeros.
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// Those of all groups with [`BESIDE`] further numbers behind them, which are nobody's gradient: one
    /// message of several ranks.
    pub(crate) fn whole(&self) -> &Tensor {
        &self.whole
    }

    /// One of the numbers behind the gradients, `[]`.
    pub(crate) fn beside(&self, index: i64) -> Tensor {
        self.whole.get(self.flat.numel() as i64 + index)
    }

    /// Whether nothing was added since the beginning, or since [`clear`](Self::clear).
    pub fn is_empty(&self) -> bool {
        self.empty
    }

    /// Forgets what was added. Nothing is written: what comes next replaces it.
    pub fn clear(&mut self) {
        self.empty = true;
    }

    /// Counts what somebody wrote into the buffer as added.
    pub(crate) fn mark_written(&mut self) {
        self.empty = false;
    }
}

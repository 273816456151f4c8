//! What a rule is to the controller.

use crate::freeze::schedule::Schedule;
use crate::optim::Group;
use std::fmt::Debug;
use tch::Tensor;

/// What a matrix' score is made of: the sum of its elements of `of`, over that of its elements of
/// `over`, or over their number.
#[derive(Debug)]
pub(in crate::freeze) struct Evidence {
    /// `[n]`, laid out like the group's values.
    pub of: Tensor,
    /// `[n]`.
    pub over: Option<Tensor>,
}

impl From<Tensor> for Evidence {
    fn from(of: Tensor) -> Self {
        Evidence { of, over: None }
    }
}

/// One rule at work.
pub(in crate::freeze) trait FreezeRule: Debug {
    /// Takes in the gradient of step `t`, laid out like the values of `group`, `[n]`, as the backward
    /// pass left it.
    fn observe(&self, t: u64, group: &mut Group, gradient: &Tensor);

    /// What the scores are made of, after this step's gradient was taken in.
    fn evidence(&self, group: &mut Group) -> Evidence;

    /// The same before step `t` and its gradient, where that gradient does not change it: then it can be read while
    /// the step is made.
    fn foreseen(&self, _t: u64, _group: &mut Group) -> Option<Evidence> {
        None
    }

    /// Whether matrices are tested at step `t`, which lies where the schedule asks for something.
    fn is_due(&self, t: u64, schedule: &Schedule) -> bool;

    /// Of a rule that has no budget: the place, from the smallest, 1, on, of the element of the evidence strictly below
    /// which a matrix' score must lie to freeze, among the `n` that still train; none freezes nothing.
    fn place(&self, _n: i64, _ratio: f64) -> Option<i64> {
        None
    }
}

/// Every ΔT steps, and at the step where the schedule ends.
pub(super) fn on_interval(t: u64, interval: u64, schedule: &Schedule) -> bool {
    t.is_multiple_of(interval) || t == schedule.saturation
}

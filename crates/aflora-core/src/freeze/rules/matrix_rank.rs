//! The rule of the paper's text: the lowest mean scores freeze, at whichever step asks for one.

use super::traits::{Evidence, FreezeRule};
use crate::freeze::schedule::Schedule;
use crate::freeze::score::{Score, Smoothed};
use crate::freeze::FreezeConfig;
use crate::optim::Group;
use tch::Tensor;

/// A matrix' score is the mean of its elements' (Eq. 4).
#[derive(Debug)]
pub struct MatrixRank {
    score: Score,
    smoothed: Smoothed,
}

impl MatrixRank {
    pub fn new(config: &FreezeConfig) -> Self {
        MatrixRank { score: config.score, smoothed: Smoothed::of(config) }
    }
}

impl FreezeRule for MatrixRank {
    fn observe(&self, _: u64, group: &mut Group, gradient: &Tensor) {
        let now = self.score.sensitivity(group.values(), gradient);
        self.smoothed.observe(group, &now);
    }

    fn evidence(&self, group: &mut Group) -> Evidence {
        self.smoothed.score(group).into()
    }

    fn is_due(&self, t: u64, schedule: &Schedule) -> bool {
        schedule.ratio(t) > 0.0
    }
}

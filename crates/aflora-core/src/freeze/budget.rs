//! From scores and r(t) to the matrices that freeze now, and those that train again.
//!
//! After a test ⌊r(t) · n⌋ of all n matrices are frozen, those with the lowest scores first; equal
//! ones go in the order of the model.
//!
//! Where matrices may thaw, what freezes before the schedule ends only rests. At a test that has seen the
//! gradients of those at rest, one whose score is above the median of those that train comes back, the
//! highest first, and as many of the lowest that train rest in its place: the budget is kept to the
//! matrix. The median is a margin: scores are noisy, and a matrix just above the last that trains would
//! change places with it for ever. When the schedule ends, what rests is frozen for good.

use crate::optim::Standing;

/// A matrix that is not frozen for good.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    pub score: f64,
    pub rests: bool,
}

/// How many of the matrices are to be frozen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// n, all matrices that trained at the start.
    pub candidates: usize,
    /// r(t), their share that is frozen.
    pub ratio: f64,
    /// What freezes may come back.
    pub rests: bool,
    /// What rests may come back now.
    pub thaws: bool,
}

/// What a test decided.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Decision {
    /// The score below which (`element_quantile`) or up to which (with a budget) a matrix freezes.
    pub threshold: Option<f64>,
    /// What each matrix is from now on, in the order given.
    pub standings: Vec<Standing>,
}

impl Decision {
    /// Freezes for good what lies strictly below a threshold, or everything.
    pub fn below(threshold: Option<f64>, everything: bool, open: &[Open]) -> Self {
        let freezes =
            |open: &Open| threshold.is_some_and(|threshold| everything || open.score < threshold);
        let standing = |open| if freezes(open) { Standing::Frozen } else { Standing::Trains };
        Decision { threshold, standings: open.iter().map(standing).collect() }
    }
}

impl Budget {
    /// How many are frozen after a test, of which `already` were. The floor forgives rounding: 0.6 ·
    /// 5 is 3.
    pub fn frozen(&self, already: usize) -> usize {
        let wanted = (self.candidates as f64 * self.ratio + 1e-9).floor() as usize;
        wanted.min(self.candidates).max(already)
    }

    /// Which of the matrices freeze, rest and train from now on.
    pub fn decide(&self, open: &[Open]) -> Decision {
        // Ascending. `total_cmp` puts NaN last: a matrix without a usable score freezes last.
        let ranked = |rests: bool| {
            let mut order: Vec<usize> =
                (0..open.len()).filter(|&i| open[i].rests == rests).collect();
            order.sort_by(|&i, &j| open[i].score.total_cmp(&open[j].score));
            order
        };
        let (train, rest) = (ranked(false), ranked(true));
        let already = self.candidates - train.len();
        let frozen = self.frozen(already);
        let thawed = if self.thaws { self.thawed(open, &train, &rest, frozen) } else { 0 };
        let frozen_now = frozen - (already - thawed);

        let at_rest = if self.rests { Standing::Rests } else { Standing::Frozen };
        let mut standings = vec![Standing::Trains; open.len()];
        for &i in train[..frozen_now].iter().chain(&rest[..rest.len() - thawed]) {
            standings[i] = at_rest;
        }
        let threshold = frozen_now.checked_sub(1).map(|last| open[train[last]].score);
        Decision { threshold, standings }
    }

    /// How many of the highest at `rest` come back.
    fn thawed(&self, open: &[Open], train: &[usize], rest: &[usize], frozen: usize) -> usize {
        let Some(&median) = train.get(train.len() / 2) else { return 0 };
        let above = |i: &&usize| open[**i].score > open[median].score;
        // No more than there are below the median to take their place, or than may train at all.
        let most = (train.len() / 2).min(self.candidates - frozen);
        rest.iter().rev().take_while(above).count().min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frozen(decision: &Decision) -> usize {
        decision.standings.iter().filter(|s| **s != Standing::Trains).count()
    }

    prop_compose! {
        /// Matrices with different scores, some at rest, and how many are frozen for good beside them.
        fn matrices()(rests in prop::collection::vec(any::<bool>(), 1..20), closed in 0usize..5)(
            scores in Just((0..rests.len()).map(|i| i as f64 - 3.0).collect::<Vec<_>>()).prop_shuffle(),
            rests in Just(rests), closed in Just(closed),
        ) -> (Vec<Open>, usize) {
            let open = scores.into_iter().zip(rests).map(|(score, rests)| Open { score, rests });
            (open.collect(), closed)
        }
    }

    proptest! {
        #[test]
        fn a_budget_is_kept_to_the_matrix_and_never_shrinks(
            (open, closed) in matrices(), ratio in 0.0..=1.0f64, thaws: bool,
        ) {
            let candidates = open.len() + closed;
            let already = closed + open.iter().filter(|o| o.rests).count();
            let budget = Budget { candidates, ratio, rests: true, thaws };
            let decision = budget.decide(&open);
            let now = closed + frozen(&decision);
            let wanted = (candidates as f64 * ratio + 1e-9).floor() as usize;
            prop_assert_eq!(now, wanted.max(already));
            // A higher r(t) freezes what a lower one freezes, and more.
            let higher = Budget { ratio: (ratio + 0.2).min(1.0), thaws: false, ..budget };
            let lower = Budget { thaws: false, ..budget }.decide(&open);
            for (a, b) in lower.standings.iter().zip(&higher.decide(&open).standings) {
                prop_assert!(*a == Standing::Trains || *b != Standing::Trains);
            }
        }

        #[test]
        fn what_trains_scores_above_what_freezes_now_and_what_thaws_above_the_median(
            (open, closed) in matrices(), ratio in 0.0..=1.0f64,
        ) {
            let budget = Budget { candidates: open.len() + closed, ratio, rests: true, thaws: true };
            let decision = budget.decide(&open);
            let of = |rests: bool, trains: bool| {
                let pairs = open.iter().zip(&decision.standings);
                let these = pairs.filter(move |(o, s)| o.rests == rests && (**s == Standing::Trains) == trains);
                these.map(|(o, _)| o.score).collect::<Vec<_>>()
            };
            let (freeze, stay) = (of(false, false), of(false, true));
            prop_assert!(freeze.iter().all(|f| stay.iter().all(|s| f < s)));
            let (thaw, rest) = (of(true, true), of(true, false));
            prop_assert!(thaw.iter().all(|t| rest.iter().all(|r| t > r)), "the highest come back");
            let mut trained: Vec<f64> = freeze.iter().chain(&stay).copied().collect();
            trained.sort_by(f64::total_cmp);
            prop_assert!(thaw.iter().all(|t| *t > trained[trained.len() / 2]));
        }

        #[test]
        fn the_order_of_the_matrices_decides_nothing(
            (open, closed) in matrices(), ratio in 0.0..=1.0f64, thaws: bool, by in 0usize..20,
        ) {
            let budget = Budget { candidates: open.len() + closed, ratio, rests: true, thaws };
            let mut turned = open.clone();
            let by = by % open.len();
            turned.rotate_left(by);
            let mut expected = budget.decide(&open).standings;
            expected.rotate_left(by);
            prop_assert_eq!(budget.decide(&turned).standings, expected);
        }
    }

    #[test]
    fn without_rest_what_freezes_is_frozen_for_good_and_a_nan_goes_last() {
        let open = [f64::NAN, 2.0, 1.0].map(|score| Open { score, rests: false });
        let budget = Budget { candidates: 3, ratio: 0.7, rests: false, thaws: false };
        let decision = budget.decide(&open);
        assert_eq!(decision.standings, [Standing::Trains, Standing::Frozen, Standing::Frozen]);
        assert_eq!(decision.threshold, Some(2.0));
        // 0.6 · 5 is 3, whatever its binary form.
        let five = [1.0, 2.0, 3.0, 4.0, 5.0].map(|score| Open { score, rests: false });
        let budget = Budget { candidates: 5, ratio: 0.6, ..budget };
        assert_eq!(frozen(&budget.decide(&five)), 3);
    }
}

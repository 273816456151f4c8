//! One run's freezing: fed with each step's gradient, says which matrices freeze now and why.
//!
//! The state lives in the arena's projection group, aligned element by element with the
//! parameters. Tests look at those that still train, and at those that rest.

use super::budget::{Budget, Decision, Open};
use super::check::{FreezeCheck, MatrixScore};
use super::rules::{Evidence, FreezeRule};
use super::schedule::Schedule;
use super::FreezeConfig;
use crate::adapter::Role;
use crate::hook::Hook;
use crate::optim::{Arena, Gradients, Group, Standing};
use crate::span::RunLength;
use crate::Result;
use tch::Tensor;

/// Decides, after each backward pass, which projection matrices freeze.
#[derive(Debug)]
pub struct FreezeController {
    config: FreezeConfig,
    rule: Box<dyn FreezeRule>,
    schedule: Schedule,
    candidates: usize,
    remark: Option<String>,
}

impl FreezeController {
    /// A controller for `candidates` matrices over a run of `total_steps`.
    ///
    /// # Errors
    /// A setting is out of range, or the schedule's spans are shares of more than a whole run.
    pub fn new(
        config: &FreezeConfig,
        candidates: usize,
        steps_per_epoch: u64,
        total_steps: u64,
    ) -> Result<Self> {
        config.validate()?;
        let length = RunLength { steps_per_epoch, total_steps };
        let (rule, schedule) = (config.rule.with(config), config.schedule(length)?);
        let remark = config.remark(length);
        Ok(FreezeController { config: config.clone(), rule, schedule, candidates, remark })
    }

    /// Has the run told that it goes on without training anything, once all is frozen.
    pub(super) fn remark_that_nothing_else_trains(&mut self) {
        let (last, total) = (self.schedule.saturation, self.schedule.total);
        if last >= total || self.config.final_share < 1.0 {
            return;
        }
        let remark = format!(
            "nothing trains beside the matrices that freeze: all of them are frozen soon after \
             step {last} of {total}, and the steps from there on change nothing"
        );
        self.remark = Some(match self.remark.take() {
            Some(before) => format!("{before}; {remark}"),
            None => remark,
        });
    }

    /// The schedule in steps.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Takes the gradient of step `t` (completed optimiser steps before it) into the scores.
    ///
    /// `gradient` is that of the matrices in `group`, laid out like its values, `[n]`, as the
    /// backward pass left it, before clipping.
    pub fn observe(&self, t: u64, group: &mut Group, gradient: &Tensor) {
        if !group.is_closed() {
            tch::no_grad(|| self.rule.observe(t, group, gradient));
        }
    }

    /// Decides which matrices of `group` freeze at step `t`, when a test is due, and what those of
    /// them that are not frozen for good are from now on. The caller [settles](Arena::settle) that before
    /// it updates parameters.
    ///
    /// # Errors
    /// libtorch cannot read the scores.
    pub fn test(&self, t: u64, group: &mut Group) -> Result<Option<(FreezeCheck, Vec<Standing>)>> {
        if group.is_closed() || !self.rule.is_due(t, &self.schedule) {
            return Ok(None);
        }
        let budget = self.budget(t, group);
        // Whatever the scores are, as many are frozen as there were, and none changes places: they need
        // not be read, for which the host would wait.
        let already = self.candidates - group.len();
        let settled = budget.rests || group.resting() == 0;
        let same = budget.frozen(already) == already && settled && !budget.thaws;
        if self.config.rule.has_budget() && same {
            return Ok(None);
        }
        tch::no_grad(|| self.decide(t, group, budget).map(Some))
    }

    fn budget(&self, t: u64, group: &Group) -> Budget {
        let rests = self.config.thaw && t < self.schedule.saturation;
        Budget {
            candidates: self.candidates,
            ratio: self.schedule.ratio(t),
            rests,
            thaws: rests && group.is_probing(),
        }
    }

    fn decide(
        &self,
        t: u64,
        group: &mut Group,
        budget: Budget,
    ) -> Result<(FreezeCheck, Vec<Standing>)> {
        let evidence = self.rule.evidence(group);
        let ratio = budget.ratio;
        let Read { scores, threshold } = self.read(group, &evidence, ratio)?;
        let open = group.open().zip(&scores);
        let open: Vec<Open> = open.map(|((_, rests), &score)| Open { score, rests }).collect();
        let Decision { threshold, standings } = match self.config.rule.has_budget() {
            true => budget.decide(&open),
            false => Decision::below(threshold, ratio >= 1.0, &open),
        };
        let mut check =
            FreezeCheck { step: t, ratio, threshold, matrices: Vec::new(), thawed: Vec::new() };
        for (((parameter, rests), score), standing) in group.open().zip(scores).zip(&standings) {
            let (name, trains) = (parameter.name.clone(), *standing == Standing::Trains);
            match rests {
                false => check.matrices.push(MatrixScore { name, score, frozen: !trains }),
                true if trains => check.thawed.push(name),
                true => {}
            }
        }
        Ok((check, standings))
    }

    /// All that a test needs of the device, in the only read of it that freezing makes.
    fn read(&self, group: &Group, evidence: &Evidence, ratio: f64) -> Result<Read> {
        let Evidence { of, over } = evidence;
        let matrices = group.open().count();
        let mut parts = vec![group.open_means(of)];
        parts.extend(over.as_ref().map(|over| group.open_means(over)));
        let threshold = self.rule.threshold(group.numel(), ratio);
        parts.extend(threshold.map(|k| group.kth_smallest(of, k)));
        let mut numbers = Vec::<f32>::try_from(Tensor::cat(&parts, 0))?;
        let threshold = threshold.and_then(|_| numbers.pop()).map(f64::from);
        let (of, over) = numbers.split_at(matrices);
        let score = |(i, of): (usize, &f32)| match over.get(i) {
            // What has nothing to be measured by has not moved, or never had a gradient.
            Some(&0.0) => 0.0,
            Some(over) => f64::from(*of) / f64::from(*over),
            None => f64::from(*of),
        };
        Ok(Read { scores: of.iter().enumerate().map(score).collect(), threshold })
    }
}

/// What a test reads.
struct Read {
    /// Of each matrix that is not frozen for good.
    scores: Vec<f64>,
    /// Of a rule without a budget.
    threshold: Option<f64>,
}

impl Hook for FreezeController {
    fn score(&mut self, step: u64, arena: &mut Arena, gradients: &Gradients) -> Result<()> {
        let matrices = (arena.group_mut(Role::Projection), gradients.get(Role::Projection));
        if let (Some(group), Some(gradient)) = matrices {
            self.observe(step, group, gradient);
        }
        Ok(())
    }

    fn freeze(
        &mut self,
        step: u64,
        arena: &mut Arena,
        gradients: &mut Gradients,
    ) -> Result<Option<FreezeCheck>> {
        let Some(group) = arena.group_mut(Role::Projection) else { return Ok(None) };
        let probed = group.is_probing();
        let (check, mut standings) = self.test(step, group)?.unzip();
        if probed && standings.is_none() {
            // Nothing was decided, but what was looked at is not updated.
            let now = |(_, rests)| if rests { Standing::Rests } else { Standing::Trains };
            standings = Some(group.open().map(now).collect());
        }
        let train = |standings: &[Standing]| standings.iter().all(|s| *s == Standing::Trains);
        if let Some(standings) = standings.filter(|standings| probed || !train(standings)) {
            arena.settle(Role::Projection, &standings, gradients);
        }
        Ok(check)
    }

    fn after_update(&mut self, step: u64, arena: &mut Arena, _: &Gradients) -> Result<()> {
        if self.config.thaw {
            // Gradients of what rests are computed in the steps of tests alone.
            let next = (step + 1).is_multiple_of(self.config.interval);
            arena.probe(Role::Projection, next && step + 1 < self.schedule.saturation);
        }
        Ok(())
    }

    fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }
}

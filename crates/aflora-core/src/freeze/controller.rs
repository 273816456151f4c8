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
use crate::optim::{Arena, Gradients, Group, Reading, Standing};
use crate::span::RunLength;
use crate::state::HookState;
use crate::Result;
use tch::{Device, Tensor};

/// Decides, after each backward pass, which projection matrices freeze.
#[derive(Debug)]
pub struct FreezeController {
    config: FreezeConfig,
    rule: Box<dyn FreezeRule>,
    schedule: Schedule,
    candidates: usize,
    remark: Option<String>,
    foreseen: Option<Foreseen>,
}

/// The scores of a test that are on their way before its step.
#[derive(Debug)]
struct Foreseen {
    step: u64,
    extent: (usize, i64),
    reading: Reading,
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
        let (config, foreseen) = (config.clone(), None);
        Ok(FreezeController { config, rule, schedule, candidates, remark, foreseen })
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
    pub fn test(
        &mut self,
        t: u64,
        group: &mut Group,
    ) -> Result<Option<(FreezeCheck, Vec<Standing>)>> {
        let Some(budget) = self.due(t, group) else { return Ok(None) };
        tch::no_grad(|| {
            let foreseen = self.foreseen.take();
            let now = (t, Self::extent(group));
            let reading = match foreseen.filter(|of| (of.step, of.extent) == now) {
                Some(foreseen) => foreseen.reading,
                None => {
                    let evidence = self.rule.evidence(group);
                    self.read(group, &evidence, budget.ratio)
                }
            };
            Ok(Some(self.decide(t, group, budget, reading.end()?)))
        })
    }

    /// Has the scores of the test that is due at step `t`, which comes next, read while the step is made, if they are
    /// known by now: the device then waits for nothing.
    fn foresee(&mut self, t: u64, group: &mut Group) {
        self.foreseen = None;
        // A CPU is always waited for.
        if group.values().device() == Device::Cpu {
            return;
        }
        let Some(Budget { ratio, .. }) = self.due(t, group) else { return };
        self.foreseen = tch::no_grad(|| {
            let evidence = self.rule.foreseen(t, group)?;
            let reading = self.read(group, &evidence, ratio);
            Some(Foreseen { step: t, extent: Self::extent(group), reading })
        });
    }

    /// How many matrices are not frozen for good, and how many numbers train.
    fn extent(group: &Group) -> (usize, i64) {
        (group.open().count(), group.numel())
    }

    /// What a test at step `t` has to meet, if one is due that has something to decide.
    fn due(&self, t: u64, group: &Group) -> Option<Budget> {
        if group.is_closed() || !self.rule.is_due(t, &self.schedule) {
            return None;
        }
        let budget = self.budget(t, group);
        // Whatever the scores are, as many are frozen as there were, and none changes places: they need
        // not be read, for which the host would wait.
        let already = self.candidates - group.len();
        let settled = budget.rests || group.resting() == 0;
        let same = budget.frozen(already) == already && settled && !budget.thaws;
        (!self.config.rule.has_budget() || !same).then_some(budget)
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
        group: &Group,
        budget: Budget,
        numbers: Vec<f32>,
    ) -> (FreezeCheck, Vec<Standing>) {
        let ratio = budget.ratio;
        let (scores, threshold) = self.told(group, ratio, numbers);
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
        (check, standings)
    }

    /// Begins the only read of the device that a test makes.
    fn read(&self, group: &Group, evidence: &Evidence, ratio: f64) -> Reading {
        let Evidence { of, over } = evidence;
        let mut parts = vec![group.open_means(of)];
        parts.extend(over.as_ref().map(|over| group.open_means(over)));
        let place = self.rule.place(group.numel(), ratio);
        parts.extend(place.map(|k| group.kth_smallest(of, k)));
        Reading::begin(Tensor::cat(&parts, 0))
    }

    /// What such a read tells: the score of each matrix that is not frozen for good, and of a rule without a budget the
    /// score below which one freezes.
    fn told(&self, group: &Group, ratio: f64, mut numbers: Vec<f32>) -> (Vec<f64>, Option<f64>) {
        let place = self.rule.place(group.numel(), ratio);
        let threshold = place.and_then(|_| numbers.pop()).map(f64::from);
        let (of, over) = numbers.split_at(group.open().count());
        let score = |(i, of): (usize, &f32)| match over.get(i) {
            // What has nothing to be measured by has not moved, or never had a gradient.
            Some(&0.0) => 0.0,
            Some(over) => f64::from(*of) / f64::from(*over),
            None => f64::from(*of),
        };
        (of.iter().enumerate().map(score).collect(), threshold)
    }
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
        if let Some(group) = arena.group_mut(Role::Projection) {
            self.foresee(step + 1, group);
        }
        Ok(())
    }

    fn restore(&mut self, _: &HookState, _: &Arena) -> Result<()> {
        // It was of the run before.
        self.foreseen = None;
        Ok(())
    }

    fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }
}

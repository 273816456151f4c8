//! One run's freezing: fed with each step's gradient, says which matrices freeze now and why.
//!
//! The state lives in the arena's projection group, aligned element by element with the
//! parameters. Tests look at those that still train.

use super::check::{FreezeCheck, MatrixScore};
use super::rule::{element_quantile, matrix_rank, Decision, Rule};
use super::schedule::Schedule;
use super::score::Smoothed;
use super::FreezeConfig;
use crate::adapter::Role;
use crate::hook::Hook;
use crate::optim::{Arena, Gradients, Group};
use crate::span::RunLength;
use crate::Result;
use tch::{Kind, Tensor};

// Names of the state buffers.
const WINDOW: &str = "freeze.window_mean";
const SMOOTHED: [&str; 2] = ["freeze.sensitivity", "freeze.uncertainty"];

/// Decides, after each backward pass, which projection matrices freeze.
#[derive(Debug)]
pub struct FreezeController {
    config: FreezeConfig,
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
        let schedule = config.schedule(length)?;
        let remark = config.remark(length);
        Ok(FreezeController { config: config.clone(), schedule, candidates, remark })
    }

    /// Has the run told that it goes on without training anything, once all is frozen.
    pub(super) fn remark_that_nothing_else_trains(&mut self) {
        let (last, total) = (self.schedule.saturation, self.schedule.total);
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
        if !group.is_empty() {
            tch::no_grad(|| self.update_scores(t, group, gradient));
        }
    }

    /// Decides which matrices of `group` freeze at step `t`, when a test is due. The caller
    /// freezes those that the check names, before it updates parameters.
    ///
    /// # Errors
    /// libtorch cannot read the scores.
    pub fn test(&self, t: u64, group: &mut Group) -> Result<Option<FreezeCheck>> {
        if group.is_empty() || !self.is_due(t) {
            return Ok(None);
        }
        tch::no_grad(|| self.decide(t, group).map(Some))
    }

    fn update_scores(&self, t: u64, group: &mut Group, gradient: &Tensor) {
        let now = self.config.score.sensitivity(group.values(), gradient);
        match self.config.rule {
            Rule::ElementQuantile => {
                let place = t % self.config.interval;
                let mut window = group.state(WINDOW);
                if place == 0 {
                    // The window before this step is complete: take it in, start anew.
                    self.smoothed().observe(group, &window);
                    window.copy_(&now);
                } else {
                    let _ = window.lerp_(&now, 1.0 / (place + 1) as f64);
                }
            }
            Rule::MatrixRank => self.smoothed().observe(group, &now),
        }
    }

    fn smoothed(&self) -> Smoothed {
        Smoothed {
            names: SMOOTHED,
            beta1: self.config.beta1,
            beta2: self.config.beta2,
            updated: self.config.rule == Rule::ElementQuantile,
        }
    }

    /// The released code tests every ΔT steps after t_i, and at every step past T - t_f; the
    /// text's rule tests whenever r(t) asks for anything.
    fn is_due(&self, t: u64) -> bool {
        match self.config.rule {
            Rule::ElementQuantile => {
                let on_interval =
                    t > self.schedule.initial && t.is_multiple_of(self.config.interval);
                on_interval || t > self.schedule.saturation
            }
            Rule::MatrixRank => self.schedule.ratio(t) > 0.0,
        }
    }

    fn decide(&self, t: u64, group: &mut Group) -> Result<FreezeCheck> {
        let all = self.smoothed().score(group);
        // One host read for all matrices: the only one that freezing needs.
        let means: Vec<Tensor> = group.slices(&all).map(|slice| slice.mean(Kind::Float)).collect();
        let means = Vec::<f64>::try_from(Tensor::stack(&means, 0).to_kind(Kind::Double))?;
        let ratio = self.schedule.ratio(t);
        let Decision { threshold, freeze } = match self.config.rule {
            Rule::ElementQuantile => element_quantile(&group.gather(&all), &means, ratio),
            Rule::MatrixRank => matrix_rank(&means, self.candidates, ratio),
        };
        let matrices = group
            .parameters()
            .zip(means)
            .zip(freeze)
            .map(|((p, score), frozen)| MatrixScore { name: p.name.clone(), score, frozen })
            .collect();
        Ok(FreezeCheck { step: t, ratio, threshold, matrices })
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
        let check = self.test(step, group)?;
        let freeze: Vec<bool> = check.iter().flat_map(|c| &c.matrices).map(|m| m.frozen).collect();
        if freeze.contains(&true) {
            arena.freeze(Role::Projection, &freeze, gradients);
        }
        Ok(check)
    }

    fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }
}

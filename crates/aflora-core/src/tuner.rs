//! One training step: backward, clip, score, freeze, update.
//!
//! What a method does beside the update is its [`Hook`], which the tuner makes and calls. The
//! order is the method's: scores read the gradient as the backward pass left it, before
//! clipping; a matrix that freezes is not updated in the step that freezes it. (The released
//! code lets its optimiser move it once more. Here a frozen matrix never moves again.) A step
//! whose loss or gradient is not finite moves nothing, and counts.

use crate::accounting::Accounting;
use crate::adapter::Role;
use crate::error::check;
use crate::freeze::FreezeCheck;
use crate::hook::{Hook, RunLength};
use crate::optim::{
    clip_to, guard, AdamW, AdamWConfig, Arena, Gradients, LinearWarmup, Parameter, Skipped, Verdict,
};
use crate::state::{hook_key, misfit, Position, TunerState};
use crate::{Checkpoints, Error, Method, Result, Span};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// Settings of the update; the defaults are the paper's GLUE settings for MRPC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TunerConfig {
    /// Peak learning rate of projection matrices and vectors.
    pub lr: f64,
    /// Peak learning rate of the vectors, where it should differ.
    pub vector_lr: Option<f64>,
    /// Peak learning rate of the task head.
    pub head_lr: f64,
    /// Decoupled weight decay of projection matrices and vectors.
    pub weight_decay: f64,
    /// Decoupled weight decay of the head's weights (its biases have none).
    pub head_weight_decay: f64,
    /// Joint norm to which gradients are clipped; none for no clipping.
    pub max_grad_norm: Option<f64>,
    /// Linear warm-up at the start of the run.
    pub warmup: Span,
    /// AdamW's constants.
    pub adamw: AdamWConfig,
}

impl Default for TunerConfig {
    fn default() -> Self {
        TunerConfig {
            lr: 1e-2,
            vector_lr: None,
            head_lr: 8e-2,
            weight_decay: 0.1,
            head_weight_decay: 0.1,
            max_grad_norm: Some(0.1),
            warmup: Span::Share(0.06),
            adamw: AdamWConfig::default(),
        }
    }
}

impl TunerConfig {
    /// Checks every range.
    pub fn validate(&self) -> Result<()> {
        let rate = |field, lr: f64| {
            check(field, lr, lr.is_finite() && lr >= 0.0, "a finite number, at least 0")
        };
        rate("lr", self.lr)?;
        rate("vector_lr", self.vector_lr.unwrap_or(0.0))?;
        rate("head_lr", self.head_lr)?;
        rate("weight_decay", self.weight_decay)?;
        rate("head_weight_decay", self.head_weight_decay)?;
        if let Some(norm) = self.max_grad_norm {
            check("max_grad_norm", norm, norm > 0.0, "positive, or null for no clipping")?;
        }
        AdamW::new(self.adamw).map(|_| ())
    }

    /// Peak rate and weight decay of a group.
    fn rates(&self, role: Role) -> (f64, f64) {
        match role {
            Role::Projection => (self.lr, self.weight_decay),
            Role::Vector => (self.vector_lr.unwrap_or(self.lr), self.weight_decay),
            Role::SingularValue | Role::Weight => (self.lr, self.weight_decay),
            Role::Gate | Role::WeightBias => (self.lr, 0.0),
            Role::Head => (self.head_lr, self.head_weight_decay),
            Role::HeadBias => (self.head_lr, 0.0),
        }
    }
}

/// What a step did.
#[derive(Debug)]
pub struct StepReport {
    /// Completed steps before this one.
    pub step: u64,
    /// Learning rate of the projection matrices in this step.
    pub lr: f64,
    /// Joint gradient norm before clipping; on the device, not yet read.
    pub grad_norm: Tensor,
    /// Whether the step moved nothing, since its loss or gradient was not finite; on the device,
    /// not yet read.
    pub skipped: Tensor,
    /// Adapter parameters that were updated.
    pub trainable: i64,
    /// The freeze test, if one was due.
    pub check: Option<FreezeCheck>,
}

/// Trains the adapters and the head of one model over one run.
#[derive(Debug)]
pub struct Tuner {
    config: TunerConfig,
    arena: Arena,
    optimiser: AdamW,
    schedule: LinearWarmup,
    hook: Option<Box<dyn Hook>>,
    accounting: Accounting,
    gradients: Gradients,
    skipped: Skipped,
    step: u64,
}

impl Tuner {
    /// A tuner for a run of `total_steps` optimiser steps, `steps_per_epoch` an epoch.
    ///
    /// `parameters` are those of the adapters ([`Adapter::parameters`](crate::Adapter::parameters))
    /// that `method` made, and of the task head.
    ///
    /// # Errors
    /// A setting is out of range, nothing trains, two parameters share a name, or a parameter
    /// is of another method that does not train without its hook.
    pub fn new(
        config: TunerConfig,
        method: &dyn Method,
        parameters: Vec<Parameter>,
        steps_per_epoch: u64,
        total_steps: u64,
    ) -> Result<Self> {
        config.validate()?;
        check("total_steps", total_steps, total_steps > 0, "at least 1")?;
        let hook = method.hook(RunLength { steps_per_epoch, total_steps }, &parameters)?;
        if hook.is_none() {
            if let Some(parameter) = parameters.iter().find(|p| p.role.needs_hook()) {
                return Err(Error::MissingHook(parameter.name.clone()));
            }
        }
        let arena = Arena::new(parameters)?;
        Ok(Tuner {
            optimiser: AdamW::new(config.adamw)?,
            schedule: LinearWarmup {
                warmup: config.warmup.steps(steps_per_epoch, total_steps),
                total: total_steps,
            },
            accounting: Accounting::new(arena.trainable(false)),
            gradients: arena.buffer(),
            skipped: Skipped::new(0, 0, arena.device()),
            step: 0,
            config,
            arena,
            hook,
        })
    }

    /// One step on `loss`: backward and update.
    pub fn step(&mut self, loss: &Tensor) -> Result<StepReport> {
        self.accumulate(loss)?;
        self.update_of(Some(loss))
    }

    /// Adds the gradient of `loss` to the next update (gradient accumulation): of a part of the
    /// update's loss, which is the sum of its parts.
    pub fn accumulate(&mut self, loss: &Tensor) -> Result<()> {
        self.accumulate_through(loss, Checkpoints::default())
    }

    /// [`accumulate`](Self::accumulate) of a loss behind checkpointed segments.
    pub fn accumulate_through(&mut self, loss: &Tensor, checkpoints: Checkpoints) -> Result<()> {
        // Of the update, not of a part of it: it comes with the first.
        let penalty = match &self.hook {
            Some(hook) if self.gradients.is_empty() => hook.penalty(&self.arena)?,
            _ => None,
        };
        let sum = &mut self.gradients;
        match penalty {
            Some(penalty) => self.arena.add_gradients(&(loss + penalty), checkpoints, sum),
            None => self.arena.add_gradients(loss, checkpoints, sum),
        }
    }

    /// What the next update will move along: the gradients accumulated since the last.
    pub fn gradients(&self) -> &Gradients {
        &self.gradients
    }

    /// Takes it that recorded work has just run that [`accumulate`](Self::accumulate) launched
    /// when it was recorded: work that writes to [`gradients`](Self::gradients).
    ///
    /// `frozen` is how many parameters were frozen ([`Arena::frozen`]) when it was recorded. Work
    /// from before a freeze goes on to write the frozen matrices' gradients: they are zeroed.
    pub fn accumulate_replayed(&mut self, frozen: usize) {
        if frozen < self.arena.frozen() {
            self.arena.clear_frozen(&mut self.gradients);
        }
        self.gradients.mark_written();
    }

    /// Forgets what was accumulated.
    pub fn discard(&mut self) {
        self.gradients.clear();
    }

    /// Scores, freezes and updates with what was accumulated.
    ///
    /// # Errors
    /// Nothing was.
    pub fn update(&mut self) -> Result<StepReport> {
        self.update_of(None)
    }

    /// [`update`](Self::update) of a step with this loss, one number: where the loss or the
    /// gradient is not finite, nothing moves. The step counts for the schedule all the same.
    ///
    /// # Errors
    /// Nothing was accumulated.
    pub fn update_of(&mut self, loss: Option<&Tensor>) -> Result<StepReport> {
        if self.gradients.is_empty() {
            return Err(Error::NoGradient);
        }
        let Verdict { norm, clip, bad, leave_out } = guard(&mut self.gradients, loss);
        self.skipped.count(&bad);
        let factor = self.schedule.factor(self.step);
        let (grad_norm, check) = match leave_out {
            true => (norm, None),
            false => self.apply(factor, norm, clip)?,
        };
        self.gradients.clear();
        let trainable = self.trainable();
        self.accounting.step(trainable);
        let (step, lr) = (self.step, self.config.lr * factor);
        self.step += 1;
        Ok(StepReport { step, lr, grad_norm, skipped: bad, trainable, check })
    }

    /// The part of an update that moves something; gives the norm that counts, and the test.
    fn apply(
        &mut self,
        factor: f64,
        mut norm: Tensor,
        mut clip: Tensor,
    ) -> Result<(Tensor, Option<FreezeCheck>)> {
        let gradients = &mut self.gradients;
        let frozen = self.arena.frozen();
        let check = match &mut self.hook {
            Some(hook) => hook.after_backward(self.step, &mut self.arena, gradients)?,
            None => None,
        };
        for name in check.iter().flat_map(FreezeCheck::frozen) {
            self.accounting.froze(name, self.step);
        }
        if self.arena.frozen() != frozen {
            // What just froze is not clipped for.
            norm = tch::no_grad(|| gradients.flat().norm());
            clip = norm.shallow_clone();
        }
        clip_to(gradients, &clip, self.config.max_grad_norm);
        for (role, group) in self.arena.groups_mut() {
            if let Some(gradient) = gradients.get(role) {
                let (peak, decay) = self.config.rates(role);
                self.optimiser.update(group, gradient, self.step + 1, peak * factor, decay);
            }
        }
        if let Some(hook) = &mut self.hook {
            hook.after_update(self.step, &mut self.arena, gradients)?;
        }
        Ok((norm, check))
    }

    /// Steps that moved nothing, since loss or gradient was not finite: in all, and in a row up
    /// to the last step. Waits for the device.
    pub fn skipped(&self) -> Result<(u64, u64)> {
        self.skipped.read()
    }

    /// All that training changes, to be kept. The tensors are the tuner's own: they are to be
    /// written before the next step. Nothing may be accumulated.
    pub fn state(&self) -> Result<TunerState> {
        let mut tensors = BTreeMap::new();
        let groups =
            self.arena.groups().map(|(role, group)| group.state_of(role, &mut tensors)).collect();
        let hook = self.hook.as_ref().map(|hook| hook.state()).unwrap_or_default();
        tensors.extend(hook.tensors.into_iter().map(|(name, t)| (hook_key(&name), t)));
        let (skipped, skipped_in_a_row) = self.skipped()?;
        let position = Position {
            step: self.step,
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
        if let Some(hook) = &mut self.hook {
            hook.restore(&state.hook(), &self.arena)?;
        }
        tch::no_grad(|| {
            let mut pairs = self.arena.groups_mut().zip(groups);
            pairs.try_for_each(|((_, group), of)| group.restore(of, state))
        })?;
        // Recorded work goes on to write to this very buffer.
        self.gradients.clear();
        self.arena.clear_frozen(&mut self.gradients);
        self.skipped = Skipped::new(*skipped, *skipped_in_a_row, self.arena.device());
        self.accounting = accounting.clone();
        self.step = *step;
        Ok(())
    }

    /// What users should know of how the method will treat this run, in one line.
    pub fn remark(&self) -> Option<&str> {
        self.hook.as_ref().and_then(|hook| hook.remark())
    }

    /// Steps completed.
    pub fn completed(&self) -> u64 {
        self.step
    }

    /// Trainable adapter parameters so far, and when matrices froze.
    pub fn accounting(&self) -> &Accounting {
        &self.accounting
    }

    /// The parameters that train now.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Adapter parameters that train now.
    pub fn trainable(&self) -> i64 {
        self.arena.trainable(false) - self.hook.as_ref().map_or(0, |hook| hook.held())
    }

    /// Rank components in use over all adapters, where the method changes it. May read from the
    /// device.
    pub fn rank_in_use(&self) -> Option<i64> {
        self.hook.as_ref().and_then(|hook| hook.rank_in_use(&self.arena))
    }

    /// Parameters that no update has moved so far: none had a gradient other than zero.
    ///
    /// After some steps there should be none. An adapter on a layer that the model's forward
    /// pass goes around, for one, shows here. Reads from the device.
    pub fn unmoved(&mut self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for (_, group) in self.arena.groups_mut().filter(|(_, group)| !group.is_empty()) {
            let moments = self.optimiser.first_moment(group);
            let largest: Vec<Tensor> = group.slices(&moments).map(|m| m.abs().max()).collect();
            let largest = Vec::<f64>::try_from(Tensor::stack(&largest, 0).to_kind(Kind::Double))?;
            let still = group.parameters().zip(largest).filter(|(_, largest)| *largest == 0.0);
            names.extend(still.map(|(parameter, _)| parameter.name.clone()));
        }
        Ok(names)
    }
}

//! What trains a model: its parameters, its optimiser and what its method does beside, over one
//! run.
//!
//! * `step`: one training step, in the method's order
//! * `graphs`: forward and backward passes that are recorded once and replayed
//! * `resume`: all that changes, to stop and to go on
//! * `ranks`: the one message of several processes that train together

mod config;
mod graphs;
mod ranks;
mod resume;
mod step;

pub use config::TunerConfig;
pub use graphs::{MapTensors, StepGraphs};
pub use step::{Loss, StepReport};

use crate::accounting::Accounting;
use crate::error::check;
use crate::hook::{Hook, NoHook};
use crate::optim::{AdamW, Arena, Gradients, Parameter, Schedule, Skipped};
use crate::{Error, Method, Result, RunLength};
use aflora_cuda::World;
use tch::{Kind, Tensor};

/// Trains the adapters and the head of one model over one run.
///
/// A [`step`](Self::step) is made of two halves, which may be called by themselves:
/// [`backward`](Self::backward), or [`forward_backward`](Self::forward_backward) over several
/// batches, and [`update`](Self::update).
#[derive(Debug)]
pub struct Tuner {
    config: TunerConfig,
    arena: Arena,
    optimiser: AdamW,
    schedule: Schedule,
    /// What the method does beside the update.
    hook: Box<dyn Hook>,
    accounting: Accounting,
    /// What the next update will move along, and the loss that it is the gradient of.
    gradients: Gradients,
    loss: Option<Tensor>,
    skipped: Skipped,
    /// How many steps are completed.
    completed: u64,
    /// The processes that train together, each with its share of the batches.
    world: World,
    /// Whether gradients and loss are those of all of them already.
    reduced: bool,
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
        mut parameters: Vec<Parameter>,
        steps_per_epoch: u64,
        total_steps: u64,
    ) -> Result<Self> {
        config.validate()?;
        config.set_rates(&mut parameters)?;
        check("total_steps", total_steps, total_steps > 0, "at least 1")?;
        let length = RunLength { steps_per_epoch, total_steps };
        let hook = method.hook(length, &parameters)?;
        let unserved = parameters.iter().find(|p| hook.is_none() && p.role.needs_hook());
        if let Some(parameter) = unserved {
            return Err(Error::MissingHook(parameter.name.clone()));
        }
        let arena = Arena::new(parameters)?;
        Ok(Tuner {
            optimiser: AdamW::new(config.adamw)?,
            schedule: config.schedule(length),
            accounting: Accounting::new(arena.trainable(false)),
            gradients: arena.buffer(),
            skipped: Skipped::new(0, 0, arena.device()),
            loss: None,
            completed: 0,
            world: World::alone(),
            reduced: false,
            config,
            hook: hook.unwrap_or_else(|| Box::new(NoHook)),
            arena,
        })
    }

    /// What the next update will move along: the gradients accumulated since the last.
    pub fn gradients(&self) -> &Gradients {
        &self.gradients
    }

    /// The loss that they are the gradient of, `[]`, on the device.
    pub fn loss(&self) -> Option<&Tensor> {
        self.loss.as_ref()
    }

    /// Drops the gradients and the loss that were accumulated since the last update.
    pub fn discard(&mut self) {
        self.gradients.clear();
        self.loss = None;
        self.reduced = false;
    }

    /// Counts a part of the next update's loss.
    fn add_loss(&mut self, part: Tensor) {
        self.loss = Some(match self.loss.take() {
            Some(sum) => sum + part,
            None => part,
        });
    }

    /// Steps that moved nothing, since loss or gradient was not finite: in all, and in a row up
    /// to the last step. Waits for the device.
    ///
    /// # Errors
    /// libtorch cannot read them.
    pub fn skipped(&self) -> Result<(u64, u64)> {
        self.skipped.read()
    }

    /// What users should know of how the method will treat this run, in one line.
    pub fn remark(&self) -> Option<&str> {
        self.hook.remark()
    }

    /// How many steps are completed.
    pub fn completed(&self) -> u64 {
        self.completed
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
        self.arena.trainable(false) - self.hook.frozen_in_place()
    }

    /// Rank components in use over all adapters, where the method changes it. May read from the
    /// device.
    pub fn rank_in_use(&self) -> Option<i64> {
        self.hook.rank_in_use(&self.arena)
    }

    /// Parameters that no update has moved so far: none had a gradient other than zero.
    ///
    /// After some steps there should be none. An adapter on a layer that the model's forward
    /// pass goes around, for one, shows here. Reads from the device.
    ///
    /// # Errors
    /// libtorch cannot read the moments.
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

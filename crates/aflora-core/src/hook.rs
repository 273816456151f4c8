//! What a method does during training, beside the gradient step.
//!
//! AFLoRA freezes matrices, AdaLoRA keeps a budget, SoRA shrinks its gates. Each is a [`Hook`]:
//! the [`Tuner`](crate::Tuner) makes it from the method and calls it at fixed places of every
//! step, knowing no method by name.

use crate::freeze::FreezeCheck;
use crate::optim::{Arena, Gradients};
use crate::state::HookState;
use crate::Result;
use std::fmt::Debug;
use tch::Tensor;

/// The length of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunLength {
    /// Optimiser steps an epoch.
    pub steps_per_epoch: u64,
    /// Optimiser steps in all.
    pub total_steps: u64,
}

/// A method's part in a training step. `step` counts completed optimiser steps, from 0.
pub trait Hook: Debug {
    /// Something to add to the loss of an update before its backward pass, one number; once an
    /// update, however many pieces its loss comes in.
    fn penalty(&self, _arena: &Arena) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// Sees the gradients as the backward pass left them, before clipping; may take parameters
    /// out of the arena, which the update then leaves alone.
    fn after_backward(
        &mut self,
        _step: u64,
        _arena: &mut Arena,
        _gradients: &mut Gradients,
    ) -> Result<Option<FreezeCheck>> {
        Ok(None)
    }

    /// Sees the updated parameters and the (clipped) gradients that moved them.
    fn after_update(
        &mut self,
        _step: u64,
        _arena: &mut Arena,
        _gradients: &Gradients,
    ) -> Result<()> {
        Ok(())
    }

    /// Adapter parameters that lie in the arena but are held where they are.
    fn held(&self) -> i64 {
        0
    }

    /// Rank components in use over all adapters, where the method changes it. May read from the
    /// device.
    fn rank_in_use(&self, _arena: &Arena) -> Option<i64> {
        None
    }

    /// What users should know of how it will treat this run, in one line.
    fn remark(&self) -> Option<&str> {
        None
    }

    /// What it keeps that the next steps depend on, beside the groups' buffers.
    fn state(&self) -> HookState {
        HookState::default()
    }

    /// Takes up a [`state`](Self::state) of a hook made for the same parameters and run.
    ///
    /// # Errors
    /// The state is of another hook; nothing is changed then.
    fn restore(&mut self, _state: &HookState, _arena: &Arena) -> Result<()> {
        Ok(())
    }
}

//! What a method does during training, beside the gradient step.
//!
//! AFLoRA freezes matrices, AdaLoRA keeps a budget, SoRA shrinks its gates. Each is a [`Hook`]:
//! the [`Tuner`](crate::Tuner) has it from the method and calls it at fixed places of every step,
//! knowing no method by name.

use crate::freeze::FreezeCheck;
use crate::optim::{Arena, Gradients};
use crate::state::HookState;
use crate::Result;
use std::fmt::Debug;
use tch::Tensor;

/// A method's part in a training step, in the order of the step. `step` counts completed optimiser
/// steps, from 0.
pub trait Hook: Debug {
    /// Something to add to the loss of an update before its backward pass, `[]`; once an update,
    /// however many batches it has.
    ///
    /// # Errors
    /// libtorch refuses an operation; as everywhere below.
    fn penalty(&self, _arena: &Arena) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// Takes in the gradients as the backward pass left them, before clipping.
    ///
    /// # Errors
    /// As [`penalty`](Self::penalty).
    fn score(&mut self, _step: u64, _arena: &mut Arena, _gradients: &Gradients) -> Result<()> {
        Ok(())
    }

    /// Takes parameters out of the arena where a test of their scores says so; this step's update
    /// already leaves them alone. Gives the test, if one was due.
    ///
    /// # Errors
    /// As [`penalty`](Self::penalty).
    fn freeze(
        &mut self,
        _step: u64,
        _arena: &mut Arena,
        _gradients: &mut Gradients,
    ) -> Result<Option<FreezeCheck>> {
        Ok(None)
    }

    /// Sees the updated parameters and the (clipped) gradients that moved them.
    ///
    /// # Errors
    /// As [`penalty`](Self::penalty).
    fn after_update(
        &mut self,
        _step: u64,
        _arena: &mut Arena,
        _gradients: &Gradients,
    ) -> Result<()> {
        Ok(())
    }

    /// How many adapter parameters are frozen within tensors that still train: they lie in the
    /// arena, and every update puts them back.
    fn frozen_in_place(&self) -> i64 {
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

/// What a method has that does nothing beside the update.
#[derive(Debug)]
pub(crate) struct NoHook;

impl Hook for NoHook {}

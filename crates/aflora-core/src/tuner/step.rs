//! One training step, from top to bottom as the paper has it:
//!
//! forward → loss → backward → (reduce) → guard → score → freeze → clip → update
//!
//! [`Tuner::forward_backward`] is the first three, [`Tuner::update`] the rest; there are no others.
//! A step that is launched operation by operation, one that is recorded and replayed as a CUDA
//! graph ([`StepGraphs`]), and one of a run that was taken up again are all made here. Who wants
//! to look on, to log gradients for one, does so between the two.

use super::graphs::{PassOutput, StepGraphs};
use super::Tuner;
use crate::freeze::FreezeCheck;
use crate::optim::{clip_to, guard, joint_norm, GroupUpdate};
use crate::{Checkpoints, Error, MapTensors, Result};
use tch::Tensor;

/// A loss, and what it takes to differentiate it.
#[derive(Debug)]
#[must_use]
pub struct Loss {
    /// One number that depends on the trained parameters, `[]`.
    pub value: Tensor,
    /// The checkpointed segments of the forward pass that gave it; none where the model keeps
    /// everything.
    pub checkpoints: Checkpoints,
}

impl From<Tensor> for Loss {
    fn from(value: Tensor) -> Self {
        Loss { value, checkpoints: Checkpoints::default() }
    }
}

impl From<&Tensor> for Loss {
    fn from(value: &Tensor) -> Self {
        value.shallow_clone().into()
    }
}

/// What a step did. Its tensors lie on the device and are not read yet: reading one waits for it.
#[derive(Debug)]
pub struct StepReport {
    /// Completed steps before this one.
    pub step: u64,
    /// Learning rate of the projection matrices in this step.
    pub lr: f64,
    /// The loss, `[]`. Of a recorded step, or one of several ranks, it holds this value until the next
    /// step.
    pub loss: Tensor,
    /// Joint gradient norm before clipping, `[]`.
    pub grad_norm: Tensor,
    /// Whether the step moved nothing, since its loss or gradient was not finite; `[]`, Bool.
    pub skipped: Tensor,
    /// Adapter parameters that were updated.
    pub trainable: i64,
    /// The freeze test, if one was due.
    pub check: Option<FreezeCheck>,
}

impl Tuner {
    /// One step on a loss at hand: backward, and all that follows.
    ///
    /// # Errors
    /// The loss is not one number that depends on the parameters, or libtorch refuses an
    /// operation.
    pub fn step(&mut self, loss: impl Into<Loss>) -> Result<StepReport> {
        self.backward(loss)?;
        self.update()
    }

    /// The first half of a step: forward, loss and backward of its batches, one after the other.
    /// How many batches a step is cut into is for the memory to decide.
    ///
    /// Of several ranks that [train together](Self::join) each brings its share of the batches, none
    /// maybe; `items` are those of all. They are added up here.
    ///
    /// `forward` gives a batch's loss, `[]`, as a *sum* over its items (rows, or tokens); `items` is how
    /// many of them all batches have together. So the step's loss is the mean over its items, and
    /// the same however they are cut into batches, up to rounding.
    ///
    /// Batches may lie on the host: each is taken to the device of `graphs`, for `forward` to
    /// find it there. What `graphs` records must only launch: no value may travel to the host, and
    /// what `forward` reads but the batch and the parameters stays as it was then.
    ///
    /// # Errors
    /// Those of `forward`, and those of [`backward`](Self::backward). What was accumulated up to
    /// then is still there: [`discard`](Self::discard) it.
    pub fn forward_backward<B: MapTensors, E: From<Error>>(
        &mut self,
        batches: impl IntoIterator<Item = B>,
        items: f64,
        graphs: &mut StepGraphs,
        forward: impl Fn(&B) -> Result<Loss, E>,
    ) -> Result<(), E> {
        for (i, batch) in batches.into_iter().enumerate() {
            if i < 2 {
                // A recorded loss holds its value until the next batch's.
                self.loss = self.loss.take().map(|loss| loss.copy());
            }
            let loss = graphs.run(self, &batch, items, |tuner, batch, items| {
                // Forward and loss: the caller's model.
                let Loss { value: sum, checkpoints } = forward(batch)?;
                let loss = sum / items;
                // Backward: into the sum of this step's gradients.
                let seeded = checkpoints.is_random();
                tuner.differentiate(&loss, checkpoints)?;
                Ok::<_, E>(PassOutput { loss: loss.detach(), seeded })
            })?;
            self.add_loss(loss);
        }
        // Reduce: what comes next, and whoever looks on, sees the gradient of all ranks.
        Ok(self.reduce()?)
    }

    /// Backward alone, of a loss at hand: its gradient is added to the next update's. An update of
    /// several losses is that of their sum.
    ///
    /// # Errors
    /// The loss is not one number that depends on the parameters, its checkpoints are of another
    /// forward pass, or libtorch refuses an operation.
    pub fn backward(&mut self, loss: impl Into<Loss>) -> Result<()> {
        let Loss { value, checkpoints } = loss.into();
        self.differentiate(&value, checkpoints)?;
        self.add_loss(value.detach());
        Ok(())
    }

    /// The second half of a step: what comes of the gradients since the last.
    ///
    /// # Errors
    /// There are none, or libtorch refuses an operation.
    pub fn update(&mut self) -> Result<StepReport> {
        // Reduce, where that is not done: before anything is decided by gradients and loss.
        if self.loss.is_some() {
            self.reduce()?;
        }
        self.reduced = false;
        let loss = self.loss.take().ok_or(Error::NoGradient)?;
        let (step, factor) = (self.completed, self.schedule.factor(self.completed));
        let (arena, gradients) = (&mut self.arena, &mut self.gradients);

        // Guard: a step whose loss or gradient is not finite counts, and moves nothing.
        let guarded = guard(gradients, &loss, &self.skipped);
        let (mut grad_norm, mut clipped_by) = (guarded.norm, guarded.finite_norm);
        let mut check = None;
        if !guarded.leave_out {
            // Score (Eq. 2-4), by the gradients as the backward pass left them.
            self.hook.score(step, arena, gradients)?;

            // Freeze (Eq. 5). A matrix that freezes is neither updated nor clipped for any more.
            // (The released code lets its optimiser move it once more.)
            // What was only looked at is not clipped for either.
            let (frozen, probed) = (arena.frozen(), arena.probes());
            check = self.hook.freeze(step, arena, gradients)?;
            if arena.frozen() != frozen || probed {
                grad_norm = joint_norm(gradients);
                clipped_by = grad_norm.shallow_clone();
            }

            // Clip, to the joint norm of what still trains.
            clip_to(gradients, &clipped_by, self.config.max_grad_norm);

            // Update what still trains, and then what the method does to it.
            let groups = arena.groups_mut().filter_map(|(role, group)| {
                let (peak, decay) = self.config.rates(role);
                let (gradient, lr) = (gradients.get(role)?, peak * factor);
                Some(GroupUpdate { group, gradient, lr, decay })
            });
            self.optimiser.update(step + 1, groups);
            self.hook.after_update(step, arena, gradients)?;
        }
        gradients.clear();

        if let Some(check) = &check {
            check.thawed.iter().for_each(|name| self.accounting.thawed(name));
            check.frozen().for_each(|name| self.accounting.froze(name, step));
        }
        let trainable = self.trainable();
        self.accounting.step(trainable);
        self.completed += 1;
        let lr = self.config.lr * factor;
        Ok(StepReport { step, lr, loss, grad_norm, skipped: guarded.bad, trainable, check })
    }

    /// Adds d loss / d parameter to the gradients of the next update.
    fn differentiate(&mut self, loss: &Tensor, checkpoints: Checkpoints) -> Result<()> {
        // A method's penalty is one of the update, not of a batch: it comes with the first.
        let penalty = match self.adds_penalty() {
            true => self.hook.penalty(&self.arena)?,
            false => None,
        };
        let sum = &mut self.gradients;
        match penalty {
            Some(penalty) => self.arena.add_gradients(&(loss + penalty), checkpoints, sum),
            None => self.arena.add_gradients(loss, checkpoints, sum),
        }
    }
}

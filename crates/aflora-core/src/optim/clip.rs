//! Gradient clipping by global norm, on the device: no value travels to the host.

use super::Gradients;
use aflora_cuda::ops;
use tch::Tensor;

/// Scales all gradients so that their joint 2-norm is at most `max_norm`; gives the norm before,
/// `[]`.
///
/// The factor is min(1, max_norm / (norm + 1e-6)), PyTorch's `clip_grad_norm_`.
pub fn clip_global_norm(gradients: &mut Gradients, max_norm: Option<f64>) -> Tensor {
    let norm = joint_norm(gradients);
    clip_to(gradients, &norm, max_norm);
    norm
}

/// The joint 2-norm of all gradients, `[]`.
pub(crate) fn joint_norm(gradients: &Gradients) -> Tensor {
    tch::no_grad(|| ops::joint_norm(gradients.flat()).unwrap_or_else(|| gradients.flat().norm()))
}

/// [`clip_global_norm`] of gradients whose norm, `[]`, is known.
pub(crate) fn clip_to(gradients: &mut Gradients, norm: &Tensor, max_norm: Option<f64>) {
    let Some(max_norm) = max_norm else { return };
    tch::no_grad(|| {
        if ops::clip(gradients.flat(), norm, max_norm) {
            return;
        }
        let factor = ((norm + 1e-6).reciprocal() * max_norm).clamp_max(1.0);
        let _ = gradients.flat().shallow_clone().g_mul_(&factor);
    });
}

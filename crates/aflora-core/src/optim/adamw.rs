//! AdamW with decoupled weight decay (Loshchilov and Hutter), over one flat buffer a group.
//!
//! PyTorch's arithmetic in PyTorch's order, so that golden values agree:
//!
//! ```text
//! p ← p (1 - lr λ)
//! m ← m + (1 - β₁)(g - m)      v ← β₂ v + (1 - β₂) g²
//! p ← p - lr / (1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + ε)
//! ```
//!
//! tch's own optimiser can neither save its state nor leave a frozen tensor alone: momentum
//! keeps moving it. Here the update goes over what still trains, and nothing else: on a GPU in one launch
//! for all of a group that has one rate, in however many pieces it lies (aflora-cuda's kernels/adamw.cu).

use super::arena::{part, LiveAt};
use super::Group;
use crate::error::check;
use crate::Result;
use aflora_cuda::ops::{self, AdamWUpdate};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use tch::Tensor;

const FIRST: &str = "adamw.exp_avg";
const SECOND: &str = "adamw.exp_avg_sq";

/// AdamW's constants; the rate and decay are each group's own.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        AdamWConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8 }
    }
}

/// The optimiser. Its moments live in the groups that it updates.
#[derive(Debug, Clone)]
pub struct AdamW(AdamWConfig);

impl AdamW {
    /// An optimiser with these constants.
    ///
    /// # Errors
    /// A constant is out of its range: which, and what it must be.
    pub fn new(config: AdamWConfig) -> Result<Self> {
        let unit = |field, beta: f64| {
            check(field, beta, (0.0..1.0).contains(&beta), "at least 0 and below 1")
        };
        unit("adamw.beta1", config.beta1)?;
        unit("adamw.beta2", config.beta2)?;
        check("adamw.eps", config.eps, config.eps > 0.0 && config.eps.is_finite(), "positive")?;
        Ok(AdamW(config))
    }

    /// The first moment of everything in `group`, laid out like its values, `[n]`.
    pub(crate) fn first_moment(&self, group: &mut Group) -> Tensor {
        group.state(FIRST)
    }

    /// Updates what trains of `group` with its `gradient`, laid out like its values, `[n]`; `t`
    /// counts updates from 1.
    pub fn update(&self, group: &mut Group, gradient: &Tensor, t: u64, lr: f64, decay: f64) {
        if group.is_empty() {
            return;
        }
        tch::no_grad(|| {
            let (first, second) = (group.state(FIRST), group.state(SECOND));
            let AdamWConfig { beta1, beta2, eps } = self.0;
            for LiveAt { rate, stretches, pieces } in &group.by_rate {
                let update = AdamWUpdate {
                    values: group.values(),
                    gradient,
                    moments: [&first, &second],
                    t,
                    lr: lr * rate,
                    betas: [beta1, beta2],
                    eps,
                    decay,
                };
                if !pieces.as_ref().is_some_and(|pieces| ops::adamw(&update, pieces)) {
                    stretches.iter().for_each(|stretch| composed(&update, stretch));
                }
            }
        });
    }
}

/// The update of one stretch by libtorch's plain operations.
fn composed(of: &AdamWUpdate, stretch: &Range<i64>) {
    let AdamWUpdate { t, lr, betas: [beta1, beta2], eps, decay, .. } = *of;
    let [mut values, gradient, mut first, mut second] =
        [of.values, of.gradient, of.moments[0], of.moments[1]].map(|flat| part(flat, stretch));
    let _ = first.lerp_(&gradient, 1.0 - beta1);
    let _ = second.g_mul_scalar_(beta2);
    let _ = second.addcmul_(&(&gradient * (1.0 - beta2)), &gradient);
    // With a rate of zero only the moments move; the division below would be 0 · ∞.
    if lr == 0.0 {
        return;
    }
    let correction1 = 1.0 - beta1.powf(t as f64);
    let correction2 = 1.0 - beta2.powf(t as f64);
    let step = -lr / correction1;
    // p + m / (denominator / step): one fused kernel, tch's addcdiv_ takes no factor.
    let mut denominator = second.sqrt();
    let _ = denominator.g_mul_scalar_(1.0 / (correction2.sqrt() * step));
    let _ = denominator.g_add_scalar_(eps / step);
    if decay != 0.0 {
        let _ = values.g_mul_scalar_(1.0 - lr * decay);
    }
    let _ = values.addcdiv_(&first, &denominator);
}

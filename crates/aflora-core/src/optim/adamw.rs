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
//! keeps moving it. Here the update goes over what still trains, and nothing else.

use super::Group;
use crate::error::check;
use crate::Result;
use serde::{Deserialize, Serialize};
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

/// A stretch of a group that still trains, and what its update needs.
struct Stretch {
    values: Tensor,
    first: Tensor,
    second: Tensor,
    gradient: Tensor,
    t: u64,
    lr: f64,
    decay: f64,
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
            for (live, rate) in group.live().iter().zip(group.rates()) {
                let part = |t: &Tensor| t.narrow(0, live.start, live.end - live.start);
                self.update_stretch(Stretch {
                    values: part(group.values()),
                    first: part(&first),
                    second: part(&second),
                    gradient: part(gradient),
                    t,
                    lr: lr * rate,
                    decay,
                });
            }
        });
    }

    fn update_stretch(&self, stretch: Stretch) {
        let AdamWConfig { beta1, beta2, eps } = self.0;
        let Stretch { mut values, mut first, mut second, gradient, t, lr, decay } = stretch;
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
}

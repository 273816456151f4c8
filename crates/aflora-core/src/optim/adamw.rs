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
//! for up to eight groups and rates, in however many pieces they lie (aflora-cuda's kernels/adamw.cu).

use super::arena::{part, LiveAt};
use super::Group;
use crate::error::check;
use crate::Result;
use aflora_cuda::ops::{self, AdamWStep, AdamWUpdate};
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

    /// Updates what trains of these groups; `t` counts updates from 1.
    pub fn update<'a>(&self, t: u64, groups: impl IntoIterator<Item = GroupUpdate<'a>>) {
        let AdamWConfig { beta1, beta2, eps } = self.0;
        let step = AdamWStep { t, betas: [beta1, beta2], eps };
        tch::no_grad(|| {
            let moving: Vec<Moving> = groups
                .into_iter()
                .filter(|update| !update.group.is_empty())
                .map(|update| Moving {
                    moments: [FIRST, SECOND].map(|name| update.group.state(name)),
                    update,
                })
                .collect();
            if moving.is_empty() {
                return;
            }
            let by_kernel = moving.iter().flat_map(Moving::by_kernel).collect::<Option<Vec<_>>>();
            if by_kernel.is_some_and(|updates| ops::adamw(&step, &updates)) {
                return;
            }
            for moving in &moving {
                for LiveAt { rate, stretches, .. } in &moving.update.group.by_rate {
                    stretches.iter().for_each(|stretch| moving.compose(&step, *rate, stretch));
                }
            }
        });
    }
}

/// What an update does to a group.
#[derive(Debug)]
pub struct GroupUpdate<'a> {
    /// What trains of it is updated.
    pub group: &'a mut Group,
    /// Its gradient, laid out like its values, `[n]`.
    pub gradient: &'a Tensor,
    /// The rate.
    pub lr: f64,
    /// Decay of its values.
    pub decay: f64,
}

/// A group that is updated, with its moments.
struct Moving<'a> {
    update: GroupUpdate<'a>,
    moments: [Tensor; 2],
}

impl Moving<'_> {
    /// An update for each rate; none on a CPU.
    fn by_kernel(&self) -> impl Iterator<Item = Option<AdamWUpdate<'_>>> {
        let GroupUpdate { group, gradient, lr, decay } = &self.update;
        group.by_rate.iter().map(move |LiveAt { rate, pieces, .. }| {
            Some(AdamWUpdate {
                values: group.values(),
                gradient,
                moments: self.moments.each_ref(),
                pieces: pieces.as_ref()?,
                lr: lr * rate,
                decay: *decay,
            })
        })
    }

    /// The update of one stretch by libtorch's plain operations.
    fn compose(&self, step: &AdamWStep, rate: f64, stretch: &Range<i64>) {
        let GroupUpdate { group, gradient, lr, decay } = &self.update;
        let (lr, AdamWStep { t, betas: [beta1, beta2], eps }) = (lr * rate, *step);
        let [first, second] = &self.moments;
        let [mut values, gradient, mut first, mut second] =
            [group.values(), *gradient, first, second].map(|flat| part(flat, stretch));
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
        if *decay != 0.0 {
            let _ = values.g_mul_scalar_(1.0 - lr * decay);
        }
        let _ = values.addcdiv_(&first, &denominator);
    }
}

//! The freezing score of a projection matrix's elements (Eq. 2-4).
//!
//! ```text
//! I(t) = |∇L|                                     sensitivity            (Eq. 2)
//! Ī(t) = β₁ Ī(t-1) + (1 - β₁) I(t)                smoothed sensitivity   (Eq. 3)
//! U(t) = |I(t) - Ī|   Ū(t) = β₂ Ū(t-1) + (1 - β₂) U(t)   uncertainty     (Eq. 4)
//! s(t) = Ī(t) ⊙ Ū(t)
//! ```
//!
//! Which Ī stands in U, and how often I is taken, is the rule's: see [`Rule`](super::Rule).

use super::FreezeConfig;
use crate::optim::Group;
use aflora_cuda::ops::{self, Sensitivity, Smoothing};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Ī and Ū of every element of a group, in buffers that go with it (Eq. 3-4).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Smoothed {
    /// The names of the buffers of Ī and Ū.
    pub names: [&'static str; 2],
    /// β₁, which smooths Ī.
    pub beta1: f64,
    /// β₂, which smooths Ū.
    pub beta2: f64,
    /// Whether U compares with the Ī that already holds this I (the released code, AdaLoRA), or
    /// with the one before (the paper's text).
    pub updated: bool,
}

impl Smoothed {
    /// As the paper's text has it, with these settings.
    pub fn of(config: &FreezeConfig) -> Self {
        let FreezeConfig { beta1, beta2, .. } = *config;
        let names = ["freeze.sensitivity", "freeze.uncertainty"];
        Smoothed { names, beta1, beta2, updated: false }
    }

    /// Takes in I of a step (or of a window of steps), laid out like the group's values, `[n]`.
    pub fn observe(&self, group: &mut Group, now: &Tensor) {
        let smoothed = self.names.map(|name| group.state(name));
        self.smooth(smoothed.each_ref(), now, group.observed().as_ref());
    }

    /// s = Ī ⊙ Ū of every element, laid out like the group's values, `[n]`.
    pub fn score(&self, group: &mut Group) -> Tensor {
        group.state(self.names[0]) * group.state(self.names[1])
    }

    /// What s will be once it has taken in `now`, `[n]`.
    pub fn score_after(&self, group: &mut Group, now: &Tensor) -> Tensor {
        let smoothed = self.names.map(|name| group.state(name).copy());
        self.smooth(smoothed.each_ref(), now, group.observed().as_ref());
        let [sensitivity, uncertainty] = smoothed;
        sensitivity * uncertainty
    }

    /// Moves Ī and Ū towards `now`; where this step has no gradient, since a matrix rests, and `observed` is zero, they
    /// stay.
    fn smooth(&self, [mean, deviation]: [&Tensor; 2], now: &Tensor, observed: Option<&Tensor>) {
        let (shares, updated) = ([1.0 - self.beta1, 1.0 - self.beta2], self.updated);
        if (Smoothing { mean, deviation, shares, updated }).observe(now, observed) {
            return;
        }
        let from_mean = || (now - mean).abs_();
        let toward = |buffer: &Tensor, now: &Tensor, share: f64| {
            let mut buffer = buffer.shallow_clone();
            match observed {
                None => drop(buffer.lerp_(now, share)),
                Some(observed) => drop(buffer.lerp_tensor_(now, &(observed * share))),
            }
        };
        let before = (!updated).then(from_mean);
        toward(mean, now, shares[0]);
        toward(deviation, &before.unwrap_or_else(from_mean), shares[1]);
    }
}

/// What an element's sensitivity is; g is its gradient, p its value (Figure 4).
///
/// An element that is exactly zero has sensitivity zero under all three: |p·g| says so, the
/// released code's |sign(p)·g| does too, and |g / p| has no better value there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Score {
    /// |g|, the paper's choice.
    #[default]
    #[serde(alias = "|g|")]
    Gradient,
    /// |p·g|, the first-order change of the loss when the element is removed.
    #[serde(alias = "|p*g|")]
    ParameterGradient,
    /// |g / p|, the gradient relative to the element.
    #[serde(alias = "|g/p|")]
    RelativeGradient,
}

impl Score {
    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Score::Gradient => "gradient",
            Score::ParameterGradient => "parameter_gradient",
            Score::RelativeGradient => "relative_gradient",
        }
    }

    /// The sensitivity I of every element; `parameter` and `gradient` are `[n]`.
    pub(crate) fn sensitivity(self, parameter: &Tensor, gradient: &Tensor) -> Tensor {
        let fused = match self {
            Score::Gradient => Sensitivity::Gradient,
            Score::ParameterGradient => Sensitivity::ParameterGradient,
            Score::RelativeGradient => Sensitivity::RelativeGradient,
        };
        if let Some(sensitivity) = ops::sensitivity(parameter, gradient, fused) {
            return sensitivity;
        }
        match self {
            Score::Gradient => (parameter.sign() * gradient).abs(),
            Score::ParameterGradient => (parameter * gradient).abs(),
            Score::RelativeGradient => {
                let ratio = (gradient / parameter).abs();
                ratio.masked_fill(&parameter.eq(0.0), 0.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_that_is_zero_has_no_sensitivity() {
        let p = Tensor::from_slice(&[0.0f32, 2.0, -4.0]);
        let g = Tensor::from_slice(&[3.0f32, -5.0, 8.0]);
        for (score, expected) in [
            (Score::Gradient, [0.0f32, 5.0, 8.0]),
            (Score::ParameterGradient, [0.0, 10.0, 32.0]),
            (Score::RelativeGradient, [0.0, 2.5, 2.0]),
        ] {
            assert_eq!(score.sensitivity(&p, &g), Tensor::from_slice(&expected), "{score:?}");
        }
    }
}

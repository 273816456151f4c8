//! AdaLoRA (Zhang et al. 2023): y = W0 x + (alpha / (rank + 1e-5)) · B (λ ⊙ (A x)), the form of a
//! singular value decomposition, with a budget of singular values λ over all layers.
//!
//! Every step scores each element by |p · g|, smoothed, times its smoothed uncertainty (Eq. 3-4
//! with the parameter's value in Eq. 2). A triplet (a row of A, a value λ, a column of B) has the
//! score of its value plus the means of its row and column. While the budget falls on a cubic
//! schedule, the values of the lowest triplets are set to zero; they may come back. In the last
//! phase the choice is final. A penalty keeps A and B near orthogonal.
//!
//! The arithmetic is PEFT's (0.21), which is the authors': tests hold it to its numbers.

use super::checks::{check_dropout, check_layers};
use super::components;
use super::factored::Factored;
use super::init::{constant, normal};
use super::lora::STARTS;
use super::peft::{Allowed, Peft, PeftSetting, PeftType, PeftValue, WrittenAdapters};
use super::site::{Layer, Site};
use super::tensor::{Role, TensorSpec};
use super::traits::{Adapter, Method, MethodSettings};
use crate::error::check;
use crate::freeze::Smoothed;
use crate::hook::Hook;
use crate::optim::{Arena, Gradients, Parameter};
use crate::span::RunLength;
use crate::state::HookState;
use crate::{Result, Span};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

// Names of the state buffers.
const SMOOTHED: [&str; 2] = ["adalora.sensitivity", "adalora.uncertainty"];

/// A, B and the singular values λ, `[rank, 1]`.
const TENSORS: [TensorSpec; 3] = [
    TensorSpec::new("lora_A", "lora_A", Role::Projection, Some(0)),
    TensorSpec::new("lora_B", "lora_B", Role::Projection, Some(1)),
    TensorSpec::new("lora_E", "lora_E", Role::SingularValue, Some(0)),
];

/// AdaLoRA's settings; rank 12 to 8 is the paper's 1.27M on DeBERTaV3-base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct AdaLoraConfig {
    /// Rank of every layer at the start.
    pub rank: i64,
    /// Rank at the end, on average over the layers: fewer cost less, and may learn less.
    pub target_rank: i64,
    /// The path is scaled by alpha / rank: more acts like a higher rate.
    ///
    /// By `alpha / (rank + 1e-5)`, as released.
    pub alpha: f64,
    /// Share of the adapter's input that is dropped out: against overfitting, at the cost of speed.
    pub dropout: f64,
    /// Weight of the penalty that holds A and B near orthogonal.
    pub orthogonal: f64,
    /// In this first span the budget stays whole.
    pub t_i: Span,
    /// In this last span the budget is at its target, and the choice is final.
    pub t_f: Span,
    /// Steps between two allocations while the budget falls.
    pub interval: u64,
    /// Smoothing of the sensitivity: more is steadier, and later.
    ///
    /// β₁.
    pub beta1: f64,
    /// Smoothing of the uncertainty: more is steadier, and later.
    ///
    /// β₂.
    pub beta2: f64,
}

impl Default for AdaLoraConfig {
    fn default() -> Self {
        AdaLoraConfig {
            rank: 12,
            target_rank: 8,
            alpha: 32.0,
            dropout: 0.0,
            orthogonal: 0.1,
            t_i: Span::Share(0.1),
            t_f: Span::Share(0.4),
            interval: 10,
            beta1: 0.85,
            beta2: 0.85,
        }
    }
}

impl AdaLoraConfig {
    /// The first and the last span in steps.
    fn ends(&self, length: RunLength) -> [u64; 2] {
        let RunLength { steps_per_epoch, total_steps } = length;
        [self.t_i, self.t_f].map(|span| span.steps(steps_per_epoch, total_steps))
    }
}

impl MethodSettings for AdaLoraConfig {
    fn build(&self) -> Result<Box<dyn Method>> {
        Ok(Box::new(AdaLora::new(self.clone())?))
    }

    fn rank(&self) -> Option<i64> {
        Some(self.rank)
    }

    fn peft(&self) -> Option<&'static Peft> {
        Some(&PEFT)
    }

    fn peft_of_run(&self, written: WrittenAdapters<'_>) -> Vec<(&'static str, PeftValue)> {
        let total = written.length.map_or(1, |length| length.total_steps as i64);
        let values_left = |(site, left): &(String, i64)| {
            (format!("{site}.lora_E"), (0..self.rank).map(|i| i < *left).collect())
        };
        let pattern = written.ranks.iter().map(values_left).collect();
        vec![("total_step", PeftValue::Whole(total)), ("rank_pattern", PeftValue::Flags(pattern))]
    }
}

/// AdaLoRA as PEFT has it: there, it is a LoRA with more settings.
const PEFT: Peft = Peft {
    peft_type: "ADALORA",
    switches: &[],
    settings: &[
        PeftSetting::new("init_r", "rank", PeftType::Whole(12)),
        PeftSetting::new("target_r", "target_rank", PeftType::Whole(8)),
        PeftSetting::new("lora_alpha", "alpha", PeftType::Number(8.0)),
        PeftSetting::new("lora_dropout", "dropout", PeftType::Number(0.0)),
        PeftSetting::new("orth_reg_weight", "orthogonal", PeftType::Number(0.5)),
        PeftSetting::new("tinit", "t_i", PeftType::Steps),
        PeftSetting::new("tfinal", "t_f", PeftType::Steps),
        PeftSetting::new("deltaT", "interval", PeftType::AtLeast(1)),
        PeftSetting::new("beta1", "beta1", PeftType::Number(0.85)),
        PeftSetting::new("beta2", "beta2", PeftType::Number(0.85)),
    ],
    fixed: &[],
    written: &[("bias", PeftValue::Text("none"))],
    allowed: &[
        &[
            ("total_step", Allowed::Anything),
            // The tensors' own shapes say the same.
            ("rank_pattern", Allowed::Anything),
            ("r", Allowed::Anything),
            ("use_rslora", Allowed::EITHER_WAY),
            // Of LoRA's starts, none is AdaLoRA's.
            ("init_lora_weights", Allowed::Values(&["true", r#""gaussian""#])),
        ],
        STARTS,
    ],
};

/// The method: puts AdaLoRA paths on layers.
#[derive(Debug, Clone)]
pub struct AdaLora(AdaLoraConfig);

impl AdaLora {
    /// The method with these settings.
    ///
    /// # Errors
    /// A setting is out of its range: which, and what it must be.
    pub fn new(config: AdaLoraConfig) -> Result<Self> {
        let AdaLoraConfig { rank, target_rank, alpha, orthogonal, beta1, beta2, .. } = config;
        check("rank", rank, rank > 0, "a positive number")?;
        let fits = (1..=rank).contains(&target_rank);
        check("target_rank", target_rank, fits, "at least 1 and at most `rank`")?;
        check("alpha", alpha, alpha.is_finite() && alpha > 0.0, "a positive number")?;
        check_dropout(config.dropout)?;
        let fine = orthogonal.is_finite() && orthogonal >= 0.0;
        check("orthogonal", orthogonal, fine, "at least 0")?;
        check("interval", config.interval, config.interval > 0, "at least 1")?;
        for (field, beta) in [("beta1", beta1), ("beta2", beta2)] {
            check(field, beta, (0.0..1.0).contains(&beta), "at least 0 and below 1")?;
        }
        Ok(AdaLora(config))
    }
}

impl Method for AdaLora {
    fn name(&self) -> &'static str {
        "adalora"
    }

    fn attach(&self, layers: &[Layer], seed: u64, device: Device) -> Result<Vec<Box<dyn Adapter>>> {
        let AdaLoraConfig { rank, alpha, dropout, .. } = self.0;
        check_layers(layers, rank, 1)?;
        let scale = alpha / (rank as f64 + 1e-5);
        let adapter = |Layer { site, .. }: &Layer| -> Box<dyn Adapter> {
            let draw = |shape: [i64; 2], which: &str| {
                normal(&shape, 0.02, seed, &format!("{}.{which}", site.name)).to_device(device)
            };
            let a = draw([rank, site.in_features], "lora_A");
            let b = draw([site.out_features, rank], "lora_B");
            let values = constant([rank, 1], 0.0, device);
            Box::new(Factored::new(site, &TENSORS, [a, b], Some(values), scale, dropout))
        };
        Ok(layers.iter().map(adapter).collect())
    }

    fn tensors(&self) -> &'static [TensorSpec] {
        &TENSORS
    }

    fn trainable_count(&self, site: &Site) -> i64 {
        self.0.rank * (site.in_features + site.out_features + 1)
    }

    fn hook(&self, length: RunLength, parameters: &[Parameter]) -> Result<Option<Box<dyn Hook>>> {
        let [t_i, t_f] = self.0.ends(length);
        check(
            "t_i + t_f",
            format!("{t_i} + {t_f} steps"),
            t_i.checked_add(t_f).is_some_and(|sum| sum < length.total_steps),
            "less than the steps of the run: train longer, or shorten them",
        )?;
        let layers = parameters.iter().filter(|p| p.role == Role::SingularValue).count() as i64;
        let start = layers * self.0.rank;
        Ok(Some(Box::new(Allocator {
            t_i,
            last: length.total_steps - t_f,
            start,
            target: layers * self.0.target_rank,
            in_use: start,
            masked: None,
            config: self.0.clone(),
        })))
    }
}

/// Scores triplets and keeps the budget.
#[derive(Debug)]
struct Allocator {
    config: AdaLoraConfig,
    t_i: u64,
    /// The step at which the choice becomes final.
    last: u64,
    start: i64,
    target: i64,
    in_use: i64,
    /// The values zeroed for good, once they are.
    masked: Option<Tensor>,
}

impl Allocator {
    /// Values to keep at `step`, and whether to choose them now.
    fn budget(&self, step: u64) -> (i64, bool) {
        if step <= self.t_i {
            (self.start, false)
        } else if step > self.last {
            (self.target, true)
        } else {
            let left = 1.0 - (step - self.t_i) as f64 / (self.last - self.t_i) as f64;
            let budget = (self.start - self.target) as f64 * left.powi(3) + self.target as f64;
            (budget as i64, step.is_multiple_of(self.config.interval) || step == self.last)
        }
    }

    fn smoothed(&self) -> Smoothed {
        let AdaLoraConfig { beta1, beta2, .. } = self.config;
        Smoothed { names: SMOOTHED, beta1, beta2, updated: true }
    }

    /// The values to zero so that `budget` are left: those up to the k-th lowest score.
    fn choose(&self, arena: &mut Arena, budget: i64) -> Option<Tensor> {
        let smoothed = self.smoothed();
        let of_matrices = smoothed.score(arena.group_mut(Role::Projection)?);
        let of_values = smoothed.score(arena.group_mut(Role::SingularValue)?);
        let mut sides = components::means(arena.group(Role::Projection)?, &of_matrices);
        let by_layer: Option<Vec<Tensor>> = arena
            .group(Role::SingularValue)?
            .parameters()
            .map(|values| sides.remove(&values.components()?.0.name))
            .collect();
        let scores = of_values + Tensor::cat(&by_layer?, 0);
        let k = self.start - budget;
        if k < 1 {
            return None;
        }
        let (kth, _) = scores.kthvalue(k, 0, false);
        Some(scores.le_tensor(&kth))
    }
}

impl Hook for Allocator {
    /// orthogonal · mean over all A, B of ‖A Aᵀ - I‖ or ‖Bᵀ B - I‖ (Frobenius, not squared).
    fn penalty(&self, arena: &Arena) -> Result<Option<Tensor>> {
        let Some(group) = arena.group(Role::Projection).filter(|_| self.config.orthogonal > 0.0)
        else {
            return Ok(None);
        };
        // Matrices of one shape go through one batched product.
        let mut by_shape: BTreeMap<Vec<i64>, Vec<Tensor>> = BTreeMap::new();
        for parameter in group.parameters() {
            let Some((_, rank_dim)) = parameter.components() else { continue };
            let rows = parameter.leaf.transpose(0, rank_dim);
            by_shape.entry(rows.size()).or_default().push(rows);
        }
        let norms: Vec<Tensor> = by_shape
            .into_values()
            .map(|matrices| {
                let rows = Tensor::stack(&matrices, 0);
                let rank = rows.size()[1];
                let identity = Tensor::eye(rank, (Kind::Float, rows.device()));
                let off = rows.bmm(&rows.transpose(1, 2)) - identity;
                off.flatten(1, 2).norm_scalaropt_dim(2.0, [1i64].as_slice(), false)
            })
            .collect();
        Ok(Some(Tensor::cat(&norms, 0).mean(Kind::Float) * self.config.orthogonal))
    }

    fn after_update(&mut self, step: u64, arena: &mut Arena, gradients: &Gradients) -> Result<()> {
        let (Some(of_matrices), Some(of_values)) =
            (gradients.get(Role::Projection), gradients.get(Role::SingularValue))
        else {
            return Ok(());
        };
        tch::no_grad(|| {
            if step > self.last {
                if let Some(zeroed) = &self.masked {
                    mask(arena, zeroed);
                }
                return Ok(());
            }
            if step < self.last {
                for (role, gradient) in
                    [(Role::Projection, of_matrices), (Role::SingularValue, of_values)]
                {
                    if let Some(group) = arena.group_mut(role) {
                        let now = (group.values() * gradient).abs_();
                        self.smoothed().observe(group, &now);
                    }
                }
            }
            let (budget, due) = self.budget(step);
            if let Some(zeroed) = due.then(|| self.choose(arena, budget)).flatten() {
                self.in_use = budget;
                mask(arena, &zeroed);
                self.masked = (step == self.last).then_some(zeroed);
            }
            Ok(())
        })
    }

    fn rank_in_use(&self, _: &Arena) -> Option<i64> {
        Some(self.in_use)
    }

    fn state(&self) -> HookState {
        HookState {
            counts: [("in_use".into(), self.in_use)].into(),
            tensors: self.masked.iter().map(|m| ("masked".into(), m.shallow_clone())).collect(),
        }
    }

    fn restore(&mut self, state: &HookState, arena: &Arena) -> Result<()> {
        let values = arena.group(Role::SingularValue);
        let (in_use, masked) = (state.count("in_use", self.start)?, state.mask("masked", values)?);
        (self.in_use, self.masked) = (in_use, masked);
        Ok(())
    }
}

fn mask(arena: &mut Arena, zeroed: &Tensor) {
    if let Some(values) = arena.group_mut(Role::SingularValue) {
        let _ = values.values().shallow_clone().masked_fill_(zeroed, 0.0);
    }
}

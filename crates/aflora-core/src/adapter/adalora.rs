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

use super::init::{constant, normal};
use super::{
    check_dropout, check_sites, component_means, components_in_use, folded_forward,
    select_components, Adapter, AdapterTensor, LowRank, Method, Role, Site,
};
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

/// AdaLoRA's settings; rank 12 to 8 is the paper's 1.27M on DeBERTaV3-base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdaLoraConfig {
    /// Rank of every layer at the start.
    pub rank: i64,
    /// Average rank at the end.
    pub target_rank: i64,
    /// The path is scaled by `alpha / (rank + 1e-5)`.
    pub alpha: f64,
    /// Dropout on the adapter's input.
    pub dropout: f64,
    /// Weight of the orthogonality penalty.
    pub orthogonal: f64,
    /// The budget stays whole during this span at the start.
    pub t_i: Span,
    /// The budget stays at its target during this span at the end.
    pub t_f: Span,
    /// Steps between two allocations while the budget falls.
    pub interval: u64,
    /// β₁, smoothing of the sensitivity.
    pub beta1: f64,
    /// β₂, smoothing of the uncertainty.
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

/// The method: puts AdaLoRA paths on layers.
#[derive(Debug, Clone)]
pub struct AdaLora(AdaLoraConfig);

impl AdaLora {
    /// Checks the settings.
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

    fn attach(&self, sites: &[Site], seed: u64, device: Device) -> Result<Vec<Box<dyn Adapter>>> {
        let rank = self.0.rank;
        check_sites(sites, rank, 1)?;
        let adapter = |site: &Site| -> Box<dyn Adapter> {
            let draw = |shape, which: &str| {
                let name = format!("{}.{which}", site.name);
                normal(shape, 0.02, seed, &name).to_device(device).set_requires_grad(true)
            };
            Box::new(AdaLoraAdapter {
                site: site.clone(),
                a: draw(&[rank, site.in_features], "lora_A"),
                b: draw(&[site.out_features, rank], "lora_B"),
                e: constant([rank, 1], 0.0, device).set_requires_grad(true),
                scale: self.0.alpha / (rank as f64 + 1e-5),
                dropout: self.0.dropout,
                training: false,
            })
        };
        Ok(sites.iter().map(adapter).collect())
    }

    fn trainable_count(&self, site: &Site) -> i64 {
        self.0.rank * (site.in_features + site.out_features + 1)
    }

    fn hook(&self, length: RunLength, parameters: &[Parameter]) -> Result<Option<Box<dyn Hook>>> {
        let steps = |span: Span| span.steps(length.steps_per_epoch, length.total_steps);
        let (t_i, t_f) = (steps(self.0.t_i), steps(self.0.t_f));
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

/// One AdaLoRA path.
#[derive(Debug)]
struct AdaLoraAdapter {
    site: Site,
    /// `[rank, in_features]`
    a: Tensor,
    /// `[out_features, rank]`
    b: Tensor,
    /// Singular values, `[rank, 1]`.
    e: Tensor,
    /// Of the rank at the start, whatever is left of it.
    scale: f64,
    dropout: f64,
    training: bool,
}

impl AdaLoraAdapter {
    /// scale · λ ⊙ A, rows scaled.
    fn down(&self) -> Tensor {
        &self.a * (&self.e * self.scale)
    }
}

impl Adapter for AdaLoraAdapter {
    fn site(&self) -> &Site {
        &self.site
    }

    fn forward(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        folded_forward(self, x, weight, bias, self.training.then_some(self.dropout))
    }

    fn folded(&self) -> LowRank {
        LowRank { down: self.down(), up: self.b.shallow_clone() }
    }

    fn tensors(&self) -> Vec<AdapterTensor> {
        vec![
            AdapterTensor::new("lora_A", "lora_A", Role::Projection, &self.a),
            AdapterTensor::new("lora_B", "lora_B", Role::Projection, &self.b),
            AdapterTensor::new("lora_E", "lora_E", Role::SingularValue, &self.e),
        ]
    }

    fn set_training(&mut self, on: bool) {
        self.training = on;
    }

    fn rank(&self) -> i64 {
        self.a.size()[0]
    }

    fn saved(&self) -> Vec<AdapterTensor> {
        let kept = components_in_use(&self.e);
        let along = |name: &str| Some(if name == "lora_B" { 1 } else { 0 });
        select_components(self.tensors(), &kept, along)
    }

    fn set_rank(&mut self, rank: i64) -> Result<()> {
        let Site { in_features, out_features, .. } = self.site;
        for (tensor, shape) in [
            (&mut self.a, [rank, in_features]),
            (&mut self.b, [out_features, rank]),
            (&mut self.e, [rank, 1]),
        ] {
            *tensor = constant(shape, 0.0, tensor.device()).set_requires_grad(true);
        }
        Ok(())
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
        let mut sides = component_means(arena.group(Role::Projection)?, &of_matrices);
        let by_layer: Option<Vec<Tensor>> = arena
            .group(Role::SingularValue)?
            .leaves()
            .map(|(name, _)| sides.remove(name.rsplit_once('.')?.0))
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
        for (name, leaf) in group.leaves() {
            let rows = if name.ends_with("lora_A") { leaf.shallow_clone() } else { leaf.tr() };
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
        let values = arena.group(Role::SingularValue).map_or(0, |g| g.values().numel() as i64);
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

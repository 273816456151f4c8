//! SoRA (Ding et al. 2023): y = W0 x + (alpha / rank) · B (g ⊙ (A x)), with a gate g that a
//! proximal step drives to exact zeros: after each update g ← sign(g) · max(|g| - ξ, 0), and
//! the loss carries λ · mean |g|. Components whose gate is zero at the end are dropped when the
//! adapter is saved.
//!
//! ξ is not scaled by the learning rate, as in the authors' code; its second cut, of what is
//! left below ξ after shrinking, is not taken over.

use super::init::{constant, lora_uniform, normal};
use super::{
    check_dropout, check_sites, components_in_use, folded_forward, select_components, Adapter,
    AdapterTensor, LowRank, Method, Role, Site,
};
use crate::error::check;
use crate::hook::Hook;
use crate::optim::{Arena, Gradients, Parameter};
use crate::span::RunLength;
use crate::Result;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// SoRA's settings; the defaults are those of the authors' STS-B script.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SoraConfig {
    /// Rank at the start; gates at zero lower it.
    pub rank: i64,
    /// The path is scaled by `alpha / rank`.
    pub alpha: f64,
    /// Dropout on the adapter's input.
    pub dropout: f64,
    /// λ, weight of the gates' mean size in the loss.
    pub sparse_lambda: f64,
    /// ξ, what a gate shrinks by after each update.
    pub threshold: f64,
}

impl Default for SoraConfig {
    fn default() -> Self {
        SoraConfig { rank: 8, alpha: 16.0, dropout: 0.0, sparse_lambda: 10.0, threshold: 3e-4 }
    }
}

/// The method: puts gated low-rank paths on layers.
#[derive(Debug, Clone)]
pub struct Sora(SoraConfig);

impl Sora {
    /// Checks the settings.
    pub fn new(config: SoraConfig) -> Result<Self> {
        let SoraConfig { rank, alpha, dropout, sparse_lambda, threshold } = config;
        check("rank", rank, rank > 0, "a positive number")?;
        check("alpha", alpha, alpha.is_finite() && alpha > 0.0, "a positive number")?;
        check_dropout(dropout)?;
        let at_least_0 = |x: f64| x.is_finite() && x >= 0.0;
        check("sparse_lambda", sparse_lambda, at_least_0(sparse_lambda), "at least 0")?;
        check("threshold", threshold, at_least_0(threshold), "at least 0")?;
        Ok(Sora(config))
    }
}

impl Method for Sora {
    fn name(&self) -> &'static str {
        "sora"
    }

    fn attach(&self, sites: &[Site], seed: u64, device: Device) -> Result<Vec<Box<dyn Adapter>>> {
        let rank = self.0.rank;
        check_sites(sites, rank, 1)?;
        let adapter = |site: &Site| -> Box<dyn Adapter> {
            let a = lora_uniform([rank, site.in_features], seed, &site.name, device);
            let gate = normal(&[1, rank], 1.0, seed, &format!("{}.gate", site.name));
            Box::new(SoraAdapter {
                site: site.clone(),
                a: a.set_requires_grad(true),
                b: constant([site.out_features, rank], 0.0, device).set_requires_grad(true),
                gate: gate.to_device(device).set_requires_grad(true),
                // Of the rank at the start, whatever is left of it.
                scale: self.0.alpha / rank as f64,
                dropout: self.0.dropout,
                training: false,
            })
        };
        Ok(sites.iter().map(adapter).collect())
    }

    fn trainable_count(&self, site: &Site) -> i64 {
        self.0.rank * (site.in_features + site.out_features + 1)
    }

    fn hook(&self, _: RunLength, _: &[Parameter]) -> Result<Option<Box<dyn Hook>>> {
        Ok(Some(Box::new(Shrink { config: self.0.clone() })))
    }
}

/// One SoRA path.
#[derive(Debug)]
struct SoraAdapter {
    site: Site,
    a: Tensor,
    b: Tensor,
    /// `[1, rank]`, as in the authors' code.
    gate: Tensor,
    scale: f64,
    dropout: f64,
    training: bool,
}

impl SoraAdapter {
    /// scale · gᵀ ⊙ A, rows scaled.
    fn down(&self) -> Tensor {
        &self.a * (self.gate.tr() * self.scale)
    }
}

impl Adapter for SoraAdapter {
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
            AdapterTensor::new("lora_A", "lora_A.weight", Role::Projection, &self.a),
            AdapterTensor::new("lora_B", "lora_B.weight", Role::Projection, &self.b),
            AdapterTensor::new("gate", "gate", Role::Gate, &self.gate),
        ]
    }

    fn set_training(&mut self, on: bool) {
        self.training = on;
    }

    fn rank(&self) -> i64 {
        self.a.size()[0]
    }

    fn saved(&self) -> Vec<AdapterTensor> {
        let kept = components_in_use(&self.gate);
        let along = |name: &str| Some(if name == "lora_A" { 0 } else { 1 });
        select_components(self.tensors(), &kept, along)
    }

    fn set_rank(&mut self, rank: i64) -> Result<()> {
        let Site { in_features, out_features, .. } = self.site;
        for (tensor, shape) in [
            (&mut self.a, [rank, in_features]),
            (&mut self.b, [out_features, rank]),
            (&mut self.gate, [1, rank]),
        ] {
            *tensor = constant(shape, 0.0, tensor.device()).set_requires_grad(true);
        }
        Ok(())
    }
}

/// The gates' penalty and proximal step.
#[derive(Debug)]
struct Shrink {
    config: SoraConfig,
}

impl Hook for Shrink {
    fn penalty(&self, arena: &Arena) -> Result<Option<Tensor>> {
        let Some(gates) = arena.group(Role::Gate).filter(|_| self.config.sparse_lambda > 0.0)
        else {
            return Ok(None);
        };
        let flat: Vec<Tensor> = gates.leaves().map(|(_, leaf)| leaf.reshape([-1])).collect();
        Ok(Some(Tensor::cat(&flat, 0).abs().mean(Kind::Float) * self.config.sparse_lambda))
    }

    fn after_update(&mut self, _: u64, arena: &mut Arena, _: &Gradients) -> Result<()> {
        let Some(gates) = arena.group_mut(Role::Gate) else { return Ok(()) };
        tch::no_grad(|| {
            let shrunk = soft_threshold(gates.values(), self.config.threshold);
            gates.values().shallow_clone().copy_(&shrunk);
        });
        Ok(())
    }

    fn rank_in_use(&self, arena: &Arena) -> Option<i64> {
        let gates = arena.group(Role::Gate)?;
        Some(gates.values().count_nonzero(None::<i64>).int64_value(&[]))
    }
}

/// sign(x) · max(|x| - threshold, 0).
fn soft_threshold(x: &Tensor, threshold: f64) -> Tensor {
    (x.abs() - threshold).clamp_min(0.0) * x.sign()
}

//! SoRA (Ding et al. 2023): y = W0 x + (alpha / rank) · B (g ⊙ (A x)), with a gate g that a
//! proximal step drives to exact zeros: after each update g ← sign(g) · max(|g| - ξ, 0), and
//! the loss carries λ · mean |g|. Components whose gate is zero at the end are dropped when the
//! adapter is saved.
//!
//! ξ is not scaled by the learning rate, as in the authors' code; its second cut, of what is
//! left below ξ after shrinking, is not taken over.

use super::checks::{check_dropout, check_layers};
use super::factored::Factored;
use super::init::{constant, lora_uniform, normal};
use super::site::{Layer, Site};
use super::tensor::{Role, TensorSpec};
use super::traits::{Adapter, Method, MethodSettings};
use crate::error::check;
use crate::hook::Hook;
use crate::optim::{Arena, Gradients, Parameter};
use crate::span::RunLength;
use crate::Result;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// A, B and the gate g, `[1, rank]`, as in the authors' code.
const TENSORS: [TensorSpec; 3] = [
    TensorSpec::new("lora_A", "lora_A.weight", Role::Projection, Some(0)),
    TensorSpec::new("lora_B", "lora_B.weight", Role::Projection, Some(1)),
    TensorSpec::new("gate", "gate", Role::Gate, Some(1)),
];

/// SoRA's settings; the defaults are those of the authors' STS-B script.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct SoraConfig {
    /// Rank at the start; gates at zero lower it.
    pub rank: i64,
    /// The path is scaled by alpha / rank: more acts like a higher rate.
    pub alpha: f64,
    /// Share of the adapter's input that is dropped out: against overfitting, at the cost of speed.
    pub dropout: f64,
    /// Weight of the gates' mean size in the loss: more means more zeros.
    ///
    /// λ.
    pub sparse_lambda: f64,
    /// What a gate shrinks by after each update: more means more zeros.
    ///
    /// ξ.
    pub threshold: f64,
}

impl Default for SoraConfig {
    fn default() -> Self {
        SoraConfig { rank: 8, alpha: 16.0, dropout: 0.0, sparse_lambda: 10.0, threshold: 3e-4 }
    }
}

impl MethodSettings for SoraConfig {
    fn build(&self) -> Result<Box<dyn Method>> {
        Ok(Box::new(Sora::new(self.clone())?))
    }

    fn rank(&self) -> Option<i64> {
        Some(self.rank)
    }
}

/// The method: puts gated low-rank paths on layers.
#[derive(Debug, Clone)]
pub struct Sora(SoraConfig);

impl Sora {
    /// The method with these settings.
    ///
    /// # Errors
    /// A setting is out of its range: which, and what it must be.
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

    fn attach(&self, layers: &[Layer], seed: u64, device: Device) -> Result<Vec<Box<dyn Adapter>>> {
        let SoraConfig { rank, alpha, dropout, .. } = self.0;
        check_layers(layers, rank, 1)?;
        let scale = alpha / rank as f64;
        let adapter = |Layer { site, .. }: &Layer| -> Box<dyn Adapter> {
            let a = lora_uniform([rank, site.in_features], seed, &site.name, device);
            let b = constant([site.out_features, rank], 0.0, device);
            let gate = normal(&[1, rank], 1.0, seed, &format!("{}.gate", site.name));
            let gate = Some(gate.to_device(device));
            Box::new(Factored::new(site, &TENSORS, [a, b], gate, scale, dropout))
        };
        Ok(layers.iter().map(adapter).collect())
    }

    fn tensors(&self) -> &'static [TensorSpec] {
        &TENSORS
    }

    fn trainable_count(&self, site: &Site) -> i64 {
        self.0.rank * (site.in_features + site.out_features + 1)
    }

    fn hook(&self, _: RunLength, _: &[Parameter]) -> Result<Option<Box<dyn Hook>>> {
        Ok(Some(Box::new(Shrink { config: self.0.clone() })))
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
        let flat: Vec<Tensor> = gates.parameters().map(|gate| gate.leaf.reshape([-1])).collect();
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

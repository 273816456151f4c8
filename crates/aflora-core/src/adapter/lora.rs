//! LoRA (Hu et al. 2022), the reference of every comparison: y = W0 x + s · B (A x), with
//! s = alpha / rank, or alpha / √rank as rsLoRA has it (Kalajdzievski 2023).

use super::init::{constant, lora_uniform};
use super::{check_dropout, check_sites, Adapter, AdapterTensor, LowRank, Method, Role, Site};
use crate::error::check;
use crate::kernels::{self, LowRankPath};
use crate::Result;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

/// LoRA's settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank of A and B.
    pub rank: i64,
    /// The path is scaled by `alpha / rank`.
    pub alpha: f64,
    /// Scales by `alpha / √rank` instead (rsLoRA).
    pub rslora: bool,
    /// Dropout on the adapter's input.
    pub dropout: f64,
}

impl Default for LoraConfig {
    fn default() -> Self {
        LoraConfig { rank: 8, alpha: 8.0, rslora: false, dropout: 0.0 }
    }
}

impl LoraConfig {
    fn scale(&self, rank: i64) -> f64 {
        self.alpha / if self.rslora { (rank as f64).sqrt() } else { rank as f64 }
    }
}

/// The method: puts LoRA paths on layers.
#[derive(Debug, Clone)]
pub struct Lora(LoraConfig);

impl Lora {
    /// Checks the settings.
    pub fn new(config: LoraConfig) -> Result<Self> {
        let LoraConfig { rank, alpha, dropout, .. } = config;
        check("rank", rank, rank > 0, "a positive number")?;
        check("alpha", alpha, alpha.is_finite() && alpha > 0.0, "a positive number")?;
        check_dropout(dropout)?;
        Ok(Lora(config))
    }
}

impl Method for Lora {
    fn name(&self) -> &'static str {
        "lora"
    }

    fn attach(&self, sites: &[Site], seed: u64, device: Device) -> Result<Vec<Box<dyn Adapter>>> {
        let rank = self.0.rank;
        check_sites(sites, rank, 1)?;
        let adapter = |site: &Site| -> Box<dyn Adapter> {
            let a = lora_uniform([rank, site.in_features], seed, &site.name, device);
            let b = constant([site.out_features, rank], 0.0, device);
            Box::new(LoraAdapter {
                site: site.clone(),
                a: a.set_requires_grad(true),
                b: b.set_requires_grad(true),
                config: self.0.clone(),
                training: false,
            })
        };
        Ok(sites.iter().map(adapter).collect())
    }

    fn trainable_count(&self, site: &Site) -> i64 {
        self.0.rank * (site.in_features + site.out_features)
    }
}

/// One LoRA path.
#[derive(Debug)]
struct LoraAdapter {
    site: Site,
    /// Down-projection A, `[rank, in_features]`.
    a: Tensor,
    /// Up-projection B, `[out_features, rank]`.
    b: Tensor,
    config: LoraConfig,
    training: bool,
}

impl Adapter for LoraAdapter {
    fn site(&self) -> &Site {
        &self.site
    }

    fn forward(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let scale = self.config.scale(self.rank());
        let path = LowRankPath { down: &self.a, d: None, up: &self.b, b: None, scale };
        let dropout = self.training.then_some(self.config.dropout);
        kernels::low_rank(x, weight, bias, &path, dropout)
    }

    fn folded(&self) -> LowRank {
        let down = &self.a * self.config.scale(self.rank());
        LowRank { down, up: self.b.shallow_clone() }
    }

    fn tensors(&self) -> Vec<AdapterTensor> {
        vec![
            AdapterTensor::new("lora_A", "lora_A.weight", Role::Projection, &self.a),
            AdapterTensor::new("lora_B", "lora_B.weight", Role::Projection, &self.b),
        ]
    }

    fn set_training(&mut self, on: bool) {
        self.training = on;
    }

    fn rank(&self) -> i64 {
        self.a.size()[0]
    }
}

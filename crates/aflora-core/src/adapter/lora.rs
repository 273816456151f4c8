//! LoRA (Hu et al. 2022), the reference of every comparison: y = W0 x + s · B (A x), with
//! s = alpha / rank, or alpha / √rank as rsLoRA has it (Kalajdzievski 2023).

use super::factored::Factored;
use super::init::{constant, lora_uniform};
use super::path::check_dropout;
use super::site::{check_layers, Layer, Site};
use super::tensor::{Role, TensorSpec};
use super::traits::{Adapter, Method};
use crate::error::check;
use crate::Result;
use serde::{Deserialize, Serialize};
use tch::Device;

/// A and B.
const TENSORS: [TensorSpec; 2] = [
    TensorSpec::new("lora_A", "lora_A.weight", Role::Projection, Some(0)),
    TensorSpec::new("lora_B", "lora_B.weight", Role::Projection, Some(1)),
];

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
    /// s.
    fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
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

    fn attach(&self, layers: &[Layer], seed: u64, device: Device) -> Result<Vec<Box<dyn Adapter>>> {
        let LoraConfig { rank, dropout, .. } = self.0;
        check_layers(layers, rank, 1)?;
        let adapter = |Layer { site, .. }: &Layer| -> Box<dyn Adapter> {
            let a = lora_uniform([rank, site.in_features], seed, &site.name, device);
            let b = constant([site.out_features, rank], 0.0, device);
            Box::new(Factored::new(site, &TENSORS, [a, b], None, self.0.scale(), dropout))
        };
        Ok(layers.iter().map(adapter).collect())
    }

    fn tensors(&self) -> &'static [TensorSpec] {
        &TENSORS
    }

    fn trainable_count(&self, site: &Site) -> i64 {
        self.0.rank * (site.in_features + site.out_features)
    }
}

//! LoRA, the reference that every comparison needs: y = W0 x + (alpha / rank) · B (A x).

use super::init::{constant, kaiming_uniform};
use super::{check_site, Adapter, AdapterTensor, Method, Role, Site};
use crate::error::check;
use crate::freeze::FreezeConfig;
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
    /// Dropout on the adapter's input.
    pub dropout: f64,
}

impl Default for LoraConfig {
    fn default() -> Self {
        LoraConfig { rank: 8, alpha: 8.0, dropout: 0.0 }
    }
}

/// The method: puts LoRA paths on layers.
#[derive(Debug, Clone)]
pub struct Lora(LoraConfig);

impl Lora {
    /// Checks the settings.
    pub fn new(config: LoraConfig) -> Result<Self> {
        let LoraConfig { rank, alpha, dropout } = config;
        check("rank", rank, rank > 0, "a positive number")?;
        check("alpha", alpha, alpha.is_finite() && alpha > 0.0, "a positive number")?;
        check("dropout", dropout, (0.0..1.0).contains(&dropout), "at least 0 and below 1")?;
        Ok(Lora(config))
    }
}

impl Method for Lora {
    fn name(&self) -> &'static str {
        "lora"
    }

    fn attach(&self, site: &Site, seed: u64, device: Device) -> Result<Box<dyn Adapter>> {
        let LoraConfig { rank, alpha, dropout } = self.0;
        check_site(site, rank)?;
        // LoRA's own start: kaiming-uniform with a = √5, that is a bound of 1 / √in, and B = 0.
        let a = kaiming_uniform(
            [rank, site.in_features],
            seed,
            &format!("{}.lora_A", site.name),
            device,
        ) / 6f64.sqrt();
        let b = constant(site.out_features * rank, 0.0, device).view([site.out_features, rank]);
        Ok(Box::new(LoraAdapter {
            site: site.clone(),
            a: a.set_requires_grad(true),
            b: b.set_requires_grad(true),
            scale: alpha / rank as f64,
            dropout,
            training: false,
        }))
    }

    fn freezing(&self) -> Option<&FreezeConfig> {
        None
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
    scale: f64,
    dropout: f64,
    training: bool,
}

impl Adapter for LoraAdapter {
    fn site(&self) -> &Site {
        &self.site
    }

    fn forward(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let x2 = x.reshape([-1, self.site.in_features]);
        let a = (&self.a * self.scale).to_kind(x.kind());
        let h = if self.training && self.dropout > 0.0 {
            x2.dropout(self.dropout, true).linear(&a, None::<Tensor>)
        } else {
            x2.linear(&a, None::<Tensor>)
        };
        super::wrap::accumulate(x, &x2, weight, bias, &h, &self.b)
    }

    fn delta(&self) -> Tensor {
        self.b.matmul(&self.a) * self.scale
    }

    fn tensors(&self) -> Vec<AdapterTensor> {
        let tensor = |name, tensor: &Tensor| AdapterTensor {
            name,
            role: Role::Projection,
            tensor: tensor.shallow_clone(),
            trainable: true,
        };
        vec![tensor("lora_A", &self.a), tensor("lora_B", &self.b)]
    }

    fn set_training(&mut self, on: bool) {
        self.training = on;
    }
}

//! ELoRA, published as VeRA (Kopiczko et al. 2024): y = W0 x + b ⊙ B (d ⊙ (A x)), with A and B
//! random, frozen, and one pair for all layers; only the vectors d and b train.
//!
//! A layer reads the first columns of A and the first rows of B. The pair is drawn as PEFT draws
//! it, from PyTorch's CPU generator: PEFT's `projection_prng_key` 0 is `projection_seed` 0 here,
//! to the last bit.

use super::init::{constant, kaiming_uniform, torch_uniform};
use super::{check_dropout, check_sites, Adapter, AdapterTensor, LowRank, Method, Role, Site};
use crate::error::check;
use crate::flops::Products;
use crate::kernels::{add_path, by_token, product, shaped};
use crate::Result;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

/// A random pair may be wider than its layers (1,024 in the paper's comparison, on any model); sixteen
/// times their features is beyond every use.
const WIDTHS: i64 = 16;

/// ELoRA's settings; the rank is that of the AFLoRA paper's comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EloraConfig {
    /// Rank of A and B.
    pub rank: i64,
    /// Initial value of every element of d. (b starts at 0, so the model is unchanged.)
    pub d_initial: f64,
    /// Dropout on the adapter's input.
    pub dropout: f64,
    /// One pair A, B for all layers; otherwise each layer has its own.
    pub shared: bool,
    /// Seed of the shared pair.
    pub projection_seed: u64,
}

impl Default for EloraConfig {
    fn default() -> Self {
        EloraConfig { rank: 1024, d_initial: 0.1, dropout: 0.0, shared: true, projection_seed: 0 }
    }
}

/// The method: puts ELoRA paths on layers.
#[derive(Debug, Clone)]
pub struct Elora(EloraConfig);

impl Elora {
    /// Checks the settings.
    pub fn new(config: EloraConfig) -> Result<Self> {
        check("rank", config.rank, config.rank > 0, "a positive number")?;
        check("d_initial", config.d_initial, config.d_initial.is_finite(), "a finite number")?;
        check_dropout(config.dropout)?;
        Ok(Elora(config))
    }

    /// A `[rank, widest input]`, then B `[widest output, rank]`, from one generator.
    fn shared_pair(&self, sites: &[Site], device: Device) -> (Tensor, Tensor) {
        let rank = self.0.rank;
        let widest_in = sites.iter().map(|s| s.in_features).max().unwrap_or(0);
        let widest_out = sites.iter().map(|s| s.out_features).max().unwrap_or(0);
        // Kaiming-uniform with the gain of a ReLU: √3 · √2 / √fan_in.
        let bound = |fan_in: i64| 3f64.sqrt() * (2f64.sqrt() / (fan_in as f64).sqrt());
        let shapes = [([rank, widest_in], bound(widest_in)), ([widest_out, rank], bound(rank))];
        let [a, b] = torch_uniform(self.0.projection_seed, shapes);
        (a.to_device(device), b.to_device(device))
    }
}

impl Method for Elora {
    fn name(&self) -> &'static str {
        "elora"
    }

    fn attach(&self, sites: &[Site], seed: u64, device: Device) -> Result<Vec<Box<dyn Adapter>>> {
        let config = &self.0;
        check_sites(sites, config.rank, WIDTHS)?;
        let shared = config.shared.then(|| self.shared_pair(sites, device));
        let adapter = |site: &Site| -> Box<dyn Adapter> {
            let (a, b) = match &shared {
                Some((a, b)) => (a.shallow_clone(), b.shallow_clone()),
                None => {
                    let draw = |shape, which: &str| {
                        kaiming_uniform(shape, seed, &format!("{}.{which}", site.name), device)
                    };
                    let down = draw([config.rank, site.in_features], "vera_A");
                    (down, draw([site.out_features, config.rank], "vera_B"))
                }
            };
            Box::new(EloraAdapter {
                site: site.clone(),
                a,
                b,
                d: constant([config.rank], config.d_initial, device).set_requires_grad(true),
                b_vec: constant([site.out_features], 0.0, device).set_requires_grad(true),
                shared: config.shared,
                dropout: config.dropout,
                training: false,
            })
        };
        Ok(sites.iter().map(adapter).collect())
    }

    fn trainable_count(&self, site: &Site) -> i64 {
        self.0.rank + site.out_features
    }
}

/// One ELoRA path.
#[derive(Debug)]
struct EloraAdapter {
    site: Site,
    /// Down-projection, `[rank, at least in_features]`.
    a: Tensor,
    /// Up-projection, `[at least out_features, rank]`.
    b: Tensor,
    d: Tensor,
    b_vec: Tensor,
    shared: bool,
    dropout: f64,
    training: bool,
}

impl EloraAdapter {
    /// The part of A that this layer reads, `[rank, in_features]`.
    fn a(&self) -> Tensor {
        self.a.narrow(1, 0, self.site.in_features)
    }

    /// b ⊙ B over the part of B that this layer reads, `[out_features, rank]`.
    fn up(&self) -> Tensor {
        self.b.narrow(0, 0, self.site.out_features) * self.b_vec.unsqueeze(1)
    }
}

impl Adapter for EloraAdapter {
    fn site(&self) -> &Site {
        &self.site
    }

    fn forward(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let (tokens, dropped) = by_token(x, self.training.then_some(self.dropout));
        // d stays outside the product: its gradient is then a sum over tokens.
        let h = product(&dropped, &self.a().to_kind(x.kind()), None) * self.d.to_kind(x.kind());
        if x.device() == Device::Cpu {
            // Here b, too, stays outside: some passes over y for its gradient cost a CPU far less
            // than the product with h that b ⊙ B would ask for. (A GPU: the same, and memory.)
            let up = self.b.narrow(0, 0, self.site.out_features).to_kind(x.kind());
            let path = product(&h, &up, None);
            let y = product(&tokens, weight, bias).addcmul(&path, &self.b_vec.to_kind(x.kind()));
            return shaped(y, x);
        }
        add_path(x, &tokens, weight, bias, &h, &self.up())
    }

    fn folded(&self) -> LowRank {
        LowRank { down: self.a() * self.d.unsqueeze(1), up: self.up() }
    }

    fn tensors(&self) -> Vec<AdapterTensor> {
        let pair = |name, tensor| AdapterTensor {
            shared: self.shared,
            ..AdapterTensor::new(name, name, Role::Projection, tensor)
        };
        vec![
            pair("vera_A", &self.a),
            pair("vera_B", &self.b),
            AdapterTensor::new("vera_lambda_d", "vera_lambda_d", Role::Vector, &self.d),
            AdapterTensor::new("vera_lambda_b", "vera_lambda_b", Role::Vector, &self.b_vec),
        ]
    }

    fn set_training(&mut self, on: bool) {
        self.training = on;
    }

    fn products(&self) -> Products {
        Products { down: false, up: true }
    }

    fn rank(&self) -> i64 {
        self.d.size()[0]
    }
}

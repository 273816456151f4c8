//! ELoRA, published as VeRA (Kopiczko et al. 2024): y = W0 x + b ⊙ B (d ⊙ (A x)), with A and B
//! random, frozen, and one pair for all layers; only the vectors d and b train.
//!
//! A layer reads the first columns of A and the first rows of B. The pair is drawn as PEFT draws
//! it, from PyTorch's CPU generator: PEFT's `projection_prng_key` 0 is `projection_seed` 0 here,
//! to the last bit.

use super::checks::{check_dropout, check_layers};
use super::init::{constant, kaiming_uniform, torch_uniform};
use super::peft::{Allowed, Peft, PeftSetting, PeftType, PeftValue};
use super::site::{Layer, Site};
use super::tensor::{AdapterTensor, Role, TensorSpec};
use super::traits::{Adapter, LowRank, Method, MethodSettings};
use crate::error::check;
use crate::flops::Products;
use crate::kernels::{add_path, by_token, frozen_product, product, shaped};
use crate::weight::FrozenWeight;
use crate::Result;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tch::{Device, Tensor};

/// A random pair may be wider than its layers (1,024 in the paper's comparison, on any model); sixteen
/// times their features is beyond every use.
const WIDTHS: i64 = 16;

/// A and B, of each layer's own, and the vectors d and b.
const OWN: [TensorSpec; 4] = [
    TensorSpec::new("vera_A", "vera_A", Role::Projection, Some(0)),
    TensorSpec::new("vera_B", "vera_B", Role::Projection, Some(1)),
    TensorSpec::new("vera_lambda_d", "vera_lambda_d", Role::Vector, Some(0)),
    TensorSpec::new("vera_lambda_b", "vera_lambda_b", Role::Vector, None),
];

/// The same with one pair for all layers.
const SHARED: [TensorSpec; 4] =
    [TensorSpec { shared: true, ..OWN[0] }, TensorSpec { shared: true, ..OWN[1] }, OWN[2], OWN[3]];

/// ELoRA's settings; the rank is that of the AFLoRA paper's comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct EloraConfig {
    /// Of A and B: more directions to choose from, and more arithmetic.
    pub rank: i64,
    /// Every element of d at the start; b starts at 0, so that the model is unchanged.
    pub d_initial: f64,
    /// Share of the adapter's input that is dropped out: against overfitting, at the cost of speed.
    pub dropout: f64,
    /// One pair A, B for all layers, as published; else each layer has its own.
    pub shared: bool,
    /// Draws the shared pair, to the bit as PEFT's projection_prng_key does.
    pub projection_seed: u64,
}

impl Default for EloraConfig {
    fn default() -> Self {
        EloraConfig { rank: 1024, d_initial: 0.1, dropout: 0.0, shared: true, projection_seed: 0 }
    }
}

impl MethodSettings for EloraConfig {
    fn build(&self) -> Result<Box<dyn Method>> {
        Ok(Box::new(Elora::new(self.clone())?))
    }

    fn rank(&self) -> Option<i64> {
        Some(self.rank)
    }

    fn peft(&self) -> Option<&'static Peft> {
        Some(&PEFT)
    }
}

/// ELoRA as PEFT has it, which knows it as VeRA and always shares one pair.
const PEFT: Peft = Peft {
    peft_type: "VERA",
    switches: &[],
    settings: &[
        PeftSetting::new("r", "rank", PeftType::Whole(256)),
        PeftSetting::new("vera_dropout", "dropout", PeftType::Number(0.0)),
        PeftSetting::new("d_initial", "d_initial", PeftType::Number(0.1)),
        PeftSetting::new("projection_prng_key", "projection_seed", PeftType::Seed(0)),
    ],
    fixed: &[("shared", PeftValue::Flag(true))],
    written: &[
        ("save_projection", PeftValue::Flag(true)),
        ("bias", PeftValue::Text("none")),
        ("fan_in_fan_out", PeftValue::Flag(false)),
    ],
    allowed: &[&[("save_projection", Allowed::EITHER_WAY), ("init_weights", Allowed::EITHER_WAY)]],
};

/// The method: puts ELoRA paths on layers.
#[derive(Debug, Clone)]
pub struct Elora(EloraConfig);

impl Elora {
    /// The method with these settings.
    ///
    /// # Errors
    /// A setting is out of its range: which, and what it must be.
    pub fn new(config: EloraConfig) -> Result<Self> {
        check("rank", config.rank, config.rank > 0, "a positive number")?;
        check("d_initial", config.d_initial, config.d_initial.is_finite(), "a finite number")?;
        check_dropout(config.dropout)?;
        Ok(Elora(config))
    }

    /// A `[rank, widest input]`, then B `[widest output, rank]`, from one generator.
    fn shared_pair(&self, layers: &[Layer], device: Device) -> (Tensor, Tensor) {
        let rank = self.0.rank;
        let widest_in = layers.iter().map(|l| l.site.in_features).max().unwrap_or(0);
        let widest_out = layers.iter().map(|l| l.site.out_features).max().unwrap_or(0);
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

    fn attach(&self, layers: &[Layer], seed: u64, device: Device) -> Result<Vec<Box<dyn Adapter>>> {
        let config = &self.0;
        check_layers(layers, config.rank, WIDTHS)?;
        let shared = config.shared.then(|| self.shared_pair(layers, device));
        let adapter = |Layer { site, .. }: &Layer| -> Box<dyn Adapter> {
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
                specs: self.tensors(),
                dropout: config.dropout,
                training: false,
            })
        };
        Ok(layers.iter().map(adapter).collect())
    }

    fn tensors(&self) -> &'static [TensorSpec] {
        if self.0.shared {
            &SHARED
        } else {
            &OWN
        }
    }

    fn trainable_count(&self, site: &Site) -> i64 {
        self.0.rank + site.out_features
    }
}

/// One ELoRA path.
#[derive(Debug)]
struct EloraAdapter {
    site: Arc<Site>,
    specs: &'static [TensorSpec],
    /// Down-projection, `[rank, at least in_features]`.
    a: Tensor,
    /// Up-projection, `[at least out_features, rank]`.
    b: Tensor,
    d: Tensor,
    b_vec: Tensor,
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

    fn pair(&self) -> LowRank {
        LowRank { down: self.a() * self.d.unsqueeze(1), up: self.up() }
    }
}

impl Adapter for EloraAdapter {
    fn site(&self) -> &Arc<Site> {
        &self.site
    }

    fn forward(&self, x: &Tensor, weight: &FrozenWeight, bias: Option<&Tensor>) -> Tensor {
        let (tokens, dropped) = by_token(x, self.training.then_some(self.dropout));
        // d stays outside the product: its gradient is then a sum over tokens.
        let h = product(&dropped, &self.a().to_kind(x.kind()), None) * self.d.to_kind(x.kind());
        if x.device() == Device::Cpu {
            // Here b, too, stays outside: some passes over y for its gradient cost a CPU far less
            // than the product with h that b ⊙ B would ask for. (A GPU: the same, and memory.)
            let up = self.b.narrow(0, 0, self.site.out_features).to_kind(x.kind());
            let path = product(&h, &up, None);
            let y =
                frozen_product(&tokens, weight, bias).addcmul(&path, &self.b_vec.to_kind(x.kind()));
            return shaped(y, x);
        }
        add_path(x, &tokens, weight, bias, &h, &self.up())
    }

    fn low_rank(&self) -> Option<LowRank> {
        Some(self.pair())
    }

    fn merged(&self, weight: &Tensor) -> Tensor {
        self.pair().merged(weight)
    }

    fn tensors(&self) -> Vec<AdapterTensor> {
        let tensors = [&self.a, &self.b, &self.d, &self.b_vec];
        self.specs.iter().zip(tensors).map(|(spec, t)| AdapterTensor::new(*spec, t)).collect()
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

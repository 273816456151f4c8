//! AFLoRA's module: y = W0 x + b ⊙ B (d ⊙ (A x)) (Eq. 1).
//!
//! The hot path uses the folded form, y = W0 x + B' (A' x) with A' = d ⊙ A and B' = b ⊙ B (rows
//! scaled): two skinny products, the second accumulated into y. Once A no longer trains, d
//! leaves the fold: (A x) ⊙ d gives the same numbers, and the gradient of d becomes a reduction
//! over tokens × rank instead of a product as wide as the layer.

use super::init::{constant, kaiming_uniform};
use super::{check_site, Adapter, AdapterTensor, Block, Method, Role, Site};
use crate::error::check;
use crate::freeze::FreezeConfig;
use crate::Result;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

/// Which blocks' projection matrices train at the start (Table 5); the others stay random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PmTrainable {
    /// Feed-forward layers, the paper's choice.
    #[default]
    Ffn,
    /// Attention layers.
    Attention,
    /// Every adapted layer.
    All,
    /// None: only the vectors train.
    None,
}

impl PmTrainable {
    fn includes(self, block: Block) -> bool {
        match self {
            PmTrainable::Ffn => block == Block::Ffn,
            PmTrainable::Attention => block == Block::Attention,
            PmTrainable::All => true,
            PmTrainable::None => false,
        }
    }
}

/// AFLoRA's settings; the defaults are the paper's for GLUE.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AfloraConfig {
    /// Rank of A and B.
    pub rank: i64,
    /// Scales the path by `alpha / rank`; without it by 1, as in Eq. 1 and in the GLUE code.
    pub alpha: Option<f64>,
    /// Initial value of every element of d. (b starts at 0, so the model is unchanged.)
    pub d_initial: f64,
    /// Dropout on the adapter's input.
    pub dropout: f64,
    /// Which projection matrices train at the start.
    pub pm_trainable: PmTrainable,
    /// How they freeze.
    pub freeze: FreezeConfig,
}

impl Default for AfloraConfig {
    fn default() -> Self {
        AfloraConfig {
            rank: 4,
            alpha: None,
            d_initial: 0.1,
            dropout: 0.0,
            pm_trainable: PmTrainable::Ffn,
            freeze: FreezeConfig::default(),
        }
    }
}

/// The method: puts AFLoRA paths on layers.
#[derive(Debug, Clone)]
pub struct Aflora(AfloraConfig);

impl Aflora {
    /// Checks the settings.
    pub fn new(config: AfloraConfig) -> Result<Self> {
        check("rank", config.rank, config.rank > 0, "a positive number")?;
        let dropout = config.dropout;
        check("dropout", dropout, (0.0..1.0).contains(&dropout), "at least 0 and below 1")?;
        check("d_initial", config.d_initial, config.d_initial.is_finite(), "a finite number")?;
        if let Some(alpha) = config.alpha {
            check("alpha", alpha, alpha.is_finite() && alpha > 0.0, "a positive number")?;
        }
        config.freeze.validate()?;
        Ok(Aflora(config))
    }

    /// Whether the projection matrices on `site` train at the start.
    fn trains_projections(&self, site: &Site) -> bool {
        self.0.pm_trainable.includes(site.block) && self.0.freeze.trains_at_start()
    }
}

impl Method for Aflora {
    fn name(&self) -> &'static str {
        "aflora"
    }

    fn attach(&self, site: &Site, seed: u64, device: Device) -> Result<Box<dyn Adapter>> {
        Ok(Box::new(AfloraAdapter::new(self, site, seed, device)?))
    }

    fn freezing(&self) -> Option<&FreezeConfig> {
        Some(&self.0.freeze)
    }

    fn trainable_count(&self, site: &Site) -> i64 {
        let vectors = self.0.rank + site.out_features;
        let projections = self.0.rank * (site.in_features + site.out_features);
        vectors + if self.trains_projections(site) { projections } else { 0 }
    }
}

/// One AFLoRA path.
#[derive(Debug)]
pub struct AfloraAdapter {
    site: Site,
    /// Down-projection A, `[rank, in_features]`.
    a: Tensor,
    /// Up-projection B, `[out_features, rank]`.
    b: Tensor,
    /// Feature transformation vector d, `[rank]`.
    d: Tensor,
    /// Feature transformation vector b, `[out_features]`.
    b_vec: Tensor,
    scale: f64,
    dropout: f64,
    training: bool,
}

impl AfloraAdapter {
    fn new(method: &Aflora, site: &Site, seed: u64, device: Device) -> Result<Self> {
        let config = &method.0;
        check_site(site, config.rank)?;
        let trains = method.trains_projections(site);
        let draw = |shape, which: &str| {
            let name = format!("{}.{which}", site.name);
            kaiming_uniform(shape, seed, &name, device).set_requires_grad(trains)
        };
        let vector = |len, value| constant(len, value, device).set_requires_grad(true);
        Ok(AfloraAdapter {
            a: draw([config.rank, site.in_features], "lora_A"),
            b: draw([site.out_features, config.rank], "lora_B"),
            d: vector(config.rank, config.d_initial),
            b_vec: vector(site.out_features, 0.0),
            scale: config.alpha.map_or(1.0, |alpha| alpha / config.rank as f64),
            dropout: config.dropout,
            training: false,
            site: site.clone(),
        })
    }

    /// B' = scale · b ⊙ B, rows scaled, `[out_features, rank]`.
    fn folded_up(&self) -> Tensor {
        let b_vec = self.b_vec.unsqueeze(1);
        // The scale goes onto the vector: out_features numbers instead of out_features × rank.
        &self.b * if self.scale == 1.0 { b_vec } else { b_vec * self.scale }
    }

    /// A' = d ⊙ A, rows scaled, `[rank, in_features]`.
    fn folded_down(&self) -> Tensor {
        &self.a * self.d.unsqueeze(1)
    }

    /// d ⊙ (A x) for `x` of `[tokens, in_features]`, `[tokens, rank]`.
    fn down(&self, x: &Tensor) -> Tensor {
        let kind = x.kind();
        if self.a.requires_grad() {
            x.linear(&self.folded_down().to_kind(kind), None::<Tensor>)
        } else {
            x.linear(&self.a.to_kind(kind), None::<Tensor>) * self.d.to_kind(kind)
        }
    }
}

impl Adapter for AfloraAdapter {
    fn site(&self) -> &Site {
        &self.site
    }

    fn forward(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let x2 = x.reshape([-1, self.site.in_features]);
        let h = if self.training && self.dropout > 0.0 {
            self.down(&x2.dropout(self.dropout, true))
        } else {
            self.down(&x2)
        };
        super::wrap::accumulate(x, &x2, weight, bias, &h, &self.folded_up())
    }

    fn delta(&self) -> Tensor {
        self.folded_up().matmul(&self.folded_down())
    }

    fn tensors(&self) -> Vec<AdapterTensor> {
        let tensor = |name, role, tensor: &Tensor| AdapterTensor {
            name,
            role,
            tensor: tensor.shallow_clone(),
            trainable: tensor.requires_grad(),
        };
        vec![
            tensor("lora_A", Role::Projection, &self.a),
            tensor("lora_B", Role::Projection, &self.b),
            tensor("aflora_d", Role::Vector, &self.d),
            tensor("aflora_b", Role::Vector, &self.b_vec),
        ]
    }

    fn set_training(&mut self, on: bool) {
        self.training = on;
    }
}

//! AFLoRA's module: y = W0 x + b ⊙ B (d ⊙ (A x)) (Eq. 1).
//!
//! How it is computed, fused or folded, is for [`low_rank`](crate::kernels::low_rank) to choose.

use super::checks::{check_dropout, check_layers};
use super::init::{constant, kaiming_uniform};
use super::side_path::SidePath;
use super::site::{Block, Layer, Site};
use super::tensor::{AdapterTensor, Role, TensorSpec};
use super::traits::{Adapter, LowRank, Method, MethodSettings};
use crate::error::check;
use crate::flops::Products;
use crate::freeze::FreezeConfig;
use crate::hook::Hook;
use crate::optim::Parameter;
use crate::span::RunLength;
use crate::weight::FrozenWeight;
use crate::Result;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tch::{Device, Tensor};

/// A, B and the vectors d and b.
pub(super) const TENSORS: [TensorSpec; 4] = [
    TensorSpec::new("lora_A", "lora_A.weight", Role::Projection, Some(0)),
    TensorSpec::new("lora_B", "lora_B.weight", Role::Projection, Some(1)),
    TensorSpec::new("aflora_d", "aflora_d", Role::Vector, Some(0)),
    TensorSpec::new("aflora_b", "aflora_b", Role::Vector, None),
];

/// Which blocks' projection matrices train at the start (Table 5); the others stay random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct AfloraConfig {
    /// Of A and B: more can learn more, and is more to train and to store.
    pub rank: i64,
    /// Scales the path by alpha / rank; null: by 1, as in Eq. 1 and in the GLUE code.
    pub alpha: Option<f64>,
    /// Every element of d at the start; b starts at 0, so that the model is unchanged.
    pub d_initial: f64,
    /// Share of the adapter's input that is dropped out: against overfitting, at the cost of speed.
    pub dropout: f64,
    /// Whose projection matrices train at the start; the others stay as they were drawn.
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

impl MethodSettings for AfloraConfig {
    fn build(&self) -> Result<Box<dyn Method>> {
        Ok(Box::new(Aflora::new(self.clone())?))
    }

    fn rank(&self) -> Option<i64> {
        Some(self.rank)
    }

    fn freezing(&self) -> Option<&FreezeConfig> {
        (self.pm_trainable != PmTrainable::None).then_some(&self.freeze)
    }
}

/// The method: puts AFLoRA paths on layers.
#[derive(Debug, Clone)]
pub struct Aflora(AfloraConfig);

impl Aflora {
    /// The method with these settings.
    ///
    /// # Errors
    /// A setting is out of its range: which, and what it must be.
    pub fn new(config: AfloraConfig) -> Result<Self> {
        check("rank", config.rank, config.rank > 0, "a positive number")?;
        check_dropout(config.dropout)?;
        check("d_initial", config.d_initial, config.d_initial.is_finite(), "a finite number")?;
        if let Some(alpha) = config.alpha {
            check("alpha", alpha, alpha.is_finite() && alpha > 0.0, "a positive number")?;
        }
        config.freeze.validate()?;
        Ok(Aflora(config))
    }

    pub(super) fn adapters(
        &self,
        layers: &[Layer],
        seed: u64,
        device: Device,
    ) -> Result<Vec<AfloraAdapter>> {
        check_layers(layers, self.0.rank, 1)?;
        let adapter = |layer: &Layer| AfloraAdapter::new(self, &layer.site, seed, device);
        Ok(layers.iter().map(adapter).collect())
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

    fn attach(&self, layers: &[Layer], seed: u64, device: Device) -> Result<Vec<Box<dyn Adapter>>> {
        let adapters = self.adapters(layers, seed, device)?;
        Ok(adapters.into_iter().map(|a| Box::new(a) as _).collect())
    }

    fn tensors(&self) -> &'static [TensorSpec] {
        &TENSORS
    }

    fn trainable_count(&self, site: &Site) -> i64 {
        let vectors = self.0.rank + site.out_features;
        let projections = self.0.rank * (site.in_features + site.out_features);
        vectors + if self.trains_projections(site) { projections } else { 0 }
    }

    fn freezes(&self) -> bool {
        self.0.freeze.is_adaptive() && self.0.pm_trainable != PmTrainable::None
    }

    fn hook(&self, length: RunLength, parameters: &[Parameter]) -> Result<Option<Box<dyn Hook>>> {
        self.0.freeze.hook(length, parameters)
    }
}

/// One AFLoRA path.
#[derive(Debug)]
pub struct AfloraAdapter {
    site: Arc<Site>,
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
    fn new(method: &Aflora, site: &Arc<Site>, seed: u64, device: Device) -> Self {
        let config = &method.0;
        let trains = method.trains_projections(site);
        let draw = |shape, which: &str| {
            let name = format!("{}.{which}", site.name);
            kaiming_uniform(shape, seed, &name, device).set_requires_grad(trains)
        };
        let vector = |len, value| constant([len], value, device).set_requires_grad(true);
        AfloraAdapter {
            a: draw([config.rank, site.in_features], "lora_A"),
            b: draw([site.out_features, config.rank], "lora_B"),
            d: vector(config.rank, config.d_initial),
            b_vec: vector(site.out_features, 0.0),
            scale: config.alpha.map_or(1.0, |alpha| alpha / config.rank as f64),
            dropout: config.dropout,
            training: false,
            site: site.clone(),
        }
    }

    fn pair(&self) -> LowRank {
        // The scale goes onto the vector: out_features numbers instead of out_features × rank.
        let b_vec = self.b_vec.unsqueeze(1);
        let b_vec = if self.scale == 1.0 { b_vec } else { b_vec * self.scale };
        LowRank { down: &self.a * self.d.unsqueeze(1), up: &self.b * b_vec }
    }

    fn side_path(&self) -> SidePath {
        SidePath {
            down: self.a.shallow_clone(),
            d: Some(self.d.shallow_clone()),
            up: self.b.shallow_clone(),
            b: Some(self.b_vec.shallow_clone()),
            scale: self.scale,
            dropout: self.training.then_some(self.dropout),
        }
    }

    /// d, `[rank]`.
    pub(super) fn d(&self) -> &Tensor {
        &self.d
    }

    /// Makes room for `rank` components.
    pub(super) fn set_component_count(&mut self, rank: i64) {
        let Site { in_features, out_features, .. } = *self.site;
        let room = |t: &Tensor, shape: &[i64]| {
            let options = (tch::Kind::Float, t.device());
            Tensor::zeros(shape, options).set_requires_grad(t.requires_grad())
        };
        self.a = room(&self.a, &[rank, in_features]);
        self.b = room(&self.b, &[out_features, rank]);
        self.d = room(&self.d, &[rank]);
    }
}

impl Adapter for AfloraAdapter {
    fn site(&self) -> &Arc<Site> {
        &self.site
    }

    fn forward(&self, x: &Tensor, weight: &FrozenWeight, bias: Option<&Tensor>) -> Tensor {
        self.side_path().forward(x, weight, bias)
    }

    fn path(&self) -> Option<SidePath> {
        Some(self.side_path())
    }

    fn low_rank(&self) -> Option<LowRank> {
        Some(self.pair())
    }

    fn merged(&self, weight: &Tensor) -> Tensor {
        self.pair().merged(weight)
    }

    fn tensors(&self) -> Vec<AdapterTensor> {
        let tensors = [&self.a, &self.b, &self.d, &self.b_vec];
        TENSORS.iter().zip(tensors).map(|(spec, t)| AdapterTensor::new(*spec, t)).collect()
    }

    fn set_training(&mut self, on: bool) {
        self.training = on;
    }

    fn products(&self) -> Products {
        Products { down: self.a.requires_grad(), up: true }
    }

    fn rank(&self) -> i64 {
        self.a.size()[0]
    }
}

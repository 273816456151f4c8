//! DoRA (Liu et al. 2024): y = m ⊙ (W0 + s · B A) x / ‖W0 + s · B A‖, with the norm of each row
//! (Eq. 5). LoRA turns the rows of the weight, and a vector m, the norms of W0 at first, is their
//! length.
//!
//! The norm counts as a constant in the gradient (section 4.3 of the paper, and PEFT). Dropout acts
//! on the input of the low-rank path alone, where PEFT has it on that of W0 ⊙ (m / ‖·‖ - 1), too,
//! for one more product with W0. The norms ask for B A once a pass, 2 · r · in · out operations
//! whatever the number of tokens; operations a token do not count them.

use super::checks::check_layers;
use super::factored::Factored;
use super::init::constant;
use super::lora::{self, LoraConfig};
use super::peft::Peft;
use super::site::{Layer, Site};
use super::start::Init;
use super::tensor::{AdapterTensor, Role, TensorSpec};
use super::traits::{Adapter, Method, MethodSettings};
use crate::error::check;
use crate::flops::{Flops, Products};
use crate::freeze::FreezeConfig;
use crate::hook::Hook;
use crate::optim::Parameter;
use crate::span::RunLength;
use crate::weight::FrozenWeight;
use crate::Result;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// A, B and the magnitudes m.
const TENSORS: [TensorSpec; 3] = [
    lora::TENSORS[0],
    lora::TENSORS[1],
    TensorSpec::new("lora_magnitude_vector", "lora_magnitude_vector", Role::Vector, None),
];

/// DoRA's settings, which are LoRA's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct DoraConfig(pub LoraConfig);

impl MethodSettings for DoraConfig {
    fn build(&self) -> Result<Box<dyn Method>> {
        self.0.validate()?;
        let init = self.0.init;
        let standard = init == Init::Standard;
        check("init", init.name(), standard, "standard: others are built for `lora`")?;
        Ok(Box::new(Dora(self.0.clone())))
    }

    fn rank(&self) -> Option<i64> {
        self.0.rank()
    }

    fn freezing(&self) -> Option<&FreezeConfig> {
        self.0.freezing()
    }

    fn peft(&self) -> Option<&'static Peft> {
        Some(&PEFT)
    }
}

/// DoRA as PEFT has it: a switch of LoRA's.
const PEFT: Peft = Peft { switches: &["use_dora"], ..lora::PEFT };

/// The method: puts DoRA paths on layers.
#[derive(Debug, Clone)]
pub struct Dora(LoraConfig);

impl Method for Dora {
    fn name(&self) -> &'static str {
        "dora"
    }

    fn attach(&self, layers: &[Layer], seed: u64, device: Device) -> Result<Vec<Box<dyn Adapter>>> {
        check_layers(layers, self.0.rank, 1)?;
        let adapter = |layer: &Layer| -> Result<Box<dyn Adapter>> {
            let magnitude = match &layer.weight {
                Some(weight) => row_norms(&weight.numbers().to_kind(Kind::Float)).to_device(device),
                None => constant([layer.site.out_features], 1.0, device),
            };
            Ok(Box::new(DoraAdapter {
                lora: self.0.path(layer, &TENSORS, seed, device)?,
                magnitude: magnitude.set_requires_grad(true),
            }))
        };
        layers.iter().map(adapter).collect()
    }

    fn tensors(&self) -> &'static [TensorSpec] {
        &TENSORS
    }

    fn trainable_count(&self, site: &Site) -> i64 {
        self.0.trainable_count(site) + site.out_features
    }

    fn freezes(&self) -> bool {
        self.0.freeze.is_adaptive()
    }

    fn hook(&self, length: RunLength, parameters: &[Parameter]) -> Result<Option<Box<dyn Hook>>> {
        self.0.freeze.hook(length, parameters)
    }
}

/// One DoRA path.
#[derive(Debug)]
struct DoraAdapter {
    lora: Factored,
    /// m, `[out_features]`.
    magnitude: Tensor,
}

impl DoraAdapter {
    /// m / ‖`merged`‖ for LoRA's merged weight, `[out_features]`.
    fn factor(&self, merged: &Tensor) -> Tensor {
        &self.magnitude / row_norms(merged)
    }
}

/// The norm of each row of a matrix `[rows, columns]`, `[rows]`; of a row of zeros, next to 0, so
/// that it can be divided by.
fn row_norms(matrix: &Tensor) -> Tensor {
    let norms = matrix.norm_scalaropt_dim(2.0, [1i64].as_slice(), false);
    norms.clamp_min(f64::from(f32::MIN_POSITIVE))
}

impl Adapter for DoraAdapter {
    fn site(&self) -> &Arc<Site> {
        self.lora.site()
    }

    fn forward(&self, x: &Tensor, weight: &FrozenWeight, bias: Option<&Tensor>) -> Tensor {
        let merged = tch::no_grad(|| self.lora.merged(&weight.numbers()));
        // As a change of LoRA's output: at the start it is none, to the bit.
        let change = (self.factor(&merged) - 1.0).to_kind(x.kind());
        let y = self.lora.forward(x, weight, bias);
        match bias {
            Some(bias) => &y + (&y - bias) * change,
            None => &y + &y * change,
        }
    }

    fn merged(&self, weight: &Tensor) -> Tensor {
        let merged = self.lora.merged(weight);
        let factor = self.factor(&merged);
        merged * factor.unsqueeze(1)
    }

    fn tensors(&self) -> Vec<AdapterTensor> {
        let mut tensors = self.lora.tensors();
        tensors.push(AdapterTensor::new(TENSORS[2], &self.magnitude));
        tensors
    }

    fn set_training(&mut self, on: bool) {
        self.lora.set_training(on);
    }

    fn products(&self) -> Products {
        self.lora.products()
    }

    fn flops_per_token(&self) -> Flops {
        self.lora.flops_per_token()
    }

    fn rank(&self) -> i64 {
        self.lora.rank()
    }
}

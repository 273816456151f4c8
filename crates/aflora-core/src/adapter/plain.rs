//! Methods without adapters: all weights (`full`), the biases (`bitfit`, Ben Zaken et al. 2022),
//! or nothing but the task head (`head`).

use super::site::{Layer, Site};
use super::tensor::TensorSpec;
use super::traits::{Adapter, Method, MethodSettings};
use crate::Result;
use serde::{Deserialize, Serialize};
use tch::Device;

/// Full fine-tuning has no settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FullConfig {}

/// BitFit has no settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BitFitConfig {}

/// Training the head alone has no settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HeadConfig {}

/// Settings of which there are none.
macro_rules! plain {
    ($($settings:ty => $method:expr),*) => {
        $( impl MethodSettings for $settings {
            fn build(&self) -> Result<Box<dyn Method>> {
                Ok(Box::new($method))
            }
        } )*
    };
}

plain!(FullConfig => Plain::Full, BitFitConfig => Plain::BitFit, HeadConfig => Plain::Head);

/// Which of the model's own weights train, beside the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plain {
    /// Every one: the classical fine-tuning.
    Full,
    /// The biases alone (Ben Zaken et al. 2022).
    BitFit,
    /// None of the model's weights: the head alone trains.
    Head,
}

impl Method for Plain {
    fn name(&self) -> &'static str {
        match self {
            Plain::Full => "full",
            Plain::BitFit => "bitfit",
            Plain::Head => "head",
        }
    }

    fn attach(&self, _: &[Layer], _: u64, _: Device) -> Result<Vec<Box<dyn Adapter>>> {
        Ok(Vec::new())
    }

    fn tensors(&self) -> &'static [TensorSpec] {
        &[]
    }

    fn trainable_count(&self, _: &Site) -> i64 {
        0
    }

    fn trains(&self, name: &str) -> bool {
        match self {
            Plain::Full => true,
            Plain::BitFit => name.ends_with("bias"),
            Plain::Head => false,
        }
    }

    fn adapts(&self) -> bool {
        false
    }
}

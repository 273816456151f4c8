//! Methods without adapters: all weights (`full`), the biases (`bitfit`, Ben Zaken et al. 2022),
//! or nothing but the task head (`head`).

use super::site::{Layer, Site};
use super::tensor::TensorSpec;
use super::traits::{Adapter, Method};
use crate::Result;
use tch::Device;

/// Which of the model's own weights train, beside the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plain {
    /// Every one: the classical fine-tuning.
    Full,
    /// The biases.
    BitFit,
    /// None.
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

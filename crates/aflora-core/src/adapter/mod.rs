//! Modules that run beside a frozen linear layer.
//!
//! A [`Method`] puts an [`Adapter`] on each [`Site`], that is on each linear layer that was
//! chosen. One file a method, every file of the same shape: configuration, initialisation,
//! forward, delta, tensors.

pub mod aflora;
mod init;
pub mod lora;
mod wrap;

pub use aflora::{Aflora, AfloraConfig, PmTrainable};
pub use init::normal;
pub use lora::{Lora, LoraConfig};
pub use wrap::AdaptedLinear;

use crate::freeze::FreezeConfig;
use crate::optim::Parameter;
use crate::Result;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use tch::{Device, Tensor};

/// The part of a transformer block that a layer belongs to.
///
/// AFLoRA trains the projection matrices of feed-forward layers and leaves those of attention
/// layers random and frozen by default, so it must know which is which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Block {
    /// Query, key, value and the attention's output projection.
    Attention,
    /// The feed-forward layers.
    Ffn,
}

/// A linear layer that an adapter is put on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The layer's path, such as `bert.encoder.layer.0.attention.self.query`.
    pub name: String,
    /// Columns of `W0`.
    pub in_features: i64,
    /// Rows of `W0`.
    pub out_features: i64,
    /// Where in a transformer block the layer sits.
    pub block: Block,
}

/// The optimiser's groups: each has its own learning rate and weight decay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Projection matrices `A` and `B`.
    Projection,
    /// Feature transformation vectors `d` and `b`.
    Vector,
    /// Weights of the task head.
    Head,
    /// Biases of the task head; never decayed.
    HeadBias,
}

impl Role {
    /// All groups, in the order in which they are stored.
    pub const ALL: [Role; 4] = [Role::Projection, Role::Vector, Role::Head, Role::HeadBias];

    /// Whether the parameter belongs to an adapter, that is counts as an adapter parameter.
    pub fn is_adapter(self) -> bool {
        matches!(self, Role::Projection | Role::Vector)
    }
}

/// One tensor of an adapter.
#[derive(Debug)]
pub struct AdapterTensor {
    /// The name below the site's path, such as `lora_A`.
    pub name: &'static str,
    /// The optimiser group, if trained.
    pub role: Role,
    /// The tensor: a leaf that the adapter computes with, not a copy.
    pub tensor: Tensor,
    /// Whether it trains at the start.
    pub trainable: bool,
}

/// A low-rank path beside one frozen linear layer.
pub trait Adapter: Debug + Send {
    /// The layer that it sits on.
    fn site(&self) -> &Site;

    /// The layer's output with the low-rank path added.
    ///
    /// `x`: `[.., in_features]`, `weight` (frozen): `[out_features, in_features]`, `bias`
    /// (frozen): `[out_features]`; gives `[.., out_features]` in the kind of `x`.
    fn forward(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor;

    /// What the path adds to the weight: `W = W0 + delta`, `[out_features, in_features]`.
    fn delta(&self) -> Tensor;

    /// Every tensor that the adapter owns; saving, counting and packing go over this list.
    fn tensors(&self) -> Vec<AdapterTensor>;

    /// Those of [`tensors`](Adapter::tensors) that train now, under their full names.
    fn parameters(&self) -> Vec<Parameter> {
        let full = |name: &str| format!("{}.{name}", self.site().name);
        self.tensors()
            .into_iter()
            .filter(|t| t.trainable)
            .map(|t| Parameter { name: full(t.name), role: t.role, leaf: t.tensor })
            .collect()
    }

    /// Switches input dropout on (training) or off (evaluation).
    fn set_training(&mut self, on: bool);
}

/// A way of adapting a model: makes the adapter of each site.
pub trait Method: Debug {
    /// The name in configuration files and adapter folders.
    fn name(&self) -> &'static str;

    /// Puts a fresh adapter on `site`.
    ///
    /// The same `seed` and site name give the same adapter, whatever the other sites and
    /// whatever the device.
    fn attach(&self, site: &Site, seed: u64, device: Device) -> Result<Box<dyn Adapter>>;

    /// How projection matrices freeze during training, if this method freezes any.
    fn freezing(&self) -> Option<&FreezeConfig>;

    /// Parameters that train at the start on `site`, by the method's closed formula.
    fn trainable_count(&self, site: &Site) -> i64;
}

/// Checks `site` and `rank` once for all methods.
fn check_site(site: &Site, rank: i64) -> Result<()> {
    use crate::error::check;
    check("in_features", site.in_features, site.in_features > 0, "positive")?;
    check("out_features", site.out_features, site.out_features > 0, "positive")?;
    check("rank", rank, rank > 0, "a positive number")
}

//! Modules that run beside a frozen linear layer.
//!
//! A [`Method`] puts an [`Adapter`] on each [`Site`], that is on each linear layer that was
//! chosen, and may bring a [`Hook`] that acts during training. One file a method,
//! every file of the same shape: settings, method, adapter, hook.
//!
//! | method | trains | file |
//! |---|---|---|
//! | AFLoRA | low-rank matrices until they freeze, two vectors | [`aflora`] |
//! | LoRA | two low-rank matrices | [`lora`] |
//! | ELoRA (VeRA) | two vectors beside one shared random pair | [`elora`] |
//! | AdaLoRA | a singular value decomposition, to a rank budget | [`adalora`] |
//! | SoRA | low-rank matrices behind a gate that shrinks to zeros | [`sora`] |
//! | full, BitFit, head | the model's own weights, its biases, nothing but the head | [`plain`] |
//! | AFLoRA with adaptive rank | AFLoRA by components: some freeze, some leave | [`aflora_rank`] |

pub mod adalora;
pub mod aflora;
pub mod aflora_rank;
pub mod elora;
mod init;
pub mod lora;
mod methods;
pub mod plain;
pub mod sora;
mod wrap;

pub use adalora::{AdaLora, AdaLoraConfig};
pub use aflora::{Aflora, AfloraConfig, PmTrainable};
pub use aflora_rank::{AfloraRank, AfloraRankConfig};
pub use elora::{Elora, EloraConfig};
pub use init::{normal, shapes_only};
pub use lora::{Lora, LoraConfig};
pub use methods::MethodConfig;
pub use plain::Plain;
pub use sora::{Sora, SoraConfig};
pub use wrap::AdaptedLinear;

use crate::flops::{self, Flops, Products};
use crate::hook::Hook;
use crate::kernels::{self, LowRankPath};
use crate::optim::{Group, Parameter};
use crate::span::RunLength;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
    /// AdaLoRA's singular values.
    SingularValue,
    /// SoRA's gates; never decayed.
    Gate,
    /// The model's own weights, where a method trains them.
    Weight,
    /// The model's own biases and LayerNorm scales; never decayed.
    WeightBias,
    /// Weights of the task head.
    Head,
    /// Biases of the task head; never decayed.
    HeadBias,
}

impl Role {
    /// All groups, in the order in which they are stored.
    pub const ALL: [Role; 8] = [
        Role::Projection,
        Role::Vector,
        Role::SingularValue,
        Role::Gate,
        Role::Weight,
        Role::WeightBias,
        Role::Head,
        Role::HeadBias,
    ];

    /// Whether the parameter counts as the method's own, as everything but the head does.
    pub fn is_adapter(self) -> bool {
        !matches!(self, Role::Head | Role::HeadBias)
    }

    /// Whether the parameter only makes sense with its method's hook: without it, AdaLoRA
    /// would train at full rank and SoRA without its zeros, and nothing would say so.
    pub fn needs_hook(self) -> bool {
        matches!(self, Role::SingularValue | Role::Gate)
    }
}

/// One tensor of an adapter.
#[derive(Debug)]
pub struct AdapterTensor {
    /// The name below the site's path, such as `lora_A`.
    pub name: &'static str,
    /// The key below the site's path in an adapter folder, such as `lora_A.weight`; with
    /// [`shared`](Self::shared), below the model's root.
    pub key: &'static str,
    /// The optimiser group, if trained.
    pub role: Role,
    /// The tensor: a leaf that the adapter computes with, not a copy.
    pub tensor: Tensor,
    /// Whether it trains at the start.
    pub trainable: bool,
    /// Whether all adapters of the model share it.
    pub shared: bool,
}

impl AdapterTensor {
    fn new(name: &'static str, key: &'static str, role: Role, tensor: &Tensor) -> Self {
        let trainable = tensor.requires_grad();
        AdapterTensor { name, key, role, tensor: tensor.shallow_clone(), trainable, shared: false }
    }
}

/// An adapter as plain LoRA has it: `delta = up · down`.
#[derive(Debug)]
pub struct LowRank {
    /// `[rank, in_features]`.
    pub down: Tensor,
    /// `[out_features, rank]`.
    pub up: Tensor,
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

    /// The path with every vector, gate and scale folded in.
    fn folded(&self) -> LowRank;

    /// What the path adds to the weight: `W = W0 + delta`, `[out_features, in_features]`.
    fn delta(&self) -> Tensor {
        let LowRank { down, up } = self.folded();
        up.matmul(&down)
    }

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

    /// Rank of the path.
    fn rank(&self) -> i64;

    /// Which weight gradients a backward pass computes now, for counting its operations.
    fn products(&self) -> Products {
        Products { down: true, up: true }
    }

    /// Operations of the path as it stands now, for a token whose input has a gradient (as those of
    /// all but the first layers have).
    fn flops_per_token(&self) -> Flops {
        let Site { in_features, out_features, .. } = *self.site();
        flops::path((in_features, out_features), self.rank(), self.products(), 1, true)
    }

    /// The tensors as an adapter folder holds them: those of [`tensors`](Self::tensors), without
    /// the rank components that contribute nothing (a gate or singular value of exactly zero).
    /// The output of the path is the same with them; [`set_rank`](Self::set_rank) makes room.
    fn saved(&self) -> Vec<AdapterTensor> {
        self.tensors()
    }

    /// Makes room for `rank` components, whose values the caller then loads.
    ///
    /// # Errors
    /// The method has one rank for all layers.
    fn set_rank(&mut self, rank: i64) -> Result<()> {
        crate::error::check("rank", rank, rank == self.rank(), "the rank of every other layer")
    }
}

/// A way of adapting a model: makes the adapters, and what acts on them during training.
pub trait Method: Debug {
    /// The name in configuration files and adapter folders.
    fn name(&self) -> &'static str;

    /// Puts fresh adapters on `sites`, in their order. None where the method trains the model's
    /// own weights.
    ///
    /// The same `seed` and site name give the same adapter, whatever the device and (but for
    /// what a method shares between layers) whatever the other sites.
    fn attach(&self, sites: &[Site], seed: u64, device: Device) -> Result<Vec<Box<dyn Adapter>>>;

    /// Parameters that train at the start on `site`, by the method's closed formula.
    fn trainable_count(&self, site: &Site) -> i64;

    /// Whether the model's own weight `name` trains.
    fn trains(&self, _name: &str) -> bool {
        false
    }

    /// Whether the method puts adapters on layers at all.
    fn adapts(&self) -> bool {
        true
    }

    /// Whether projection matrices that train at the start are frozen at the end.
    fn freezes(&self) -> bool {
        false
    }

    /// What acts during training.
    ///
    /// # Errors
    /// The settings do not fit the length of the run.
    fn hook(&self, _length: RunLength, _parameters: &[Parameter]) -> Result<Option<Box<dyn Hook>>> {
        Ok(None)
    }
}

/// Which components of a path to save: those whose `factor` (`[rank]`) is not zero. There may be
/// none: a layer of rank 0, as PEFT has it too.
fn components_in_use(factor: &Tensor) -> Tensor {
    tch::no_grad(|| factor.reshape([-1]).ne(0.0).nonzero().squeeze_dim(1))
}

/// `tensors` with only the components in `kept`; `along` gives the rank's dimension by name.
fn select_components(
    tensors: Vec<AdapterTensor>,
    kept: &Tensor,
    along: impl Fn(&str) -> Option<i64>,
) -> Vec<AdapterTensor> {
    let select = |t: AdapterTensor| match along(t.name) {
        Some(dim) => AdapterTensor { tensor: t.tensor.detach().index_select(dim, kept), ..t },
        None => t,
    };
    tensors.into_iter().map(select).collect()
}

/// The mean of `flat` (laid out like `group`'s values) over each row of A plus that over each
/// column of B, by layer: `[rank]` each.
fn component_means(group: &Group, flat: &Tensor) -> BTreeMap<String, Tensor> {
    let mut means: BTreeMap<String, Tensor> = BTreeMap::new();
    for ((name, leaf), slice) in group.leaves().zip(group.slices(flat)) {
        let Some((site, which)) = name.rsplit_once('.') else { continue };
        let across = if which == "lora_A" { 1 } else { 0 };
        let mean = slice.view_as(leaf).mean_dim(across, false, tch::Kind::Float);
        let sum = match means.remove(site) {
            Some(other) => other + mean,
            None => mean,
        };
        means.insert(site.to_string(), sum);
    }
    means
}

/// Checks `sites` and `rank` once for all methods.
///
/// A rank beyond the features of the widest layer, in `widths`, adds nothing and takes memory
/// without end: 1 for matrices that train; more for random ones, of which only vectors train.
fn check_sites(sites: &[Site], rank: i64, widths: i64) -> Result<()> {
    use crate::error::check;
    for (i, site) in sites.iter().enumerate() {
        check("in_features", site.in_features, site.in_features > 0, "positive")?;
        check("out_features", site.out_features, site.out_features > 0, "positive")?;
        if sites[..i].iter().any(|other| other.name == site.name) {
            return Err(Error::DuplicateName(site.name.clone()));
        }
    }
    check("rank", rank, rank > 0, "a positive number")?;
    let Some(widest) = sites.iter().map(|s| s.in_features.max(s.out_features)).max() else {
        return Ok(());
    };
    let most = widths.saturating_mul(widest);
    let expected = format!("at most {most}: its layers have {widest} features at the most");
    check("rank", rank, rank <= most, expected)
}

/// Checks a dropout rate.
fn check_dropout(dropout: f64) -> Result<()> {
    let ok = (0.0..1.0).contains(&dropout);
    crate::error::check("dropout", dropout, ok, "at least 0 and below 1")
}

/// The forward pass of a path that computes with its folded pair.
fn folded_forward(
    adapter: &dyn Adapter,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    dropout: Option<f64>,
) -> Tensor {
    let LowRank { down, up } = adapter.folded();
    let path = LowRankPath { down: &down, d: None, up: &up, b: None, scale: 1.0 };
    kernels::low_rank(x, weight, bias, &path, dropout)
}

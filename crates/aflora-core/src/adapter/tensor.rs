//! What an adapter is made of: tensors that know their place in it.

use super::site::Site;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tch::Tensor;

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
    pub(crate) fn is_adapter(self) -> bool {
        !matches!(self, Role::Head | Role::HeadBias)
    }

    /// Whether the parameter only makes sense with its method's hook: without it, AdaLoRA
    /// would train at full rank and SoRA without its zeros, and nothing would say so.
    pub(crate) fn needs_hook(self) -> bool {
        matches!(self, Role::SingularValue | Role::Gate)
    }
}

/// A tensor that each adapter of a method has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name below the layer's path, such as `lora_A`.
    pub name: &'static str,
    /// The key below the layer's path in an adapter folder, such as `lora_A.weight`; with
    /// [`shared`](Self::shared), below the model's root.
    pub key: &'static str,
    /// The optimiser's group, if trained.
    pub role: Role,
    /// The dimension along which rank components lie: 0 of a down-projection `[rank, in]`, 1 of
    /// an up-projection `[out, rank]`; none of a tensor that has no part of a component.
    pub rank_dim: Option<i64>,
    /// Whether all adapters of the model share it.
    pub shared: bool,
}

impl TensorSpec {
    /// A tensor of one layer's adapter.
    pub const fn new(
        name: &'static str,
        key: &'static str,
        role: Role,
        rank_dim: Option<i64>,
    ) -> Self {
        TensorSpec { name, key, role, rank_dim, shared: false }
    }
}

/// One tensor of an adapter.
#[derive(Debug)]
pub struct AdapterTensor {
    /// Which of the adapter's tensors it is.
    pub spec: TensorSpec,
    /// The tensor: a leaf that the adapter computes with, not a copy.
    pub tensor: Tensor,
    /// Whether it trains at the start.
    pub trainable: bool,
}

impl AdapterTensor {
    pub(super) fn new(spec: TensorSpec, tensor: &Tensor) -> Self {
        let trainable = tensor.requires_grad();
        AdapterTensor { spec, tensor: tensor.shallow_clone(), trainable }
    }

    /// How many rank components it holds, if it holds any.
    pub fn components(&self) -> Option<i64> {
        self.spec.rank_dim.map(|dim| self.tensor.size()[dim as usize])
    }
}

/// The layer and the tensor of its adapter that a [parameter](crate::optim::Parameter) is.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The layer.
    pub site: Arc<Site>,
    /// Which tensor of its adapter.
    pub tensor: TensorSpec,
}

//! What the optimiser trains.

use crate::adapter::{Origin, Role, Site, TensorSpec};
use std::sync::Arc;
use tch::Tensor;

/// A tensor to train.
#[derive(Debug)]
pub struct Parameter {
    /// Its full name, unique in the model.
    pub name: String,
    /// Its optimiser group.
    pub role: Role,
    /// The leaf; fp32.
    pub leaf: Tensor,
    /// Which tensor of which layer's adapter it is; none of a weight of the model itself.
    pub origin: Option<Origin>,
    /// Its learning rate as a multiple of its group's.
    pub rate: f64,
}

impl Parameter {
    /// A tensor of the adapter on `site`.
    pub fn of_adapter(site: &Arc<Site>, tensor: TensorSpec, leaf: Tensor) -> Self {
        let name = format!("{}.{}", site.name, tensor.name);
        let origin = Some(Origin { site: site.clone(), tensor });
        Parameter { name, role: tensor.role, leaf, origin, rate: 1.0 }
    }

    /// A weight of the model itself.
    pub fn of_model(name: impl Into<String>, role: Role, leaf: Tensor) -> Self {
        Parameter { name: name.into(), role, leaf, origin: None, rate: 1.0 }
    }

    /// Whether it is an up-projection matrix, B: `[out_features, rank]`.
    pub(crate) fn is_up(&self) -> bool {
        let origin = self.origin.as_ref();
        let up = |origin: &Origin| origin.tensor.rank_dim == Some(1);
        self.role == Role::Projection && origin.is_some_and(up)
    }

    /// Of an adapter's tensor that holds rank components: the layer, and the dimension along
    /// which they lie.
    pub fn components(&self) -> Option<(&Site, i64)> {
        let Origin { site, tensor } = self.origin.as_ref()?;
        Some((site, tensor.rank_dim?))
    }
}

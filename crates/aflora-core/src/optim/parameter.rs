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
}

impl Parameter {
    /// A tensor of the adapter on `site`.
    pub fn of_adapter(site: &Arc<Site>, tensor: TensorSpec, leaf: Tensor) -> Self {
        let name = format!("{}.{}", site.name, tensor.name);
        let origin = Some(Origin { site: site.clone(), tensor });
        Parameter { name, role: tensor.role, leaf, origin }
    }

    /// A weight of the model itself.
    pub fn of_model(name: impl Into<String>, role: Role, leaf: Tensor) -> Self {
        Parameter { name: name.into(), role, leaf, origin: None }
    }

    /// Of an adapter's tensor that holds rank components: the layer, and the dimension along
    /// which they lie.
    pub fn components(&self) -> Option<(&Site, i64)> {
        let Origin { site, tensor } = self.origin.as_ref()?;
        Some((site, tensor.rank_dim?))
    }
}

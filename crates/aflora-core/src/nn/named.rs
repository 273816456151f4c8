//! Captured layers under the names of a model's variables.

use super::linear::{capture, LinearHandle};
use crate::adapter::{Block, Layer, Site};
use std::collections::HashMap;
use std::sync::Arc;
use tch::nn::VarStore;
use tch::Tensor;

/// A linear layer of a model, with its name and the slot for an adapter.
#[derive(Debug, Clone)]
pub struct NamedLinear {
    /// Name, shape and block.
    pub site: Arc<Site>,
    /// The layer.
    pub layer: LinearHandle,
}

impl NamedLinear {
    /// The layer whose weight's name, without `.weight`, is `name`.
    pub fn new(name: impl Into<String>, block: Block, layer: LinearHandle) -> Self {
        let size = layer.ws.size();
        let (out_features, in_features) =
            if layer.transposed { (size[1], size[0]) } else { (size[0], size[1]) };
        let site = Arc::new(Site::new(name, in_features, out_features, block));
        NamedLinear { site, layer }
    }

    /// The same layer, said to be of `block`, where its name does not tell.
    pub fn in_block(self, block: Block) -> Self {
        NamedLinear { site: Arc::new(Site { block, ..(*self.site).clone() }), ..self }
    }

    /// The layer as a method sees it that puts an adapter on it.
    pub fn as_layer(&self) -> Layer {
        if self.layer.is_shape_only() {
            return Layer::shape_only(self.site.clone());
        }
        let bias = self.layer.bs.as_ref().map(Tensor::shallow_clone);
        Layer { site: self.site.clone(), weight: Some(self.layer.weight()), bias }
    }
}

/// Runs `build`, which makes a model in `vs`, and gives with it every [`Linear`](super::Linear)
/// that was made on the way, under the name of its weight in `vs` without `.weight`, in the order in
/// which they were made.
///
/// A layer whose weight is no variable of `vs` is left out. [`Block::of_name`] tells which are
/// attention.
///
/// ```
/// use aflora_core::nn::{self, capture_named};
/// use tch::Device;
///
/// let vs = nn::VarStore::new(Device::Cpu);
/// let (model, layers) = capture_named(&vs, || {
///     let up = nn::linear(vs.root() / "ffn" / "up", 4, 16, Default::default());
///     let down = nn::linear(vs.root() / "ffn" / "down", 16, 4, Default::default());
///     nn::seq().add(up).add_fn(|x| x.relu()).add(down)
/// });
/// let names: Vec<&str> = layers.iter().map(|layer| layer.site.name.as_str()).collect();
/// assert_eq!(names, ["ffn.up", "ffn.down"]);
/// # let _ = model;
/// ```
pub fn capture_named<M>(vs: &VarStore, build: impl FnOnce() -> M) -> (M, Vec<NamedLinear>) {
    let (model, captured) = capture(build);
    let names: HashMap<usize, String> =
        vs.variables().into_iter().map(|(name, t)| (t.data_ptr() as usize, name)).collect();
    let named = |layer: LinearHandle| {
        let name = names.get(&(layer.ws.data_ptr() as usize))?;
        let name = name.strip_suffix(".weight").unwrap_or(name);
        Some(NamedLinear::new(name, Block::of_name(name), layer))
    };
    (model, captured.into_iter().filter_map(named).collect())
}

/// Whether the parameter `name` belongs to `module` or to something inside it.
pub fn in_module(name: &str, module: &str) -> bool {
    name.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

//! How a model is built.

use aflora_core::nn::{in_module, VarStore};
use aflora_core::weight::WeightFormat;
use tch::{Device, Kind};

/// How a model is built.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where its weights are.
    pub device: Device,
    /// The kind that its frozen weights are made in, so that a large model never takes twice its
    /// size. The head is made in single precision.
    pub base: Kind,
    /// What the linear layers of its blocks are quantised to as they are loaded, but for those that
    /// train in full; none: they are held in `base`, to which quantised ones are restored.
    pub format: Option<WeightFormat>,
    /// Modules that train in full beside the head: they are made in single precision, too.
    pub train_modules: Vec<String>,
    /// Keeps only each block's input for the backward pass, and runs blocks twice.
    pub checkpointing: bool,
}

impl Options {
    /// Single precision, nothing run twice.
    pub fn new(device: Device) -> Self {
        let (base, train_modules) = (Kind::Float, Vec::new());
        Options { device, base, format: None, train_modules, checkpointing: false }
    }

    /// An empty store for the weights.
    pub(crate) fn var_store(&self) -> VarStore {
        let mut vs = VarStore::new(self.device);
        vs.set_kind(self.base);
        vs
    }

    /// What the layer `name` of a block is quantised to.
    pub(crate) fn format_of(&self, name: &str) -> Option<WeightFormat> {
        let trains = self.train_modules.iter().any(|module| in_module(name, module));
        self.format.filter(|_| !trains)
    }

    /// Gives the weights that train single precision: those of `head`'s modules, and of the
    /// further ones.
    pub(crate) fn widen(&self, vs: &VarStore, head: &[&str]) {
        let modules = || head.iter().copied().chain(self.train_modules.iter().map(String::as_str));
        for (name, mut weight) in vs.variables() {
            let trains = modules().any(|module| in_module(&name, module));
            if trains && weight.kind() != Kind::Float {
                weight.set_data(&weight.to_kind(Kind::Float));
            }
        }
    }
}

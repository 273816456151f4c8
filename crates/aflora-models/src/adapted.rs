//! A backbone with adapters in it.

use crate::backbone::{Backbone, Batch};
use crate::targets::Targets;
use crate::weights::in_module;
use crate::{Error, Result};
use aflora_core::adapter::Role;
use aflora_core::optim::Parameter;
use aflora_core::{Adapter, Method};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tch::{Kind, Tensor};

type SharedAdapter = Arc<Mutex<Box<dyn Adapter>>>;

/// A backbone whose chosen linear layers carry adapters, ready to be trained.
#[derive(Debug)]
pub struct AdaptedModel {
    backbone: Box<dyn Backbone>,
    adapters: Vec<SharedAdapter>,
    trained_modules: Vec<String>,
}

impl AdaptedModel {
    /// Puts adapters of `method` on the layers that `targets` chooses.
    ///
    /// The head trains in full, and so does every module named in `train_modules`. With a
    /// `base` kind of bf16, every other weight is cast to it once; adapters, head and loss
    /// stay in fp32.
    ///
    /// # Errors
    /// The targets match nothing, or `train_modules` names no module.
    pub fn new(
        backbone: Box<dyn Backbone>,
        method: Option<(&dyn Method, &Targets)>,
        train_modules: &[String],
        base: Kind,
        seed: u64,
    ) -> Result<Self> {
        let mut adapters = Vec::new();
        if let Some((method, targets)) = method {
            let device = backbone.var_store().device();
            let sites: Vec<_> = backbone.linears().iter().map(|l| &l.site).collect();
            for i in targets.select(&sites)? {
                let adapter = method.attach(sites[i], seed, device)?;
                let shared: SharedAdapter = Arc::new(Mutex::new(adapter));
                let hook = shared.clone();
                backbone.linears()[i]
                    .layer
                    .set(Box::new(move |x, weight, bias| lock(&hook).forward(x, weight, bias)));
                adapters.push(shared);
            }
        }
        let mut trained_modules: Vec<String> =
            backbone.head().iter().map(|h| h.to_string()).collect();
        trained_modules.extend_from_slice(train_modules);
        let model = AdaptedModel { backbone, adapters, trained_modules };
        model.check_train_modules(train_modules)?;
        model.prepare(base)?;
        Ok(model)
    }

    fn check_train_modules(&self, modules: &[String]) -> Result<()> {
        let names = self.backbone.var_store().variables();
        for module in modules {
            if !names.keys().any(|name| in_module(name, module)) {
                let problem = format!("`{module}` in train_modules names no module of the model");
                return Err(Error::Targets(problem));
            }
        }
        Ok(())
    }

    /// Casts the frozen weights, lets the trained ones require a gradient.
    fn prepare(&self, base: Kind) -> Result<()> {
        tch::no_grad(|| {
            for (name, mut variable) in self.backbone.var_store().variables() {
                if self.is_trained(&name) {
                    let _ = variable.set_requires_grad(true);
                } else if variable.kind() != base {
                    variable.f_set_data(&variable.to_kind(base))?;
                }
            }
            Ok(())
        })
    }

    fn is_trained(&self, name: &str) -> bool {
        self.trained_modules.iter().any(|module| in_module(name, module))
    }

    /// Logits `[batch, labels]`, fp32; `train` switches all dropout on.
    pub fn forward(&self, batch: &Batch, train: bool) -> Result<Tensor> {
        for adapter in &self.adapters {
            lock(adapter).set_training(train);
        }
        self.backbone.forward(batch, train)
    }

    /// The backbone.
    pub fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }

    /// The adapters, in the order of the forward pass.
    pub fn adapters(&self) -> impl Iterator<Item = MutexGuard<'_, Box<dyn Adapter>>> {
        self.adapters.iter().map(lock)
    }

    /// Weights of the head and of the other modules that train in full, by name.
    pub fn trained_weights(&self) -> Vec<(String, Tensor)> {
        self.weights_of(&self.trained_modules)
    }

    /// The modules that an adapter folder must hold beside the adapters: those that train, and
    /// those that a checkpoint of the bare encoder lacks, which start at random.
    pub fn saved_modules(&self) -> Vec<String> {
        let mut modules = self.trained_modules.clone();
        for module in self.backbone.new_modules() {
            if !modules.iter().any(|m| m == module) {
                modules.push(module.to_string());
            }
        }
        modules
    }

    /// Weights of the [saved modules](Self::saved_modules), by name.
    pub fn saved_weights(&self) -> Vec<(String, Tensor)> {
        self.weights_of(&self.saved_modules())
    }

    fn weights_of(&self, modules: &[String]) -> Vec<(String, Tensor)> {
        let mut weights: Vec<(String, Tensor)> =
            self.backbone.var_store().variables().into_iter().collect();
        weights.retain(|(name, _)| modules.iter().any(|module| in_module(name, module)));
        weights.sort_by(|a, b| a.0.cmp(&b.0));
        weights
    }

    /// The modules that train in full beside the adapters.
    pub fn trained_modules(&self) -> &[String] {
        &self.trained_modules
    }

    /// Everything that trains: of the adapters, of the head, of further modules.
    pub fn parameters(&self) -> Vec<Parameter> {
        let adapters = self.adapters.iter().flat_map(|a| lock(a).parameters());
        let head = self.trained_weights().into_iter().map(|(name, leaf)| Parameter {
            // Biases and the scales of a LayerNorm are vectors: never decayed.
            role: if leaf.dim() < 2 { Role::HeadBias } else { Role::Head },
            name,
            leaf,
        });
        adapters.chain(head).collect()
    }
}

/// An adapter is only read and switched under its lock, so a panic elsewhere leaves it whole.
fn lock(adapter: &SharedAdapter) -> MutexGuard<'_, Box<dyn Adapter>> {
    adapter.lock().unwrap_or_else(PoisonError::into_inner)
}

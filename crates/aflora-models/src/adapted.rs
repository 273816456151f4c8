//! A backbone with adapters in it.

use crate::backbone::{Backbone, Forward};
use crate::batch::Batch;
use crate::generate::{self, GenerationConfig};
use crate::targets::Targets;
use crate::weights::in_module;
use crate::{Error, Result};
use aflora_core::adapter::{Layer, Role};
use aflora_core::flops::{self, Flops, Products};
use aflora_core::optim::Parameter;
use aflora_core::{Adapter, Method, Site};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tch::{Kind, Tensor};

type SharedAdapter = Arc<Mutex<Box<dyn Adapter>>>;

/// A backbone whose chosen linear layers carry adapters, ready to be trained.
#[derive(Debug)]
pub struct AdaptedModel {
    backbone: Box<dyn Backbone>,
    adapters: Vec<SharedAdapter>,
    /// Weights of the model that its method trains, by name.
    own_weights: Vec<String>,
    trained_modules: Vec<String>,
}

impl AdaptedModel {
    /// Puts adapters of `method` on the layers that `targets` chooses.
    ///
    /// The head trains in full, and so does every module named in `train_modules` and every
    /// weight that the method itself trains. With a `base` kind of bf16, every other weight is
    /// cast to it once; adapters, head and loss stay in fp32.
    ///
    /// # Errors
    /// The targets match nothing, `train_modules` names no module, or the method trains the
    /// model's own weights and `base` is not fp32.
    pub fn new(
        backbone: Box<dyn Backbone>,
        method: &dyn Method,
        targets: &Targets,
        train_modules: &[String],
        base: Kind,
        seed: u64,
    ) -> Result<Self> {
        let mut adapters = Vec::new();
        if method.adapts() {
            let device = backbone.var_store().device();
            let sites: Vec<&Site> = backbone.linears().iter().map(|l| l.site.as_ref()).collect();
            let chosen = targets.select(&sites)?;
            let chosen: Vec<_> = chosen.into_iter().map(|i| &backbone.linears()[i]).collect();
            let layers: Vec<Layer> = chosen.iter().map(|linear| linear.as_layer()).collect();
            for (linear, adapter) in chosen.into_iter().zip(method.attach(&layers, seed, device)?) {
                let shared: SharedAdapter = Arc::new(Mutex::new(adapter));
                let hook = shared.clone();
                let forward = move |x: &Tensor, weight: &Tensor, bias: Option<&Tensor>| {
                    lock(&hook).forward(x, weight, bias)
                };
                linear.layer.set(Box::new(forward));
                adapters.push(shared);
            }
        }
        let names = backbone.var_store().variables().into_keys();
        let mut own_weights: Vec<String> = names.filter(|name| method.trains(name)).collect();
        own_weights.sort_unstable();
        if !own_weights.is_empty() && base != Kind::Float {
            return Err(Error::Precision { method: method.name(), base });
        }
        let mut trained_modules: Vec<String> =
            backbone.about().head_modules.iter().map(|m| m.to_string()).collect();
        trained_modules.extend_from_slice(train_modules);
        let model = AdaptedModel { backbone, adapters, own_weights, trained_modules };
        model.check_train_modules(train_modules)?;
        model.prepare(base)?;
        Ok(model)
    }

    fn check_train_modules(&self, modules: &[String]) -> Result<()> {
        let names = self.backbone.var_store().variables();
        for module in modules {
            if !names.keys().any(|name| in_module(name, module)) {
                let problem = format!("`{module}` names no module of the model");
                return Err(Error::TrainModules(problem));
            }
        }
        Ok(())
    }

    /// Casts the frozen weights, lets the trained ones require a gradient.
    fn prepare(&self, base: Kind) -> Result<()> {
        tch::no_grad(|| {
            for (name, mut variable) in self.backbone.var_store().variables() {
                if self.is_trained(&name) {
                    if variable.kind() != Kind::Float {
                        variable.f_set_data(&variable.to_kind(Kind::Float))?;
                    }
                    let _ = variable.set_requires_grad(true);
                } else if variable.kind() != base {
                    variable.f_set_data(&variable.to_kind(base))?;
                }
            }
            Ok(())
        })
    }

    fn is_trained(&self, name: &str) -> bool {
        let in_modules = self.trained_modules.iter().any(|module| in_module(name, module));
        in_modules || self.own_weights.iter().any(|own| own == name)
    }

    /// The logits of a batch, and what the backward pass goes through; `train` switches all dropout
    /// on.
    ///
    /// # Errors
    /// As [`Backbone::forward`].
    pub fn forward(&self, batch: &Batch, train: bool) -> Result<Forward> {
        for adapter in &self.adapters {
            lock(adapter).set_training(train);
        }
        self.backbone.forward(batch, train)
    }

    /// Writes on after each text of `batch`; gives the new tokens, without the end token.
    ///
    /// # Errors
    /// The model does not write, or its positions do not suffice.
    pub fn write(&self, batch: &Batch, config: &GenerationConfig) -> Result<Vec<Vec<i64>>> {
        for adapter in &self.adapters {
            lock(adapter).set_training(false);
        }
        let generator = self.backbone.text_generator().ok_or_else(Error::does_not_write)?;
        generate::write(generator, batch, config)
    }

    /// The backbone, to be adapted anew: its layers compute what the adapters make of them until
    /// they get others.
    pub fn into_backbone(self) -> Box<dyn Backbone> {
        self.backbone
    }

    /// The backbone.
    pub fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }

    /// The adapters, in the order of the forward pass.
    pub fn adapters(&self) -> impl Iterator<Item = MutexGuard<'_, Box<dyn Adapter>>> {
        self.adapters.iter().map(lock)
    }

    /// The model's weights that train (those of the head, of `train_modules`, of the method), sorted
    /// by name, each in its own shape: the tensors themselves, not copies.
    pub fn trained_weights(&self) -> Vec<(String, Tensor)> {
        self.weights(|name| self.is_trained(name))
    }

    /// Matrix products a token in the adapted layers: of their frozen weights, and of the paths
    /// beside them as they stand now.
    ///
    /// The gradients of the first block's inputs, which nothing needs, are counted too.
    pub fn flops_per_token(&self) -> (Flops, Flops) {
        let (mut frozen, mut paths) = (Flops::default(), Flops::default());
        for adapter in self.adapters() {
            let site = adapter.site();
            frozen += flops::frozen_weight(site.in_features, site.out_features, 1, true);
            paths += adapter.flops_per_token();
        }
        (frozen, paths)
    }

    /// [`flops_per_token`](Self::flops_per_token) of the paths once no projection matrix trains.
    pub fn flops_when_frozen(&self) -> Flops {
        let mut paths = Flops::default();
        for adapter in self.adapters() {
            let site = adapter.site();
            let products = Products { down: false, up: true };
            let shape = (site.in_features, site.out_features);
            paths += flops::path(shape, adapter.rank(), products, 1, true);
        }
        paths
    }

    /// The modules that an adapter folder must hold beside the adapters: those that train, and
    /// those that a checkpoint of the bare encoder lacks, which start at random.
    pub fn saved_modules(&self) -> Vec<String> {
        let mut modules = self.trained_modules.clone();
        for module in self.backbone.about().new_modules {
            if !modules.iter().any(|m| m == module) {
                modules.push(module.to_string());
            }
        }
        modules
    }

    /// Weights of the [saved modules](Self::saved_modules) and those that the method trains, sorted
    /// by name, each in its own shape: the tensors themselves, not copies.
    pub fn saved_weights(&self) -> Vec<(String, Tensor)> {
        let modules = self.saved_modules();
        self.weights(|name| {
            modules.iter().any(|module| in_module(name, module)) || self.is_trained(name)
        })
    }

    fn weights(&self, wanted: impl Fn(&str) -> bool) -> Vec<(String, Tensor)> {
        let mut weights: Vec<(String, Tensor)> =
            self.backbone.var_store().variables().into_iter().collect();
        weights.retain(|(name, _)| wanted(name));
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
        let head = self.trained_weights().into_iter().map(|(name, leaf)| {
            let own = !self.trained_modules.iter().any(|module| in_module(&name, module));
            // Biases and the scales of a LayerNorm are vectors: never decayed.
            let role = match (own, leaf.dim() < 2) {
                (true, true) => Role::WeightBias,
                (true, false) => Role::Weight,
                (false, true) => Role::HeadBias,
                (false, false) => Role::Head,
            };
            Parameter::of_model(name, role, leaf)
        });
        adapters.chain(head).collect()
    }
}

/// An adapter is only read and switched under its lock, so a panic elsewhere leaves it whole.
fn lock(adapter: &SharedAdapter) -> MutexGuard<'_, Box<dyn Adapter>> {
    adapter.lock().unwrap_or_else(PoisonError::into_inner)
}

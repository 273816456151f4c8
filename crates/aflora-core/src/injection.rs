//! The adapters of a model that was built from [`nn::Linear`](crate::nn::Linear), whoever wrote it.
//!
//! ```
//! use aflora_core::adapter::{Lora, LoraConfig};
//! use aflora_core::nn::{self, capture_named, Module};
//! use aflora_core::{Injection, Tuner, TunerConfig};
//! use tch::{Device, Kind, Tensor};
//!
//! // A model that exists already: `up` and `down` are its own affair.
//! let vs = nn::VarStore::new(Device::Cpu);
//! let (model, layers) = capture_named(&vs, || {
//!     let up = nn::linear(vs.root() / "body" / "up", 8, 16, Default::default());
//!     let head = nn::linear(vs.root() / "head", 16, 2, Default::default());
//!     nn::seq().add(up).add_fn(|x| x.relu()).add(head)
//! });
//! // Here its weights would be loaded.
//! let method = Lora::new(LoraConfig { rank: 2, ..Default::default() })?;
//! let body = layers.into_iter().filter(|layer| layer.site.name.starts_with("body."));
//! let injection = Injection::new(&vs, body.collect(), &method, &["head"], 42)?;
//!
//! let mut tuner = Tuner::new(TunerConfig::default(), &method, injection.parameters(), 10, 20)?;
//! let x = Tensor::randn([4, 8], (Kind::Float, Device::Cpu));
//! injection.set_training(true);
//! for _ in 0..20 {
//!     let loss = model.forward(&x).square().mean(Kind::Float);
//!     let _ = tuner.step(&loss)?;
//! }
//! injection.set_training(false);
//! let before = tch::no_grad(|| model.forward(&x));
//! injection.merge()?;
//! assert!(model.forward(&x).allclose(&before, 1e-4, 1e-5, false));
//! # Ok::<(), aflora_core::Error>(())
//! ```

use crate::adapter::{AdapterTensor, Role};
use crate::flops::{self, Flops, Products};
use crate::nn::{in_module, shapes_suffice, NamedLinear, VarStore};
use crate::optim::Parameter;
use crate::weight::FrozenWeight;
use crate::{Adapter, Error, Method, Result, Site};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tch::{Device, Kind, Tensor};

type SharedAdapter = Arc<Mutex<Box<dyn Adapter>>>;

/// An adapter in a layer's slot.
#[derive(Debug)]
pub struct Injected {
    linear: NamedLinear,
    adapter: SharedAdapter,
}

impl Injected {
    /// The layer.
    pub fn linear(&self) -> &NamedLinear {
        &self.linear
    }

    /// The adapter.
    pub fn adapter(&self) -> MutexGuard<'_, Box<dyn Adapter>> {
        lock(&self.adapter)
    }

    /// What the adapter makes of the layer's weight, as that is stored; in the adapter's precision.
    fn merged(&self) -> Tensor {
        let merged = self.adapter().merged(&self.linear.layer.weight().numbers());
        if self.linear.layer.transposed {
            merged.tr()
        } else {
            merged
        }
    }
}

/// The adapters that were put into a model, and which of the model's own weights train beside
/// them.
///
/// It holds handles to the model's weights. Dropping it leaves the adapters in their slots;
/// [`merge`](Self::merge) and [`remove`](Self::remove) take them out.
#[derive(Debug)]
pub struct Injection {
    /// Every weight of the model, by name.
    weights: BTreeMap<String, Tensor>,
    injected: Vec<Injected>,
    /// The layers without an adapter whose weight is quantised or spread over ranks.
    elsewhere: Vec<NamedLinear>,
    /// Weights of the model that its method trains, by name.
    own_weights: Vec<String>,
    trained_modules: Vec<String>,
    /// Modules that are saved although they do not train.
    kept_modules: Vec<String>,
}

impl Injection {
    /// Puts adapters of `method` on `layers`, and freezes every weight of the model in `vs` but
    /// those of `train_modules` (the head, for one) and those that the method itself trains.
    ///
    /// The weights are to be loaded already: some methods start from them. `seed` and a layer's
    /// name decide where its adapter starts.
    ///
    /// # Errors
    /// One of `train_modules` names no module, two layers share a name (as do layers that share a
    /// weight), or the method does not fit them.
    pub fn new<S: AsRef<str>>(
        vs: &VarStore,
        layers: Vec<NamedLinear>,
        method: &dyn Method,
        train_modules: &[S],
        seed: u64,
    ) -> Result<Self> {
        let weights: BTreeMap<String, Tensor> = vs.variables().into_iter().collect();
        let trained_modules: Vec<String> =
            train_modules.iter().map(|module| module.as_ref().to_string()).collect();
        for module in &trained_modules {
            if !weights.keys().any(|name| in_module(name, module)) {
                return Err(Error::NoModule(module.clone()));
            }
        }
        let injected = match method.adapts() {
            true => inject(layers, method, seed)?,
            false => Vec::new(),
        };
        // Masks and the like are variables of whole numbers.
        let own = weights.iter().filter(|(name, w)| method.trains(name) && w.is_floating_point());
        let own_weights = own.map(|(name, _)| name.clone()).collect();
        let kept_modules = Vec::new();
        let elsewhere = Vec::new();
        let injection =
            Injection { weights, injected, elsewhere, own_weights, trained_modules, kept_modules };
        injection.prepare()?;
        Ok(injection)
    }

    /// Notes which of `layers`, all of the model's, have no adapter and a weight that
    /// [lies elsewhere](crate::nn::LinearHandle::lies_elsewhere) than among the model's variables.
    ///
    /// # Errors
    /// One of them trains, or is in a module that is [kept](Self::keep).
    pub fn with_elsewhere(mut self, layers: &[NamedLinear]) -> Result<Self> {
        let adapted = |layer: &NamedLinear| {
            self.injected.iter().any(|injected| injected.linear.site.name == layer.site.name)
        };
        let elsewhere = layers.iter().filter(|l| l.layer.lies_elsewhere() && !adapted(l));
        self.elsewhere = elsewhere.cloned().collect();
        let kept = |name: &str| self.kept_modules.iter().any(|module| in_module(name, module));
        self.none_elsewhere(|name| self.is_trained(name) || kept(name))?;
        Ok(self)
    }

    /// Refuses weights that lie elsewhere and that `which` picks by name.
    fn none_elsewhere(&self, which: impl Fn(&str) -> bool) -> Result<()> {
        let adapted = self.injected.iter().map(|injected| &injected.linear);
        let mut elsewhere = adapted.filter(|l| l.layer.lies_elsewhere()).chain(&self.elsewhere);
        let name = |layer: &NamedLinear| format!("{}.weight", layer.site.name);
        match elsewhere.find(|layer| which(&name(layer))) {
            Some(layer) if layer.layer.is_sharded() => Err(Error::Sharded(name(layer))),
            Some(layer) => Err(Error::Quantised(name(layer))),
            None => Ok(()),
        }
    }

    /// Lets what trains require a gradient, in single precision and a place of its own, and nothing
    /// else.
    fn prepare(&self) -> Result<()> {
        tch::no_grad(|| {
            for (name, weight) in &self.weights {
                let trained = self.is_trained(name);
                if trained {
                    give_place(weight, Kind::Float)?;
                }
                let _ = weight.f_set_requires_grad(trained)?;
            }
            Ok(())
        })
    }

    /// Casts the frozen weights.
    ///
    /// # Errors
    /// libtorch refuses.
    pub fn cast_frozen(&self, kind: Kind) -> Result<()> {
        tch::no_grad(|| {
            for (name, weight) in &self.weights {
                let frozen = !self.is_trained(name) && weight.is_floating_point();
                if frozen && weight.kind() != kind {
                    weight.shallow_clone().f_set_data(&weight.to_kind(kind))?;
                }
            }
            Ok(())
        })
    }

    /// Whether the weight `name` trains.
    pub fn is_trained(&self, name: &str) -> bool {
        let in_modules = self.trained_modules.iter().any(|module| in_module(name, module));
        in_modules || self.own_weights.iter().any(|own| own == name)
    }

    /// Whether the method trains weights of the model itself.
    pub fn trains_own_weights(&self) -> bool {
        !self.own_weights.is_empty()
    }

    /// Every weight of the model, by name, frozen or not: the tensors themselves, not copies; of a
    /// quantised layer only its place ([`Linear::ws`](crate::nn::Linear::ws)).
    pub fn weights(&self) -> &BTreeMap<String, Tensor> {
        &self.weights
    }

    /// The adapters with their layers, in the order of the layers.
    pub fn injected(&self) -> &[Injected] {
        &self.injected
    }

    /// The adapters, in the order of the layers.
    pub fn adapters(&self) -> impl Iterator<Item = MutexGuard<'_, Box<dyn Adapter>>> {
        self.injected.iter().map(Injected::adapter)
    }

    /// Switches the adapters' dropout on (training) or off (evaluation).
    pub fn set_training(&self, on: bool) {
        self.adapters().for_each(|mut adapter| adapter.set_training(on));
    }

    /// The modules that train in full beside the adapters.
    pub fn trained_modules(&self) -> &[String] {
        &self.trained_modules
    }

    /// The model's weights that train (those of the head, of `train_modules`, of the method), sorted
    /// by name, each in its own shape: the tensors themselves, not copies.
    pub fn trained_weights(&self) -> Vec<(String, Tensor)> {
        let trained = self.weights.iter().filter(|(name, _)| self.is_trained(name));
        trained.map(|(name, weight)| (name.clone(), weight.shallow_clone())).collect()
    }

    /// Lets `modules` be saved beside the adapters although they do not train: such as start at
    /// random because no checkpoint of the bare model has them. They get a place of their own.
    ///
    /// # Errors
    /// A weight in them is quantised, or libtorch refuses.
    pub fn keep(&mut self, modules: &[&str]) -> Result<()> {
        for module in modules {
            if self.saved_modules().iter().any(|saved| saved == module) {
                continue;
            }
            self.none_elsewhere(|name| in_module(name, module))?;
            for (name, weight) in &self.weights {
                if in_module(name, module) && !self.is_trained(name) {
                    tch::no_grad(|| give_place(weight, weight.kind()))?;
                }
            }
            self.kept_modules.push(module.to_string());
        }
        Ok(())
    }

    /// The modules that must be saved beside the adapters: those that train, and those that
    /// [`keep`](Self::keep) was told of.
    pub fn saved_modules(&self) -> Vec<String> {
        [self.trained_modules.as_slice(), &self.kept_modules].concat()
    }

    /// Weights of the [saved modules](Self::saved_modules) and those that the method trains, sorted
    /// by name, each in its own shape: the tensors themselves, not copies.
    pub fn saved_weights(&self) -> Vec<(String, Tensor)> {
        let kept = |name: &str| self.kept_modules.iter().any(|module| in_module(name, module));
        let saved = self.weights.iter().filter(|(name, _)| self.is_trained(name) || kept(name));
        saved.map(|(name, weight)| (name.clone(), weight.shallow_clone())).collect()
    }

    /// All that makes this model of the bare one, by name: every tensor of the adapters, frozen ones
    /// too, and the [saved weights](Self::saved_weights). The tensors themselves, not copies.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        let of_adapters = self.adapters().flat_map(|adapter| {
            let named =
                |t: AdapterTensor| (format!("{}.{}", adapter.site().name, t.spec.name), t.tensor);
            adapter.tensors().into_iter().map(named).collect::<Vec<_>>()
        });
        of_adapters.chain(self.saved_weights()).collect()
    }

    /// Everything that trains: of the adapters, of the head, of further modules.
    pub fn parameters(&self) -> Vec<Parameter> {
        let adapters = self.adapters().flat_map(|adapter| adapter.parameters());
        let own = self.trained_weights().into_iter().map(|(name, leaf)| {
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
        adapters.chain(own).collect()
    }

    /// Every weight of the model in single precision, those of adapted layers as their adapters
    /// make them. Where some are spread over ranks, all must ask together.
    pub fn merged_weights(&self) -> BTreeMap<String, Tensor> {
        tch::no_grad(|| {
            let name = |site: &Site| format!("{}.weight", site.name);
            let merged = self.injected.iter().map(|i| (name(&i.linear.site), i.merged()));
            let restored = self.elsewhere.iter().map(|l| (name(&l.site), l.layer.stored()));
            let mut weights: BTreeMap<String, Tensor> = merged.chain(restored).collect();
            weights.retain(|name, _| self.weights.contains_key(name));
            for (name, weight) in &self.weights {
                let single = || weight.detach().to_kind(Kind::Float);
                weights.entry(name.clone()).or_insert_with(single);
            }
            weights
        })
    }

    /// Writes the adapters into the weights of their layers, rounded once to the kind they have, and
    /// takes them out: what is left is a plain model. Models that [share](fn@crate::nn::share) the weights
    /// keep them as they were.
    ///
    /// # Errors
    /// libtorch refuses.
    pub fn merge(self) -> Result<()> {
        tch::no_grad(|| {
            for injected in &self.injected {
                let layer = &injected.linear.layer;
                layer.replace(&injected.merged().to_kind(layer.ws.kind()))?;
            }
            Ok::<_, Error>(())
        })?;
        self.remove();
        Ok(())
    }

    /// Takes the adapters out: each layer computes as before.
    pub fn remove(self) {
        self.injected.iter().for_each(|injected| injected.linear.layer.clear());
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
}

/// Gives a weight a place of its own, in `kind`: it may be another model's, too
/// ([`share`](fn@crate::nn::share)).
fn give_place(weight: &Tensor, kind: Kind) -> Result<()> {
    let lent = weight.detach();
    // What has no values takes no place.
    let copy = !shapes_suffice();
    Ok(weight.shallow_clone().f_set_data(&lent.f_to_dtype(kind, false, copy)?)?)
}

/// Puts an adapter into the slot of each layer.
fn inject(layers: Vec<NamedLinear>, method: &dyn Method, seed: u64) -> Result<Vec<Injected>> {
    let device = layers.first().map_or(Device::Cpu, |linear| linear.layer.ws.device());
    if method.starts_from_weights() && layers.iter().any(|linear| linear.layer.is_sharded()) {
        return Err(Error::ShardedStart(method.name()));
    }
    let seen: Vec<_> = layers.iter().map(NamedLinear::as_layer).collect();
    let adapters = method.attach(&seen, seed, device)?;
    let put = |(linear, adapter): (NamedLinear, Box<dyn Adapter>)| {
        let adapter: SharedAdapter = Arc::new(Mutex::new(adapter));
        let inside = adapter.clone();
        let forward = move |x: &Tensor, weight: &FrozenWeight, bias: Option<&Tensor>| {
            lock(&inside).forward(x, weight, bias)
        };
        let inside = adapter.clone();
        let path = move || lock(&inside).path();
        linear.layer.set_with_path(Box::new(forward), Box::new(path));
        Injected { linear, adapter }
    };
    Ok(layers.into_iter().zip(adapters).map(put).collect())
}

/// An adapter is only read and switched under its lock, so a panic elsewhere leaves it whole.
fn lock(adapter: &SharedAdapter) -> MutexGuard<'_, Box<dyn Adapter>> {
    adapter.lock().unwrap_or_else(PoisonError::into_inner)
}

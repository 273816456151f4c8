//! A frozen linear layer with an adapter beside it, for models built from `tch::nn` modules.

use super::site::{Block, Layer, Site};
use super::traits::{Adapter, Method};
use crate::weight::FrozenWeight;
use crate::{Error, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tch::{nn, Tensor};

/// A frozen [`nn::Linear`] and the adapter beside it.
#[derive(Debug)]
pub struct AdaptedLinear {
    weight: FrozenWeight,
    bias: Option<Tensor>,
    // Behind a lock because `nn::Module` wants shared references while training is switched.
    adapter: Mutex<Box<dyn Adapter>>,
    /// The adapter's weight for both, while merged.
    merged: Mutex<Option<Tensor>>,
}

impl AdaptedLinear {
    /// Freezes `linear` and puts a fresh adapter of `method` beside it.
    ///
    /// `name` must differ from layer to layer; it names the adapter's tensors and, with
    /// `seed`, decides their initial values.
    ///
    /// # Errors
    /// The weight is no matrix, or the method puts no adapters on layers.
    pub fn wrap(
        name: &str,
        linear: nn::Linear,
        block: Block,
        method: &dyn Method,
        seed: u64,
    ) -> Result<Self> {
        let mut wrapped = Self::wrap_all(vec![(name, linear, block)], method, seed)?;
        wrapped.pop().ok_or(Error::NoAdapters(method.name()))
    }

    /// [`wrap`](Self::wrap) for several layers at once, as methods need that share something
    /// between layers (ELoRA's random pair).
    ///
    /// # Errors
    /// As [`wrap`](Self::wrap), of any of the layers; or two of them share a name.
    pub fn wrap_all(
        layers: Vec<(&str, nn::Linear, Block)>,
        method: &dyn Method,
        seed: u64,
    ) -> Result<Vec<Self>> {
        if !method.adapts() {
            return Err(Error::NoAdapters(method.name()));
        }
        let seen = layers.iter().map(|(name, linear, block)| match linear.ws.size()[..] {
            [out_features, in_features] => {
                let site = Arc::new(Site::new(*name, in_features, out_features, *block));
                let bias = linear.bs.as_ref().map(Tensor::shallow_clone);
                Ok(Layer { site, weight: Some((&linear.ws).into()), bias })
            }
            _ => Err(Error::Shape {
                site: name.to_string(),
                what: "the weight",
                found: linear.ws.size(),
                expected: vec![-1, -1],
            }),
        });
        let seen: Vec<Layer> = seen.collect::<Result<_>>()?;
        let device = layers.first().map_or(tch::Device::Cpu, |(_, linear, _)| linear.ws.device());
        let adapters = method.attach(&seen, seed, device)?;
        let wrap = |((_, linear, _), adapter): ((&str, nn::Linear, Block), _)| AdaptedLinear {
            weight: linear.ws.set_requires_grad(false).into(),
            bias: linear.bs.map(|b| b.set_requires_grad(false)),
            adapter: Mutex::new(adapter),
            merged: Mutex::new(None),
        };
        Ok(layers.into_iter().zip(adapters).map(wrap).collect())
    }

    /// The adapter.
    pub fn adapter(&self) -> MutexGuard<'_, Box<dyn Adapter>> {
        // A panic elsewhere cannot leave an adapter half-changed: it only switches a flag.
        self.adapter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Computes with one merged weight from now on, for inference without the path's
    /// cost. What the adapter learns afterwards has no effect until it is merged again.
    pub fn merge(&self) {
        let merged = self.merged_weight();
        *self.merged.lock().unwrap_or_else(PoisonError::into_inner) = Some(merged);
    }

    /// Computes with W0 and the path again, as if it had never been merged.
    pub fn unmerge(&self) {
        *self.merged.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A plain layer with the path merged into its weight.
    pub fn to_linear(&self) -> nn::Linear {
        nn::Linear { ws: self.merged_weight(), bs: self.bias.as_ref().map(Tensor::copy) }
    }

    /// The merged weight, rounded once to the kind of W0.
    fn merged_weight(&self) -> Tensor {
        let weight = self.weight.numbers();
        tch::no_grad(|| self.adapter().merged(&weight).to_kind(weight.kind()))
    }
}

impl nn::Module for AdaptedLinear {
    fn forward(&self, x: &Tensor) -> Tensor {
        match &*self.merged.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(merged) => x.linear(merged, self.bias.as_ref()),
            None => self.adapter().forward(x, &self.weight, self.bias.as_ref()),
        }
    }
}

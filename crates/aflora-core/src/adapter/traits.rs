//! What an adapter and a method must do.

use super::peft::{Peft, PeftValue, WrittenAdapters};
use super::side_path::SidePath;
use super::site::{Layer, Site};
use super::tensor::{AdapterTensor, TensorSpec};
use crate::error::check;
use crate::flops::{self, Flops, Products};
use crate::freeze::FreezeConfig;
use crate::hook::Hook;
use crate::optim::Parameter;
use crate::span::RunLength;
use crate::weight::FrozenWeight;
use crate::Result;
use std::fmt::Debug;
use std::sync::Arc;
use tch::{Device, Tensor};

/// An adapter as plain LoRA has it: W = W0 + up · down.
#[derive(Debug)]
pub struct LowRank {
    /// `[rank, in_features]`.
    pub down: Tensor,
    /// `[out_features, rank]`.
    pub up: Tensor,
}

impl LowRank {
    /// W0 + up · down for `weight`, W0, in the precision of the pair; `[out_features, in_features]`.
    pub fn merged(&self, weight: &Tensor) -> Tensor {
        let delta = self.up.matmul(&self.down);
        weight.to_kind(delta.kind()) + delta
    }
}

/// What runs beside one frozen linear layer.
pub trait Adapter: Debug + Send {
    /// The layer that it sits on.
    fn site(&self) -> &Arc<Site>;

    /// The layer's output as it is with the adapter.
    ///
    /// `x`: `[.., in_features]`, `weight` (frozen): `[out_features, in_features]`, `bias`
    /// (frozen): `[out_features]`; gives `[.., out_features]` in the kind of `x`.
    fn forward(&self, x: &Tensor, weight: &FrozenWeight, bias: Option<&Tensor>) -> Tensor;

    /// The path that with W0 is all that [`forward`](Self::forward) computes, as it stands now; none where
    /// that computes something else. Layers that read one input are computed together by it
    /// ([`nn::together`](crate::nn::together)).
    fn path(&self) -> Option<SidePath> {
        None
    }

    /// The adapter as plain LoRA, with every vector, gate and scale folded in; none where what it
    /// makes of the layer is not W0 plus something that does not depend on W0.
    fn low_rank(&self) -> Option<LowRank> {
        None
    }

    /// s, the scale of the path that [`low_rank`](Self::low_rank) folds into its down-projection.
    fn scale(&self) -> f64 {
        1.0
    }

    /// The weight W of a plain layer that computes the same, for `weight`, W0; both
    /// `[out_features, in_features]`, W in the precision of the adapter.
    fn merged(&self, weight: &Tensor) -> Tensor;

    /// Every tensor that the adapter owns; saving, counting and packing go over this list.
    fn tensors(&self) -> Vec<AdapterTensor>;

    /// Those of [`tensors`](Adapter::tensors) that train now, under their full names.
    fn parameters(&self) -> Vec<Parameter> {
        let trained = self.tensors().into_iter().filter(|t| t.trainable);
        trained.map(|t| Parameter::of_adapter(self.site(), t.spec, t.tensor)).collect()
    }

    /// Switches input dropout on (training) or off (evaluation).
    fn set_training(&mut self, on: bool);

    /// Its rank.
    fn rank(&self) -> i64;

    /// Which weight gradients a backward pass computes now, for counting its operations.
    fn products(&self) -> Products {
        Products { down: true, up: true }
    }

    /// Matrix products a token of the path as it stands now, the layer's input having a gradient
    /// (as all but the first layers' have).
    fn flops_per_token(&self) -> Flops {
        let Site { in_features, out_features, .. } = **self.site();
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
        check("rank", rank, rank == self.rank(), "the rank of every other layer")
    }
}

/// A way of adapting a model: makes the adapters, and what acts on them during training.
pub trait Method: Debug {
    /// The name in configuration files and adapter folders.
    fn name(&self) -> &'static str;

    /// Puts fresh adapters on `layers`, in their order. None where the method trains the model's
    /// own weights.
    ///
    /// The same `seed`, layer name and weight give the same adapter, whatever the device and (but
    /// for what a method shares between layers) whatever the other layers.
    ///
    /// # Errors
    /// Two layers share a name, or the rank is beyond what they have.
    fn attach(&self, layers: &[Layer], seed: u64, device: Device) -> Result<Vec<Box<dyn Adapter>>>;

    /// The tensors that each of its adapters has, in the order of [`Adapter::tensors`].
    fn tensors(&self) -> &'static [TensorSpec];

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

    /// Whether its adapters start from the values of the weights that they are put on.
    fn starts_from_weights(&self) -> bool {
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

/// A method's settings, and what its file tells of it to configuration files and adapter folders.
pub trait MethodSettings: Debug {
    /// Checks the settings and makes the method.
    ///
    /// # Errors
    /// A setting is out of its range; the error names it.
    fn build(&self) -> Result<Box<dyn Method>>;

    /// The rank that adapters are made with.
    fn rank(&self) -> Option<i64> {
        None
    }

    /// When what trains at the start freezes, if any of it may.
    fn freezing(&self) -> Option<&FreezeConfig> {
        None
    }

    /// The method in PEFT, if it is one of PEFT's.
    fn peft(&self) -> Option<&'static Peft> {
        None
    }

    /// What PEFT writes down of adapters beside the settings.
    fn peft_of_run(&self, _written: WrittenAdapters<'_>) -> Vec<(&'static str, PeftValue)> {
        Vec::new()
    }
}

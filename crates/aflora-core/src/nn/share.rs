//! Several models whose weights lie in memory once.
//!
//! What changes a model's weights here gives them a place of their own first: an
//! [`Injection`](crate::Injection) those that train or are saved, its merging those of its layers. So
//! models with different adapters, heads and even parts stand beside one another on one base, and
//! going from one to another copies nothing.
//!
//! ```
//! use aflora_core::nn::{self, Module};
//! use tch::{Device, Kind, Tensor};
//!
//! let base = nn::VarStore::new(Device::Cpu);
//! let loaded = nn::linear(base.root() / "up", 3, 2, Default::default());
//! let vs = nn::VarStore::new(Device::Cpu);
//! let beside = nn::shapes_only(|| nn::linear(vs.root() / "up", 3, 2, Default::default()));
//! assert!(nn::share(&base, &vs, |_| true)?.is_empty());
//! let x = Tensor::ones([1, 3], (Kind::Float, Device::Cpu));
//! assert_eq!(beside.forward(&x), loaded.forward(&x));
//! assert_eq!(beside.ws.data_ptr(), loaded.ws.data_ptr());
//! # Ok::<(), aflora_core::Error>(())
//! ```

use crate::Result;
use std::collections::BTreeMap;
use tch::nn::VarStore;
use tch::Tensor;

/// Lets the weights of `to` be those of `from` that have their names and shapes, and that `which`
/// picks by name. All others of `to` get a place of their own where they had none
/// ([`shapes_only`](super::shapes_only)), and their names are given, sorted: they are to be loaded or
/// initialised.
///
/// # Errors
/// libtorch refuses.
pub fn share(from: &VarStore, to: &VarStore, which: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let lenders = from.variables();
    let mut own = Vec::new();
    let weights: BTreeMap<String, Tensor> = to.variables().into_iter().collect();
    for (name, mut weight) in weights {
        let lent = lenders.get(&name).filter(|lent| which(&name) && lent.size() == weight.size());
        if let Some(lent) = lent {
            weight.f_set_data(&lent.detach())?;
            continue;
        }
        if !weight.is_contiguous() {
            weight.f_set_data(&weight.detach().f_contiguous()?)?;
        }
        own.push(name);
    }
    Ok(own)
}

//! tch's neural-network layers, with a [`Linear`] that takes an adapter after it was made.
//!
//! A [`Linear`] computes as tch's does until something is put into its slot; from then on that
//! computes the layer's output. So a model is built as it is, and its frozen layers take a low-rank
//! path each from outside. [`capture`] collects the layers that are made while a model is built,
//! however deep in it and however private:
//!
//! ```
//! use aflora_core::nn::{self, Module};
//! use tch::{Device, Kind, Tensor};
//!
//! let vs = nn::VarStore::new(Device::Cpu);
//! let (layer, captured) = nn::capture(|| nn::linear(vs.root(), 3, 2, Default::default()));
//! let x = Tensor::ones([1, 3], (Kind::Float, Device::Cpu));
//! let plain = layer.forward(&x);
//! captured[0].set(Box::new(|x, weight, bias| weight.linear(x, bias) + 1.0));
//! assert!(layer.forward(&x).allclose(&(plain + 1.0), 1e-6, 1e-6, false));
//! ```
//!
//! [`capture_named`] gives them the names of the model's variables, for an
//! [`Injection`](crate::Injection) to put adapters on those that were chosen.
//!
//! Everything else of `tch::nn` is passed on as it is.

mod embedding;
mod linear;
mod named;
mod shapes;
mod share;
mod spread;
mod together;

pub use embedding::embedding;
pub use linear::{
    capture, conv1d_linear, linear, quantised_linear, spread_linear, Linear, LinearForward,
    LinearHandle,
};
pub use named::{capture_named, in_module, NamedLinear};
pub use shapes::shapes_only;
pub(crate) use shapes::shapes_suffice;
pub use share::share;
pub use spread::spread;
pub use tch::nn::*;
pub use together::{feed_forward, joined, together};

//! The name `tch` 0.17, which rust-bert asks for, on tch 0.24.
//!
//! Everything is re-exported from tch 0.24 but one thing: [`nn::Linear`] and [`nn::linear`]
//! are ours. A [`nn::Linear`] computes as tch's does until something is put into its slot;
//! from then on that computes the layer's output. So the private layers of rust-bert's models
//! take a low-rank path beside each frozen weight, and rust-bert itself stays unmodified.
//!
//! [`capture`] collects the layers made while a model is built:
//!
//! ```
//! use tch::{nn, nn::Module, Device, Kind, Tensor};
//!
//! let vs = nn::VarStore::new(Device::Cpu);
//! let (layer, captured) = tch::capture(|| nn::linear(vs.root(), 3, 2, Default::default()));
//! let x = Tensor::ones([1, 3], (Kind::Float, Device::Cpu));
//! let plain = layer.forward(&x);
//! captured[0].set(Box::new(|x, weight, bias| x.linear(weight, bias) + 1.0));
//! assert!(layer.forward(&x).allclose(&(plain + 1.0), 1e-6, 1e-6, false));
//! ```

mod linear;

pub use linear::{capture, CapturedLinear, LinearForward};
pub use tch24::*;

/// tch 0.24's neural-network layers, with an adaptable [`Linear`](nn::Linear).
pub mod nn {
    pub use crate::linear::{linear, Linear};
    pub use tch24::nn::*;
}

//! The name `tch` 0.17, which rust-bert asks for, on tch 0.24.
//!
//! Everything is re-exported from tch 0.24 but three things. [`nn::Linear`] and [`nn::linear`]
//! are ours: a [`nn::Linear`] computes as tch's does until something is put into its slot; from
//! then on that computes the layer's output. So the private layers of rust-bert's models take a
//! low-rank path beside each frozen weight, and rust-bert itself stays unmodified.
//! [`nn::layer_norm`] and [`nn::embedding`] mend what rust-bert's models have in their code
//! against their checkpoints.
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

mod embedding;
mod layer_norm;
mod linear;
mod restore;
mod shapes;

pub use layer_norm::with_layer_norm_eps;
pub use linear::{capture, CapturedLinear, LinearForward};
pub use shapes::without_weights;
pub use tch24::*;

/// tch 0.24's neural-network layers, with an adaptable [`Linear`](nn::Linear).
pub mod nn {
    pub use crate::embedding::embedding;
    pub use crate::layer_norm::layer_norm;
    pub use crate::linear::{conv1d_linear, linear, Linear};
    pub use tch24::nn::*;
}

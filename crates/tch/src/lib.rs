//! The name `tch` 0.17, which rust-bert asks for, on tch 0.24.
//!
//! Everything is re-exported from tch 0.24 but three things. [`nn::Linear`] is that of
//! [`aflora_core::nn`], which takes an adapter after it was made; so the private layers of
//! rust-bert's models take a low-rank path beside each frozen weight
//! ([`capture`](aflora_core::nn::capture)), and rust-bert itself stays unmodified.
//! [`nn::layer_norm`] and [`nn::embedding`] mend what rust-bert's models have in their code
//! against their checkpoints.

mod embedding;
mod layer_norm;

pub use layer_norm::with_layer_norm_eps;
pub use tch24::*;

/// The layers of [`aflora_core::nn`], and so those of tch 0.24.
pub mod nn {
    pub use crate::embedding::embedding;
    pub use crate::layer_norm::layer_norm;
    pub use aflora_core::nn::*;
}

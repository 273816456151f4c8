//! A door for faster kernels: where someone has [installed](install) them, paths beside frozen
//! weights run in them; everywhere else they are composed of libtorch's operations.
//!
//! This crate needs tch alone. `aflora-cuda` installs its kernels when it is loaded.

use std::fmt::Debug;
use std::sync::OnceLock;
use tch::Tensor;

/// A path y += scale · b ⊙ up (d ⊙ (down x)).
#[derive(Debug, Clone, Copy)]
pub struct LowRankPath<'a> {
    /// A, `[rank, in_features]`, fp32.
    pub down: &'a Tensor,
    /// d, `[rank]`.
    pub d: Option<&'a Tensor>,
    /// B, `[out_features, rank]`, fp32.
    pub up: &'a Tensor,
    /// b, `[out_features]`.
    pub b: Option<&'a Tensor>,
    /// A factor on the whole path.
    pub scale: f64,
}

/// Kernels that compute in one go what libtorch has several operations for, with gradients.
pub trait Fused: Debug + Sync {
    /// `W0 x + bias` and the path beside it, in the shape of `x`; `None` where it does not take
    /// these tensors.
    fn low_rank(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        path: &LowRankPath,
    ) -> Option<Tensor>;
}

static INSTALLED: OnceLock<&'static dyn Fused> = OnceLock::new();

/// Installs kernels for the rest of the process; later ones are ignored.
pub fn install(kernels: &'static dyn Fused) {
    let _ = INSTALLED.set(kernels);
}

/// [`Fused::low_rank`] of the installed kernels; they know no `dropout` of the path's input.
pub(crate) fn low_rank(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    dropout: Option<f64>,
    path: LowRankPath,
) -> Option<Tensor> {
    match dropout {
        Some(p) if p > 0.0 => None,
        _ => INSTALLED.get()?.low_rank(x, weight, bias, &path),
    }
}

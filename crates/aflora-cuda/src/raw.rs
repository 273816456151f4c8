//! What tensors are to the functions in C++.

use torch_sys::C_tensor;

pub(crate) type Raw = *const C_tensor;
pub(crate) type Out = *mut *mut C_tensor;

/// The tensors and numbers of a [`Quantised`](crate::ops::Quantised), as the shim's C struct has
/// them; null for what a format has not.
#[repr(C)]
pub(crate) struct RawQuantised {
    pub codes: Raw,
    pub map: Raw,
    pub scales: Raw,
    pub nested_map: Raw,
    pub nested_scales: Raw,
    pub offset: f64,
    pub block: i64,
    pub nested_block: i64,
    pub rows: i64,
    pub columns: i64,
    pub format: i64,
    pub dynamic: i64,
}

/// The tensors and numbers of a [`LowRankLayer`](crate::ops::LowRankLayer), as the shim's C struct has
/// them; null for what there is not.
#[repr(C)]
pub(crate) struct RawLayer {
    pub weight: Raw,
    pub quantised: *const RawQuantised,
    pub bias: Raw,
    pub down: Raw,
    pub d: Raw,
    pub up: Raw,
    pub b: Raw,
    pub scale: f64,
    pub tokens: i64,
}

/// The tensors and numbers of an [`AdamWUpdate`](crate::ops::AdamWUpdate), as the shim's C++ struct has them.
#[repr(C)]
pub(crate) struct RawAdamWUpdate {
    pub values: Raw,
    pub gradient: Raw,
    pub first: Raw,
    pub second: Raw,
    pub pieces: Raw,
    pub lr: f64,
    pub decay: f64,
}

/// The numbers of an [`AdamWStep`](crate::ops::AdamWStep), as the shim's C++ struct has them.
#[repr(C)]
pub(crate) struct RawAdamWStep {
    pub t: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
}

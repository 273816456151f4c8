//! Parts that bodies of several kinds are made of.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod linear;
pub(crate) mod rotary;

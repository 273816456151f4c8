//! Parts that bodies of several kinds are made of.
//!
//! * `scope`: where layers are made, named, and noted as places for adapters
//! * `linear`, `norm`, `mlp`, `activation`: layers
//! * `words`, `noise`: embeddings that may be shared, and noise on them
//! * `attention`, `multi_head`, `rotary`: attention through libtorch's fused kernels, its
//!   projections, and positions as angles
//! * `relative`: positions as what is added to scores
//! * `post_norm`: a block that normalises after it adds
//! * `chain`: blocks one after the other, checkpointed or not

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod chain;
pub(crate) mod linear;
pub(crate) mod mlp;
pub(crate) mod multi_head;
pub(crate) mod noise;
pub(crate) mod norm;
pub(crate) mod post_norm;
pub(crate) mod relative;
pub(crate) mod rotary;
pub(crate) mod scope;
pub(crate) mod slots;
pub(crate) mod words;

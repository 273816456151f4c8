//! The one door to kernels: what adapters and models compute that a GPU does better in one go.
//!
//! A function takes tensors and chooses: on a GPU, where [`aflora_cuda`] is loaded and takes the
//! tensors, its fused kernel; everywhere else libtorch's own operations. Both are nodes of
//! libtorch's graph, and the caller need not know which it was.
//!
//! | function | computes |
//! |---|---|
//! | [`low_rank`] | a frozen linear layer with a low-rank path beside it |
//! | [`add_layer_norm`] | LayerNorm of a sum, after dropout |
//! | [`add_rms_norm`] | RMSNorm of a sum, and the sum |
//! | [`rotary`] | queries and keys turned by their positions |
//! | [`gated`] | the middle of a gated feed-forward layer |
//! | [`disentangled`] | DeBERTa's attention, fused or not at all |
//! | [`disentangled_tiled`] | the same by tiles, without a matrix of scores; plain attention of padded texts, too |
//! | [`document_attention`] | attention within documents that lie one behind the other, fused or not at all |
//!
//! Layers with such paths are computed several at a time behind [`nn::together`](crate::nn::together) and
//! [`nn::feed_forward`](crate::nn::feed_forward).
//!
//! Those of a [quantised weight](crate::weight::QuantisedWeight) lie behind it, on a CPU, too.
//!
//! DeBERTa's two are an exception: fused, tokens and positions are projected in one product, and by
//! tiles other positions, so the model has to know before it projects anything, and asks [`fuses`] and
//! [`tiles`]. Without positions others ask [`tiles_without_positions`].

mod add_norm;
mod attention;
mod cross_entropy;
mod gated;
mod low_rank;
mod product;
mod rms_norm;
mod rotary;

pub use add_norm::add_layer_norm;
pub use aflora_cuda::ops::{
    disentangled, disentangled_tiled, document_attention, fuses, Disentangled, DocumentAttention,
    SharedPositions,
};
pub(crate) use aflora_cuda::ops::{feed_forward, low_rank_together, LowRankLayer};
pub use attention::{tile_from, tiles, tiles_without_positions};
pub use cross_entropy::Logits;
pub use gated::{gated, gated_halves, GateActivation};
pub(crate) use low_rank::{add_path, by_token, shaped};
pub use low_rank::{low_rank, LowRankPath};
pub(crate) use product::{frozen_product, product};
pub use rms_norm::{add_rms_norm, RmsScale};
pub use rotary::{rotary, RotaryPairs};

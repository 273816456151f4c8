//! Embeddings without a padding row.
//!
//! A padding row gets no gradient. rust-bert gives one to DistilBERT's positions as well, so
//! that the first position would never train. Padding is masked everywhere else, so its row has
//! no gradient anyway.

use aflora_core::nn;
use std::borrow::Borrow;
use tch24::nn::{Embedding, EmbeddingConfig, Path};

/// Creates a new embedding.
pub fn embedding<'a, T: Borrow<Path<'a>>>(
    vs: T,
    num_embeddings: i64,
    embedding_dim: i64,
    config: EmbeddingConfig,
) -> Embedding {
    let config = EmbeddingConfig { padding_idx: -1, ..config };
    nn::embedding(vs, num_embeddings, embedding_dim, config)
}

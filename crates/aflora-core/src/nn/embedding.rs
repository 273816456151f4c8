//! Embeddings as tch makes them, or their shapes alone.

use super::shapes::{expand, shapes_suffice};
use std::borrow::Borrow;
use tch::nn::{Embedding, EmbeddingConfig, Path};

/// A table of `num_embeddings` rows of `embedding_dim` elements.
pub fn embedding<'a, T: Borrow<Path<'a>>>(
    vs: T,
    num_embeddings: i64,
    embedding_dim: i64,
    config: EmbeddingConfig,
) -> Embedding {
    if shapes_suffice() {
        let mut embedding = tch::nn::embedding(vs, 1, embedding_dim, config);
        expand(&mut embedding.ws, &[num_embeddings, embedding_dim]);
        return embedding;
    }
    tch::nn::embedding(vs, num_embeddings, embedding_dim, config)
}

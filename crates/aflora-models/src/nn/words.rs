//! Word embeddings that read another table until a checkpoint brings one of their own.

use super::linear::zeros;
use super::noise::Noise;
use aflora_core::nn::{self, Embedding, Module};
use std::cell::OnceCell;
use tch::Tensor;

/// The word embeddings of one side, encoder or decoder.
#[derive(Debug)]
pub(crate) struct WordEmbeddings {
    /// The table that both sides share, `[vocabulary, hidden]`.
    shared: Tensor,
    /// This side's own table; empty while it reads the shared one.
    own: OnceCell<Embedding>,
    /// What they are multiplied by.
    scale: f64,
    noise: Option<Noise>,
}

impl WordEmbeddings {
    /// Embeddings that read `shared`, times `scale`, and then with noise or without any.
    pub fn of(shared: &Embedding, scale: f64, noise: Option<&Noise>) -> Self {
        let (shared, noise) = (shared.ws.shallow_clone(), noise.cloned());
        WordEmbeddings { shared, own: OnceCell::new(), scale, noise }
    }

    /// Ids `[batch, length]` to `[batch, length, hidden]`.
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        let mut x = match self.own.get() {
            Some(own) => own.forward(ids),
            None => Tensor::embedding(&self.shared, ids, -1, false, false),
        };
        if self.scale != 1.0 {
            x *= self.scale;
        }
        match &self.noise {
            Some(noise) => noise.over(x),
            None => x,
        }
    }

    /// Gives them a table of their own, at `path`, frozen, and gives its weight,
    /// `[vocabulary, hidden]`. None if they have one.
    pub fn untie(&self, path: nn::Path) -> Option<Tensor> {
        // A second one would take another name in the store.
        if self.own.get().is_some() {
            return None;
        }
        let (vocabulary, hidden) = self.shared.size2().ok()?;
        let config = nn::EmbeddingConfig { ws_init: zeros().ws_init, ..Default::default() };
        let own = nn::embedding(path, vocabulary, hidden, config);
        let weight = own.ws.set_requires_grad(false);
        self.own.set(own).ok()?;
        Some(weight)
    }
}

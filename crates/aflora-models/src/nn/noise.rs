//! Noise on word embeddings during training (NEFTune: Jain et al. 2023, arXiv 2310.05914).
//!
//! Each element of the embeddings of `[batch, length, hidden]` gets a number drawn evenly from
//! ±α / √(length · hidden), the length being that of the padded batch, as in the paper's code.

use aflora_core::nn::{Embedding, Module};
use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;
use tch::Tensor;

/// How much noise a model's words get, at its model's hand: α, and 0 for none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Noise(Rc<Cell<f64>>);

impl Noise {
    /// From the next forward pass on.
    pub fn set(&self, alpha: f64) {
        self.0.set(alpha);
    }

    /// `x`, `[batch, length, hidden]`, with its noise.
    pub fn over(&self, x: Tensor) -> Tensor {
        match (self.0.get(), &x.size()[..]) {
            (0.0, _) => x,
            (alpha, &[_, length, hidden]) => {
                let most = alpha / ((length * hidden) as f64).sqrt();
                &x + x.empty_like().uniform_(-most, most)
            }
            _ => x,
        }
    }
}

/// Word embeddings that take noise.
#[derive(Debug)]
pub(crate) struct NoisyEmbedding {
    table: Embedding,
    noise: Noise,
}

impl NoisyEmbedding {
    pub fn new(table: Embedding, noise: Noise) -> Self {
        NoisyEmbedding { table, noise }
    }

    /// Ids `[batch, length]` to `[batch, length, hidden]`.
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        self.noise.over(self.table.forward(ids))
    }
}

impl Deref for NoisyEmbedding {
    type Target = Embedding;

    fn deref(&self) -> &Embedding {
        &self.table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn the_noise_is_even_and_shrinks_with_length_and_width() {
        let noise = Noise::default();
        let x = Tensor::ones([8, 50, 32], (Kind::Float, Device::Cpu));
        assert!(noise.over(x.shallow_clone()).equal(&x));
        noise.set(5.0);
        let most = 5.0 / (50.0f64 * 32.0).sqrt();
        let off = noise.over(x.shallow_clone()) - &x;
        assert!(off.abs().max().double_value(&[]) <= most + 1e-6);
        assert!(off.abs().max().double_value(&[]) > 0.99 * most);
        assert!(off.mean(Kind::Float).double_value(&[]).abs() < 0.05 * most);
        let expected = most / 3.0f64.sqrt();
        assert!((off.std(true).double_value(&[]) / expected - 1.0).abs() < 0.05);
    }
}

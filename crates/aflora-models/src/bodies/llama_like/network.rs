//! The decoder that a description describes: words, blocks, a norm.

use super::block::Block;
use super::description::Description;
use crate::bodies::decoder::{DecoderBlock, DecoderBody};
use crate::nn::linear::dropout;
use crate::nn::noise::Noise;
use crate::nn::norm::Norm;
use crate::nn::rotary::Rotary;
use crate::nn::scope::Scope;
use aflora_core::nn::{self, Module};
use std::rc::Rc;
use tch::Tensor;

#[derive(Debug)]
pub(super) struct Network {
    words: nn::Embedding,
    noise: Noise,
    scale: Option<f64>,
    dropout: f64,
    blocks: Vec<Rc<dyn DecoderBlock>>,
    norm: Norm,
    rotaries: Vec<Rotary>,
}

impl Network {
    pub fn new(root: &Scope, description: &Description) -> Self {
        let names = description.names;
        let model = root / names.model;
        let layers = &model / "layers";
        let block = |(i, choice)| {
            Rc::new(Block::new(&layers / i, description, choice)) as Rc<dyn DecoderBlock>
        };
        let (hidden, eps) = (description.hidden, description.eps);
        let device = root.path().device();
        let rotary = |rope: &_| Rotary::new(Clone::clone(rope), device);
        Network {
            words: model.embedding(names.words, description.vocab_size, hidden),
            noise: root.noise().clone(),
            scale: description.embedding_scale,
            dropout: description.dropout.embeddings,
            blocks: description.layers.iter().enumerate().map(block).collect(),
            norm: model.norm(description.norm, names.norm, hidden, eps),
            rotaries: description.ropes.iter().map(rotary).collect(),
        }
    }
}

impl DecoderBody for Network {
    fn embed(&self, ids: &Tensor, _positions: &Tensor, train: bool) -> Tensor {
        let words = self.words.forward(ids);
        let words = match self.scale {
            // Rounded to the words' own precision, as the models were trained.
            Some(scale) => &words * Tensor::from(scale).to_kind(words.kind()),
            None => words,
        };
        dropout(self.noise.over(words), self.dropout, train)
    }

    fn blocks(&self) -> &[Rc<dyn DecoderBlock>] {
        &self.blocks
    }

    fn norm(&self, x: &Tensor) -> Tensor {
        self.norm.forward(x)
    }

    fn rotaries(&self) -> &[Rotary] {
        &self.rotaries
    }

    fn words(&self) -> &nn::Embedding {
        &self.words
    }
}

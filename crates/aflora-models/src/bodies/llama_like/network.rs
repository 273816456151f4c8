//! The decoder that a description describes: words, blocks, a norm.

use super::block::Block;
use super::description::Description;
use crate::backbone::Backbone;
use crate::bodies::decoder::{self, DecoderBlock, DecoderBody, DecoderSpec, LmHead};
use crate::config_file::ConfigFile;
use crate::heads::Head;
use crate::nn::linear::dropout;
use crate::nn::noise::Noise;
use crate::nn::norm::Norm;
use crate::nn::rotary::Rotary;
use crate::nn::scope::Scope;
use crate::options::Options;
use crate::Result;
use aflora_core::nn::{self, Module};
use std::rc::Rc;
use tch::Tensor;

impl Description {
    /// Builds it. Weights are zero until loaded or initialised.
    pub fn build(
        self,
        file: &ConfigFile,
        head: Head,
        options: &Options,
    ) -> Result<Box<dyn Backbone>> {
        let spec = DecoderSpec {
            prefix: self.names.prefix,
            hidden: self.hidden,
            max_positions: self.max_positions,
            vocab_size: self.vocab_size,
            lm_head: match self.tied {
                true => LmHead::Tied(self.names.tied),
                false => LmHead::Untied { name: self.names.head, bias: false },
            },
            softcap: self.softcaps.logits,
            token_head: self.token_head,
        };
        decoder::build(file, head, options, spec, |root| Network::new(root, &self))
    }
}

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
            words: model.vocabulary(names.words, description.vocab_size, hidden),
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

//! BART's encoder and decoder.

use super::config::BartConfig;
use super::layers::{encoder_layer, DecoderLayer, EPS};
use crate::bodies::encoder_decoder::{of_source, CrossBlock, EncoderDecoderBody};
use crate::nn::chain::chain;
use crate::nn::linear::dropout;
use crate::nn::noise::Noise;
use crate::nn::post_norm::PostNormBlock;
use crate::nn::relative::RelativeBias;
use crate::nn::scope::Scope;
use crate::nn::words::WordEmbeddings;
use aflora_core::nn::{self, Module};
use aflora_core::Checkpoints;
use std::rc::Rc;
use tch::Tensor;

/// Positions are numbered from here: the first rows of the table stand for nothing.
const FIRST_POSITION: i64 = 2;

#[derive(Debug)]
pub(super) struct BartBody {
    shared: nn::Embedding,
    encoder_input: Input,
    encoder: Vec<Rc<PostNormBlock>>,
    decoder_input: Input,
    decoder: Vec<Rc<dyn CrossBlock>>,
}

/// What makes a first block's input.
#[derive(Debug)]
struct Input {
    words: WordEmbeddings,
    positions: nn::Embedding,
    norm: nn::LayerNorm,
    dropout: f64,
}

impl Input {
    fn new(
        scope: &Scope,
        shared: &nn::Embedding,
        noise: Option<&Noise>,
        config: &BartConfig,
    ) -> Self {
        let rows = config.max_positions + FIRST_POSITION;
        Input {
            words: WordEmbeddings::of(shared, config.scale, noise),
            positions: scope.embedding("embed_positions", rows, config.hidden),
            norm: scope.layer_norm("layernorm_embedding", config.hidden, EPS),
            dropout: config.dropout,
        }
    }

    /// `ids`, `[batch, length]`, stand at the positions from `start` on. Gives
    /// `[batch, length, hidden]`.
    fn forward(&self, ids: &Tensor, start: i64, train: bool) -> Tensor {
        let words = self.words.forward(ids);
        let positions = self.positions.ws.narrow(0, start + FIRST_POSITION, ids.size()[1]);
        dropout(self.norm.forward(&(words + positions)), self.dropout, train)
    }
}

impl BartBody {
    pub fn new(root: &Scope, config: &BartConfig) -> Self {
        let model = root / "model";
        let (encoder, decoder) = (&model / "encoder", &model / "decoder");
        let (lower, upper) = (&encoder / "layers", &decoder / "layers");
        let encoder_layer = |i: i64| Rc::new(encoder_layer(&(&lower / i), config.encoder, config));
        let decoder_layer = |i: i64| -> Rc<dyn CrossBlock> {
            Rc::new(DecoderLayer::new(&upper / i, config.decoder, config))
        };
        let shared = model.vocabulary("shared", config.vocab_size, config.hidden);
        BartBody {
            encoder_input: Input::new(&encoder, &shared, Some(root.noise()), config),
            encoder: (0..config.encoder.layers).map(encoder_layer).collect(),
            decoder_input: Input::new(&decoder, &shared, None, config),
            decoder: (0..config.decoder.layers).map(decoder_layer).collect(),
            shared,
        }
    }
}

impl EncoderDecoderBody for BartBody {
    fn encode(
        &self,
        ids: &Tensor,
        attention_mask: &Tensor,
        train: bool,
        checkpointing: bool,
    ) -> (Tensor, Checkpoints) {
        let context = Rc::new(of_source(attention_mask, train));
        let x = self.encoder_input.forward(ids, 0, train);
        let blocks = self.encoder.iter().map(|layer| {
            let (layer, context) = (layer.clone(), context.clone());
            move |x: &Tensor| layer.forward(x, &context)
        });
        chain(x, blocks, checkpointing)
    }

    fn decoder(&self) -> &[Rc<dyn CrossBlock>] {
        &self.decoder
    }

    fn to_decoder(&self, ids: &Tensor, start: i64, train: bool) -> Tensor {
        self.decoder_input.forward(ids, start, train)
    }

    fn target_bias(&self) -> Option<Rc<RelativeBias>> {
        None
    }

    fn finish(&self, x: Tensor, _train: bool) -> Tensor {
        x
    }

    fn shared(&self) -> &nn::Embedding {
        &self.shared
    }

    fn untie(&self, root: nn::Path, name: &str) -> Option<Tensor> {
        let (side, input) = match name {
            "model.encoder.embed_tokens.weight" => ("encoder", &self.encoder_input),
            "model.decoder.embed_tokens.weight" => ("decoder", &self.decoder_input),
            _ => return None,
        };
        input.words.untie(root / "model" / side / "embed_tokens")
    }
}

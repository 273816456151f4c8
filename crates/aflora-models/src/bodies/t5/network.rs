//! T5's encoder and decoder.

use super::config::T5Config;
use super::layers::{DecoderLayer, EncoderLayer};
use crate::batch::Batch;
use crate::bodies::encoder::EncoderBody;
use crate::bodies::encoder_decoder::{CrossBlock, EncoderDecoderBody};
use crate::nn::attention::{ForwardContext, Seen};
use crate::nn::chain::chain;
use crate::nn::linear::dropout;
use crate::nn::norm::{Norm, NormKind};
use crate::nn::relative::{Buckets, RelativeBias};
use crate::nn::scope::Scope;
use crate::nn::words::WordEmbeddings;
use aflora_core::nn;
use aflora_core::Checkpoints;
use std::rc::Rc;
use tch::{Kind, Tensor};

/// Where, below a side, its first block holds the numbers that all its blocks add to scores.
const BIAS: &str = "block.0.layer.0.SelfAttention.relative_attention_bias";

/// The encoder and the decoder.
#[derive(Debug)]
pub(super) struct T5Body {
    encoder: T5Encoder,
    decoder: Side<Rc<dyn CrossBlock>>,
}

/// The encoder, with the words that both sides read.
#[derive(Debug)]
pub(super) struct T5Encoder {
    /// The name of the module that it is in: none of its own in a model that writes.
    model: &'static str,
    shared: nn::Embedding,
    side: Side<Rc<EncoderLayer>>,
}

/// An encoder or a decoder.
#[derive(Debug)]
struct Side<B> {
    words: WordEmbeddings,
    blocks: Vec<B>,
    bias: Rc<RelativeBias>,
    end: Rc<End>,
    dropout: f64,
}

/// What comes behind the last block.
#[derive(Debug)]
struct End {
    norm: Norm,
    dropout: f64,
}

impl End {
    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        dropout(self.norm.forward(x), self.dropout, train)
    }
}

impl<B> Side<B> {
    fn new(
        scope: Scope,
        shared: &nn::Embedding,
        config: &T5Config,
        both_sides: bool,
        blocks: impl Iterator<Item = B>,
    ) -> Self {
        let buckets = Buckets { both_sides, ..config.buckets };
        let norm = scope.norm(NormKind::Rms, "final_layer_norm", config.hidden, config.eps);
        Side {
            words: WordEmbeddings::of(shared, 1.0, both_sides.then(|| scope.noise())),
            blocks: blocks.collect(),
            bias: Rc::new(RelativeBias::new(&scope, BIAS, config.heads, buckets)),
            end: Rc::new(End { norm, dropout: config.dropout }),
            dropout: config.dropout,
        }
    }

    fn begin(&self, ids: &Tensor, train: bool) -> Tensor {
        dropout(self.words.forward(ids), self.dropout, train)
    }
}

/// What is below `name` in the module `model`.
fn below<'a>(root: &Scope<'a>, model: &str, name: &str) -> Scope<'a> {
    match model {
        "" => root / name,
        model => root / model / name,
    }
}

impl T5Encoder {
    pub fn new(root: &Scope, model: &'static str, config: &T5Config) -> Self {
        let (words, hidden) = (config.vocab_size, config.hidden);
        let shared = match model {
            "" => root.vocabulary("shared", words, hidden),
            model => (root / model).vocabulary("shared", words, hidden),
        };
        let scope = below(root, model, "encoder");
        let layers = &scope / "block";
        let blocks =
            (0..config.encoder_layers).map(|i| Rc::new(EncoderLayer::new(&layers / i, config)));
        T5Encoder { model, side: Side::new(scope, &shared, config, true, blocks), shared }
    }

    /// See [`EncoderDecoderBody::encode`].
    fn encode(
        &self,
        ids: &Tensor,
        attention_mask: &Tensor,
        train: bool,
        checkpointing: bool,
    ) -> (Tensor, Checkpoints) {
        let tokens = attention_mask.to_kind(Kind::Bool).unsqueeze(1).unsqueeze(1);
        // A block that runs twice makes the bias itself: the graph behind that is its own.
        let bias = &self.side.bias;
        let shared = (!checkpointing).then(|| Rc::new(context(bias, &tokens, train)));
        let blocks = self.side.blocks.iter().map(|block| {
            let (block, bias, shared) = (block.clone(), bias.clone(), shared.clone());
            let tokens = tokens.shallow_clone();
            Box::new(move |x: &Tensor| match &shared {
                Some(shared) => block.forward(x, shared),
                None => block.forward(x, &context(&bias, &tokens, train)),
            }) as Box<dyn Fn(&Tensor) -> Tensor>
        });
        // All of the decoder's blocks read what the norm gives, so it must be a block as well.
        let end = self.side.end.clone();
        let end: Box<dyn Fn(&Tensor) -> Tensor> = Box::new(move |x| end.forward(x, train));
        chain(self.side.begin(ids, train), blocks.chain([end]), checkpointing)
    }

    /// See [`EncoderDecoderBody::untie`]; `decoder` are the decoder's words, where there is one.
    fn untie(
        &self,
        root: nn::Path,
        name: &str,
        decoder: Option<&WordEmbeddings>,
    ) -> Option<Tensor> {
        let below = match self.model {
            "" => root,
            model => root / model,
        };
        let name = name.strip_prefix(self.model).unwrap_or(name).trim_start_matches('.');
        let (side, words) = match name {
            "encoder.embed_tokens.weight" => ("encoder", &self.side.words),
            "decoder.embed_tokens.weight" => ("decoder", decoder?),
            _ => return None,
        };
        words.untie(below / side / "embed_tokens")
    }
}

impl EncoderBody for T5Encoder {
    fn forward(&self, batch: &Batch, train: bool, checkpointing: bool) -> (Tensor, Checkpoints) {
        self.encode(&batch.input_ids, &batch.attention_mask, train, checkpointing)
    }

    fn untie(&self, root: nn::Path, name: &str) -> Option<Tensor> {
        T5Encoder::untie(self, root, name, None)
    }
}

impl T5Body {
    pub fn new(root: &Scope, model: &'static str, config: &T5Config) -> Self {
        let encoder = T5Encoder::new(root, model, config);
        let scope = below(root, model, "decoder");
        let layers = &scope / "block";
        let blocks = (0..config.decoder_layers)
            .map(|i| -> Rc<dyn CrossBlock> { Rc::new(DecoderLayer::new(&layers / i, config)) });
        let decoder = Side::new(scope, &encoder.shared, config, false, blocks);
        T5Body { encoder, decoder }
    }
}

/// What tokens of the source see of it: not its padding, `tokens`, `[batch, 1, 1, length]`, being
/// false there.
fn context(bias: &RelativeBias, tokens: &Tensor, train: bool) -> ForwardContext {
    let length = tokens.size()[3];
    let seen = Seen::All(Some(bias.forward(length, length, tokens)));
    ForwardContext { rotations: Vec::new(), seen, train }
}

impl EncoderDecoderBody for T5Body {
    fn encode(
        &self,
        ids: &Tensor,
        attention_mask: &Tensor,
        train: bool,
        checkpointing: bool,
    ) -> (Tensor, Checkpoints) {
        self.encoder.encode(ids, attention_mask, train, checkpointing)
    }

    fn decoder(&self) -> &[Rc<dyn CrossBlock>] {
        &self.decoder.blocks
    }

    fn to_decoder(&self, ids: &Tensor, _start: i64, train: bool) -> Tensor {
        self.decoder.begin(ids, train)
    }

    fn target_bias(&self) -> Option<Rc<RelativeBias>> {
        Some(self.decoder.bias.clone())
    }

    fn finish(&self, x: Tensor, train: bool) -> Tensor {
        self.decoder.end.forward(&x, train)
    }

    fn shared(&self) -> &nn::Embedding {
        &self.encoder.shared
    }

    fn untie(&self, root: nn::Path, name: &str) -> Option<Tensor> {
        self.encoder.untie(root, name, Some(&self.decoder.words))
    }
}

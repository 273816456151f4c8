//! BART for writing text from text.
//!
//! Ours, and not rust-bert's, which agrees with the released models in single precision, but
//! counts out its causal mask in the precision of the weights, copies keys and values for a cache
//! in training too, and does not fuse attention: a step of BART-large took longer than PEFT's and
//! twice its memory (`bench/README.md`).

mod config;
mod layers;

use crate::backbone::{name_linears, Backbone, Batch, InjectableLinear, Tied, WriterOptions};
use crate::bodies::decoder::{KeyValues, View};
use crate::config_file::ConfigFile;
use crate::generate::{SpecialTokens, Writer, Writing};
use crate::nn::linear::{dropout, embedding, untie};
use crate::{Error, Result};
use aflora_core::Block;
use config::BartConfig;
use layers::{layer_norm, DecoderLayer, EncoderLayer, Source};
use std::cell::OnceCell;
use std::path::Path;
use tch::{Kind, Tensor};
use tch_facade::nn::{self, Module};

/// Keys that transformers reads as others.
const ALIASES: &[(&str, &str)] = &[
    ("hidden_size", "d_model"),
    ("num_attention_heads", "encoder_attention_heads"),
    ("num_hidden_layers", "encoder_layers"),
];

/// Positions are numbered from here: the first rows of the table stand for nothing.
const FIRST_POSITION: i64 = 2;
const ZERO: nn::Init = nn::Init::Const(0.0);

/// BART from its `config.json`. Weights are zero until loaded or initialised.
pub(crate) fn build(path: &Path, options: &WriterOptions) -> Result<Box<dyn Backbone>> {
    if options.checkpointing {
        return Err(Error::Unbuilt(
            "gradient checkpointing is built for decoders, whose blocks are a chain; BART's \
             decoder reads its encoder in every block"
                .into(),
        ));
    }
    let file = ConfigFile::read(path, "bart", &["bart"])?.rename(ALIASES);
    let config = BartConfig::read(&file)?;
    let tokens = SpecialTokens::read(path, file.keys(), config.vocab_size, true)?;
    if tokens.decoder_start.is_none() {
        return Err(file.problem("`decoder_start_token_id` is missing".into()));
    }
    let mut vs = options.var_store();
    let (network, captured) = tch_facade::capture(|| Network::new(vs.root(), &config));
    let linears = name_linears(&vs, captured, block);
    vs.freeze();
    let (max_positions, vocab_size) = (config.max_positions, config.vocab_size);
    Ok(Box::new(Bart { vs, network, linears, tokens, max_positions, vocab_size }))
}

fn block(name: &str) -> Option<Block> {
    if name.contains("_attn.") {
        Some(Block::Attention)
    } else if name.ends_with(".fc1") || name.ends_with(".fc2") {
        Some(Block::Ffn)
    } else {
        None
    }
}

/// A BART.
#[derive(Debug)]
struct Bart {
    vs: nn::VarStore,
    network: Network,
    linears: Vec<InjectableLinear>,
    tokens: SpecialTokens,
    max_positions: i64,
    vocab_size: i64,
}

#[derive(Debug)]
struct Network {
    /// Words in and, without a head, out.
    shared: nn::Embedding,
    /// Empty where the words are the head too.
    head: OnceCell<nn::Linear>,
    scale: f64,
    encoder_input: Input,
    encoder: Vec<EncoderLayer>,
    decoder_input: Input,
    decoder: Vec<DecoderLayer>,
    final_logits_bias: Tensor,
}

/// What makes a block's input of word embeddings.
#[derive(Debug)]
struct Input {
    positions: nn::Embedding,
    norm: nn::LayerNorm,
    dropout: f64,
}

impl Input {
    fn new(path: &nn::Path, config: &BartConfig) -> Self {
        let rows = config.max_positions + FIRST_POSITION;
        Input {
            positions: embedding(path / "embed_positions", rows, config.hidden),
            norm: layer_norm(path / "layernorm_embedding", config),
            dropout: config.dropout,
        }
    }

    /// `words` stand at the positions from `start` on.
    fn forward(&self, words: Tensor, start: i64, train: bool) -> Tensor {
        let positions = self.positions.ws.narrow(0, start + FIRST_POSITION, words.size()[1]);
        dropout(self.norm.forward(&(words + positions)), self.dropout, train)
    }
}

impl Network {
    fn new(root: nn::Path, config: &BartConfig) -> Self {
        let model = &root / "model";
        let (encoder, decoder) = (&model / "encoder", &model / "decoder");
        let (lower, upper) = (&encoder / "layers", &decoder / "layers");
        let encoder_layer = |i: i64| EncoderLayer::new(&lower / i, config.encoder, config);
        let decoder_layer = |i: i64| DecoderLayer::new(&upper / i, config.decoder, config);
        Network {
            shared: embedding(&model / "shared", config.vocab_size, config.hidden),
            head: OnceCell::new(),
            scale: config.scale,
            encoder_input: Input::new(&encoder, config),
            encoder: (0..config.encoder.layers).map(encoder_layer).collect(),
            decoder_input: Input::new(&decoder, config),
            decoder: (0..config.decoder.layers).map(decoder_layer).collect(),
            final_logits_bias: root.var("final_logits_bias", &[1, config.vocab_size], ZERO),
        }
    }

    fn words(&self, ids: &Tensor) -> Tensor {
        let words = self.shared.forward(ids);
        if self.scale == 1.0 {
            words
        } else {
            words * self.scale
        }
    }

    fn encode(&self, ids: &Tensor, view: &View) -> Tensor {
        let x = self.encoder_input.forward(self.words(ids), 0, view.train);
        self.encoder.iter().fold(x, |x, layer| layer.forward(&x, view))
    }

    fn logits(&self, x: &Tensor) -> Tensor {
        let words = self.head.get().map_or(&self.shared.ws, |head| &head.ws);
        x.linear(words, None::<&Tensor>).to_kind(Kind::Float) + &self.final_logits_bias
    }
}

/// What is seen of the source: its tokens, not its padding.
fn of_source(attention_mask: &Tensor, train: bool) -> View {
    let mask = attention_mask.to_kind(Kind::Bool).unsqueeze(1).unsqueeze(1);
    View { rotation: None, mask: Some(mask), train }
}

/// What is seen of the target: the tokens before.
fn of_target(train: bool) -> View {
    View { rotation: None, mask: None, train }
}

impl Bart {
    /// What the decoder begins with.
    fn begun<'a>(&self, batch: &'a Batch) -> Result<&'a Tensor> {
        let ids = batch.decoder_input_ids.as_ref();
        let ids = ids.ok_or_else(|| {
            Error::Forward("an encoder-decoder needs what its decoder reads".into())
        })?;
        for length in [batch.input_ids.size()[1], ids.size()[1]] {
            self.check_length(length)?;
        }
        Ok(ids)
    }

    fn check_length(&self, length: i64) -> Result<()> {
        if length > self.max_positions {
            return Err(Error::Forward(format!(
                "{length} tokens are more than the model's {} positions",
                self.max_positions
            )));
        }
        Ok(())
    }
}

impl Backbone for Bart {
    fn forward(&self, batch: &Batch, train: bool) -> Result<Tensor> {
        let ids = self.begun(batch)?;
        let (own, of_source) = (of_target(train), of_source(&batch.attention_mask, train));
        let network = &self.network;
        let encoded = network.encode(&batch.input_ids, &of_source);
        let x = network.decoder_input.forward(network.words(ids), 0, train);
        let x = network
            .decoder
            .iter()
            .fold(x, |x, layer| layer.forward(&x, layer.source(&encoded), &own, &of_source, None));
        Ok(network.logits(&x))
    }

    fn var_store(&self) -> &nn::VarStore {
        &self.vs
    }

    fn linears(&self) -> &[InjectableLinear] {
        &self.linears
    }

    fn head(&self) -> &'static [&'static str] {
        &[]
    }

    fn prefix(&self) -> &'static str {
        "model."
    }

    fn max_positions(&self) -> i64 {
        self.max_positions
    }

    fn vocab_size(&self) -> i64 {
        self.vocab_size
    }

    fn writer(&self) -> Option<&dyn Writer> {
        Some(self)
    }

    fn tied(&self) -> &'static [Tied] {
        &[(
            "model.shared.weight",
            &[
                "model.encoder.embed_tokens.weight",
                "model.decoder.embed_tokens.weight",
                "lm_head.weight",
            ],
        )]
    }

    fn untie(&self, name: &str) -> Option<Tensor> {
        // Encoder and decoder read one table here.
        let network = &self.network;
        (name == "lm_head.weight")
            .then(|| untie(&network.head, self.vs.root(), &network.shared.ws))
            .flatten()
    }

    fn optional(&self) -> &'static [&'static str] {
        &["final_logits_bias"]
    }
}

impl Writer for Bart {
    fn tokens(&self) -> &SpecialTokens {
        &self.tokens
    }

    fn start<'a>(&'a self, batch: &Batch, room: i64) -> Result<(Tensor, Box<dyn Writing + 'a>)> {
        let ids = self.begun(batch)?;
        let capacity = ids.size()[1] + room;
        self.check_length(capacity)?;
        let of_source = of_source(&batch.attention_mask, false);
        let encoded = self.network.encode(&batch.input_ids, &of_source);
        let decoder = &self.network.decoder;
        let mut state = State {
            network: &self.network,
            sources: decoder.iter().map(|layer| layer.source(&encoded)).collect(),
            of_source,
            keys: decoder.iter().map(|_| KeyValues::new(capacity)).collect(),
            length: 0,
        };
        let logits = state.advance(ids);
        Ok((logits, Box::new(state)))
    }
}

/// Texts being written.
#[derive(Debug)]
struct State<'a> {
    network: &'a Network,
    /// What each block sees of the encoder's output.
    sources: Vec<Source>,
    of_source: View,
    keys: Vec<KeyValues>,
    length: i64,
}

impl State<'_> {
    fn advance(&mut self, ids: &Tensor) -> Tensor {
        let network = self.network;
        let own = of_target(false);
        let mut x = network.decoder_input.forward(network.words(ids), self.length, false);
        for ((layer, source), keys) in network.decoder.iter().zip(&self.sources).zip(&mut self.keys)
        {
            let source = [0, 1].map(|i: usize| source[i].shallow_clone());
            x = layer.forward(&x, source, &own, &self.of_source, Some(keys));
        }
        let read = ids.size()[1];
        self.length += read;
        network.logits(&x.narrow(1, read - 1, 1)).squeeze_dim(1)
    }
}

impl Writing for State<'_> {
    fn step(&mut self, tokens: &Tensor) -> Result<Tensor> {
        Ok(self.advance(&tokens.unsqueeze(1)))
    }

    fn select(&mut self, rows: &Tensor) {
        for keys in &mut self.keys {
            keys.select(rows);
        }
        for per_row in self.sources.iter_mut().flatten().chain(&mut self.of_source.mask) {
            *per_row = per_row.index_select(0, rows);
        }
    }
}

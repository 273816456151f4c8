//! What decoders of ours share: GPT-2, GPT-Neo, GPT-J and LLaMA are a [`DecoderBody`] each, everything else is here.
//!
//! A forward pass runs embeddings, blocks and head. In training, blocks can be checkpointed; in
//! decoding, every block keeps its keys and values, so that a step reads one token a text.
//! Texts of a batch are padded on the right for training, where the causal mask alone hides the
//! padding from every token, and on the left for decoding, where all texts end together.

use crate::backbone::{About, Backbone, Forward, Frame, Tied};
use crate::batch::Batch;
use crate::config_file::ConfigFile;
use crate::generate::{DecodingState, SpecialTokens, TextGenerator};
use crate::heads::each_token::{EachToken, TokenHead};
use crate::heads::language::{LanguageHead, NAME};
use crate::heads::last_token::{LastToken, SCORE};
use crate::heads::Head;
use crate::nn::attention::{ForwardContext, KeyValues, Seen};
use crate::nn::chain::chain;
use crate::nn::scope::{self, Scope};
use crate::options::Options;
use crate::{Error, Result};
use aflora_core::nn;
use std::rc::Rc;
use tch::{Kind, Tensor};

/// One block: what it adds to the residual stream is in its output.
pub(crate) trait DecoderBlock: std::fmt::Debug {
    /// `x` is `[batch, length, hidden]`; with `keys`, its keys and values are kept there, and
    /// those already there are seen.
    fn forward(&self, x: &Tensor, context: &ForwardContext, keys: Option<&mut KeyValues>)
        -> Tensor;
}

/// A decoder's body: what differs from one kind of decoder to another.
pub(crate) trait DecoderBody: std::fmt::Debug {
    /// The input of the first block.
    fn embed(&self, ids: &Tensor, positions: &Tensor, train: bool) -> Tensor;
    fn blocks(&self) -> &[Rc<dyn DecoderBlock>];
    /// The last block's output, normalised: hidden states.
    fn norm(&self, x: &Tensor) -> Tensor;
    /// Cosines and sines of positions `[batch or 1, length]`, in `kind`.
    fn rotation(&self, positions: &Tensor, kind: Kind) -> Option<(Tensor, Tensor)>;
    /// The word embeddings.
    fn words(&self) -> &nn::Embedding;
}

/// What all models of one kind of decoder have in common beside their bodies.
pub(crate) struct DecoderSpec {
    pub prefix: &'static str,
    pub hidden: i64,
    pub max_positions: i64,
    pub vocab_size: i64,
    pub lm_head: LmHead,
    /// How it makes classes of a token's state, where transformers has a class for that.
    pub token_head: Option<TokenHead>,
}

/// Where the weight of a language head comes from.
pub(crate) enum LmHead {
    /// The word embeddings, of this name: it is one weight, whatever names a file has for it.
    Tied(&'static [Tied]),
    /// A weight of its own, with a bias where `bias` says so.
    Untied { bias: bool },
}

/// Builds the decoder of the config.json `file` whose body `network` makes. Weights
/// are zero until loaded or initialised.
pub(crate) fn build<N: DecoderBody + 'static>(
    file: &ConfigFile,
    head: Head,
    options: &Options,
    spec: DecoderSpec,
    network: impl FnOnce(&Scope) -> N,
) -> Result<Box<dyn Backbone>> {
    let DecoderSpec { prefix, hidden, max_positions, vocab_size, lm_head, token_head } = spec;
    let pad = Some(file.integer("pad_token_id", -1)?).filter(|&pad| pad >= 0);
    let (writes, modules) = match (head, &token_head) {
        (Head::Classes(_) | Head::Scores(_), _) => (false, SCORE),
        (Head::Tokens(_), Some(token_head)) => (false, token_head.modules),
        (Head::Tokens(_), None) => return Err(Error::does_not_tag()),
        (Head::Language, _) => (true, &[][..]),
    };
    let tokens = match writes {
        true => SpecialTokens::read(file.path(), file.keys(), vocab_size, false)?,
        false => SpecialTokens::default(),
    };
    let tied = match lm_head {
        LmHead::Tied(tied) if writes => tied,
        _ => &[],
    };
    let about = About {
        head,
        prefix,
        head_modules: modules,
        new_modules: modules,
        may_lack: &[],
        class_rows: modules.first().copied(),
        tied,
        optional: &[],
        max_positions,
        vocab_size,
    };
    let mut vs = options.var_store();
    let ((network, output_head), linears) = scope::build(&mut vs, |root| {
        let network = network(&root);
        let output_head = match (head, &token_head) {
            (Head::Classes(labels) | Head::Scores(labels), _) => {
                OutputHead::Labels(LastToken::new(&root, hidden, labels, pad))
            }
            (Head::Tokens(labels), Some(token_head)) => {
                OutputHead::Tags(EachToken::new(&root, token_head, hidden, labels))
            }
            (Head::Tokens(_), None) | (Head::Language, _) => {
                let own = match lm_head {
                    LmHead::Tied(_) => None,
                    LmHead::Untied { bias: true } => Some(root.linear(NAME, hidden, vocab_size)),
                    LmHead::Untied { bias: false } => {
                        Some(root.bare_linear(NAME, hidden, vocab_size))
                    }
                };
                OutputHead::Text(LanguageHead::new(network.words(), own))
            }
        };
        (network, output_head)
    });
    let frame = Frame::new(vs, linears, about);
    let checkpointing = options.checkpointing;
    Ok(Box::new(Decoder { frame, network, output_head, tokens, checkpointing }))
}

/// The dropout before the classes of tokens, as transformers' decoders choose it.
pub(crate) fn token_dropout(file: &ConfigFile, otherwise: &str) -> Result<f64> {
    match file.keys().get("classifier_dropout").is_some_and(|value| !value.is_null()) {
        true => file.dropout("classifier_dropout", 0.1),
        false => file.dropout(otherwise, 0.1),
    }
}

/// A decoder of ours.
#[derive(Debug)]
struct Decoder<N> {
    frame: Frame,
    network: N,
    output_head: OutputHead,
    tokens: SpecialTokens,
    checkpointing: bool,
}

/// A decoder's head: what is computed from its hidden states.
#[derive(Debug)]
enum OutputHead {
    Labels(LastToken),
    Tags(EachToken),
    Text(LanguageHead),
}

impl<N: DecoderBody> Decoder<N> {
    fn range(&self, from: i64, to: i64) -> Tensor {
        Tensor::arange_start(from, to, (Kind::Int64, self.frame.vs.device())).unsqueeze(0)
    }

    /// What the blocks see of a batch, and the positions of its tokens.
    fn mask_and_positions(&self, batch: &Batch) -> (Seen, Tensor) {
        let (_, length) = sizes(&batch.input_ids);
        if let Some(documents) = &batch.documents {
            let seen = document_mask(documents).unsqueeze(1);
            return (Seen::Causal(Some(seen)), document_positions(documents));
        }
        if !batch.left_padded {
            return (Seen::Causal(None), self.range(0, length));
        }
        let real = batch.attention_mask.to_kind(Kind::Bool);
        let seen = Seen::Causal(Some(causal_mask(&real, length)));
        (seen, left_padded_positions(&batch.attention_mask))
    }
}

impl<N: DecoderBody> Backbone for Decoder<N> {
    fn forward(&self, batch: &Batch, train: bool) -> Result<Forward> {
        let (seen, positions) = self.mask_and_positions(batch);
        let x = self.network.embed(&batch.input_ids, &positions, train);
        let rotation = self.network.rotation(&positions, x.kind());
        let context = Rc::new(ForwardContext { rotation, seen, train });
        let blocks = self.network.blocks().iter().map(|block| {
            let (block, context) = (block.clone(), context.clone());
            move |x: &Tensor| block.forward(x, &context, None)
        });
        let (x, checkpoints) = chain(x, blocks, train && self.checkpointing);
        let hidden = self.network.norm(&x);
        let logits = match &self.output_head {
            OutputHead::Labels(head) => head.forward(&hidden, batch),
            OutputHead::Tags(head) => head.forward(hidden, train),
            OutputHead::Text(head) => head.forward(&hidden),
        };
        Ok(Forward::new(logits, checkpoints))
    }

    fn frame(&self) -> &Frame {
        &self.frame
    }

    fn text_generator(&self) -> Option<&dyn TextGenerator> {
        match &self.output_head {
            OutputHead::Text(_) => Some(self),
            OutputHead::Labels(_) | OutputHead::Tags(_) => None,
        }
    }

    fn untie(&self, _name: &str) -> Option<Tensor> {
        match &self.output_head {
            OutputHead::Text(head) => head.untie(self.frame.vs.root()),
            OutputHead::Labels(_) | OutputHead::Tags(_) => None,
        }
    }
}

impl<N: DecoderBody> TextGenerator for Decoder<N> {
    fn tokens(&self) -> &SpecialTokens {
        &self.tokens
    }

    fn start<'a>(
        &'a self,
        batch: &Batch,
        room: i64,
    ) -> Result<(Tensor, Box<dyn DecodingState + 'a>)> {
        let (_, length) = sizes(&batch.input_ids);
        let most = self.frame.about.max_positions;
        if length + room > most {
            return Err(Error::Length(format!(
                "a prompt of {length} tokens and {room} new ones are more than the model's {most} \
                 positions"
            )));
        }
        let OutputHead::Text(head) = &self.output_head else { return Err(Error::does_not_write()) };
        let blocks = self.network.blocks().len();
        let (seen, positions) = self.mask_and_positions(batch);
        let mut state = CausalDecodingState {
            model: self,
            head,
            keys: (0..blocks).map(|_| KeyValues::new(length + room)).collect(),
            real: batch.left_padded.then(|| batch.attention_mask.to_kind(Kind::Bool)),
            positions: batch.left_padded.then(|| positions.narrow(1, length - 1, 1)),
            length: 0,
        };
        let logits = state.advance(&batch.input_ids, &positions, seen);
        Ok((logits, Box::new(state)))
    }
}

/// The state of decoding a batch of texts: the cached keys and values of every block.
#[derive(Debug)]
struct CausalDecodingState<'a, N> {
    model: &'a Decoder<N>,
    head: &'a LanguageHead,
    keys: Vec<KeyValues>,
    /// Which of the keys are tokens, not padding, `[batch, keys]`; none where all are.
    real: Option<Tensor>,
    /// The last token's position, `[batch, 1]`, where texts differ in it.
    positions: Option<Tensor>,
    length: i64,
}

impl<N: DecoderBody> CausalDecodingState<'_, N> {
    fn advance(&mut self, ids: &Tensor, positions: &Tensor, seen: Seen) -> Tensor {
        let network = &self.model.network;
        let mut x = network.embed(ids, positions, false);
        let rotation = network.rotation(positions, x.kind());
        let context = ForwardContext { rotation, seen, train: false };
        for (block, keys) in network.blocks().iter().zip(&mut self.keys) {
            x = block.forward(&x, &context, Some(keys));
        }
        let (_, read) = sizes(ids);
        self.length += read;
        // Only the last token's logits are wanted: the head is the largest product of all.
        let hidden = network.norm(&x.narrow(1, read - 1, 1));
        self.head.forward(&hidden).squeeze_dim(1).to_kind(Kind::Float)
    }
}

impl<N: DecoderBody> DecodingState for CausalDecodingState<'_, N> {
    fn step(&mut self, tokens: &Tensor) -> Result<Tensor> {
        if self.length == self.model.frame.about.max_positions {
            return Err(Error::Length("there is no position left".into()));
        }
        let (positions, seen) = match (&mut self.positions, &mut self.real) {
            (Some(last), Some(real)) => {
                *last += 1;
                *real = Tensor::cat(&[&*real, &last.ones_like().to_kind(Kind::Bool)], 1);
                (last.shallow_clone(), Seen::Causal(Some(real.unsqueeze(1).unsqueeze(1))))
            }
            _ => (self.model.range(self.length, self.length + 1), Seen::Causal(None)),
        };
        Ok(self.advance(&tokens.unsqueeze(1), &positions, seen))
    }

    fn select(&mut self, rows: &Tensor) {
        for keys in &mut self.keys {
            keys.select(rows);
        }
        for per_row in [&mut self.real, &mut self.positions].into_iter().flatten() {
            *per_row = per_row.index_select(0, rows);
        }
    }
}

fn sizes(ids: &Tensor) -> (i64, i64) {
    let size = ids.size();
    (size[0], size[1])
}

/// Positions that count tokens only: 0 at the first token after the padding.
fn left_padded_positions(attention_mask: &Tensor) -> Tensor {
    (attention_mask.cumsum(1, Kind::Int64) - 1).clamp_min(0)
}

/// What each query may see, `[batch, 1, length, length]`: itself and the tokens before it.
/// Padding sees itself, so that no row is empty.
fn causal_mask(real: &Tensor, length: i64) -> Tensor {
    let square = (Kind::Bool, real.device());
    let itself = Tensor::eye(length, square);
    let causal = Tensor::ones([length, length], square).tril(0);
    let seen = real.unsqueeze(1).logical_and(&causal).logical_or(&itself);
    seen.unsqueeze(1)
}

/// What each query may see of a row of documents, `[batch, length, length]`: its own document's
/// tokens up to itself.
fn document_mask(documents: &Tensor) -> Tensor {
    let (_, length) = sizes(documents);
    let causal = Tensor::ones([length, length], (Kind::Bool, documents.device())).tril(0);
    documents.unsqueeze(2).eq_tensor(&documents.unsqueeze(1)).logical_and(&causal)
}

/// Positions that begin at 0 with each document, `[batch, length]`.
fn document_positions(documents: &Tensor) -> Tensor {
    let (_, length) = sizes(documents);
    let columns = Tensor::arange(length, (Kind::Int64, documents.device())).expand_as(documents);
    let changes = documents.narrow(1, 1, length - 1).ne_tensor(&documents.narrow(1, 0, length - 1));
    let begins = changes.to_kind(Kind::Int64).constant_pad_nd([1, 0]);
    let (starts, _) = (&columns * begins).cummax(1);
    columns - starts
}

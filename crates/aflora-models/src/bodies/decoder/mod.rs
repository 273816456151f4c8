//! What decoders of ours share: the GPTs and LLaMA's kin are a [`DecoderBody`] each, everything else
//! is here.
//!
//! A forward pass runs embeddings, blocks and head. In training, blocks can be checkpointed; in
//! decoding, every block keeps its keys and values, so that a step reads one token a text.
//! Texts of a batch are padded on the right for training, where the causal mask alone hides the
//! padding from every token, and on the left for decoding, where all texts end together.

mod decoding;
mod masks;
mod slots;

use crate::backbone::{About, Backbone, Forward, Frame, Tied};
use crate::batch::Batch;
use crate::config_file::ConfigFile;
use crate::generate::{SpecialTokens, TextGenerator};
use crate::heads::each_token::{EachToken, TokenHead};
use crate::heads::language::LanguageHead;
use crate::heads::last_token::{LastToken, SCORE};
use crate::heads::Head;
use crate::next_tokens::{NextTokenHead, NextTokens};
use crate::nn::attention::{ForwardContext, KeyValues, Seen};
use crate::nn::chain::chain;
use crate::nn::rotary::{Rotary, Rotation};
use crate::nn::scope::{self, Scope};
use crate::options::Options;
use crate::{Error, Result};
use aflora_core::nn::{self, NamedLinear};
use aflora_core::Checkpoints;
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
    /// The ways in which blocks turn queries and keys by their positions.
    fn rotaries(&self) -> &[Rotary];
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
    /// What logits of words are bent below: c · tanh(logit / c).
    pub softcap: Option<f64>,
    /// How it makes classes of a token's state, where transformers has a class for that.
    pub token_head: Option<TokenHead>,
}

/// Where the weight of a language head comes from.
pub(crate) enum LmHead {
    /// The word embeddings, of this name: it is one weight, whatever names a file has for it.
    Tied(&'static [Tied]),
    /// A weight of its own, of this name, with a bias where `bias` says so.
    Untied { name: &'static str, bias: bool },
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
    let DecoderSpec { prefix, hidden, max_positions, vocab_size, lm_head, softcap, token_head } =
        spec;
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
        always_tied: &[],
        optional: &[],
        max_positions,
    };
    let mut vs = options.var_store();
    let ((network, output_head), made) = scope::build(&mut vs, options, |root| {
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
                    LmHead::Untied { name, bias: true } => {
                        Some(root.linear(name, hidden, vocab_size))
                    }
                    LmHead::Untied { name, bias: false } => {
                        Some(root.bare_linear(name, hidden, vocab_size))
                    }
                };
                OutputHead::Text(LanguageHead::new(network.words(), own, softcap))
            }
        };
        (network, output_head)
    });
    let frame = Frame::new(vs, made, about);
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
        let length = batch.input_ids.size()[1];
        if let Some(documents) = &batch.documents {
            return (Seen::in_documents(documents), documents.positions());
        }
        if !batch.left_padded {
            return (Seen::Causal(None), self.range(0, length));
        }
        let real = batch.attention_mask.to_kind(Kind::Bool);
        (Seen::Causal(Some(masks::causal(&real))), masks::left_padded_positions(&real))
    }

    /// Cosines and sines of `positions`, `[batch or 1, length]`, for every way of turning.
    fn rotations(&self, positions: &Tensor, kind: Kind) -> Vec<Rotation> {
        self.network.rotaries().iter().map(|rotary| rotary.at(positions, kind)).collect()
    }

    /// The states of all tokens, `[batch, length, hidden]`.
    fn states(&self, batch: &Batch, train: bool) -> (Tensor, Checkpoints) {
        let (seen, positions) = self.mask_and_positions(batch);
        let x = self.network.embed(&batch.input_ids, &positions, train);
        let rotations = self.rotations(&positions, x.kind());
        let context = Rc::new(ForwardContext { rotations, seen, train });
        let blocks = self.network.blocks().iter().map(|block| {
            let (block, context) = (block.clone(), context.clone());
            move |x: &Tensor| block.forward(x, &context, None)
        });
        let (x, checkpoints) = chain(x, blocks, train && self.checkpointing);
        (self.network.norm(&x), checkpoints)
    }
}

impl<N: DecoderBody> Backbone for Decoder<N> {
    fn forward(&self, batch: &Batch, train: bool) -> Result<Forward> {
        let (hidden, checkpoints) = self.states(batch, train);
        let logits = match &self.output_head {
            OutputHead::Labels(head) => head.forward(&hidden, batch),
            OutputHead::Tags(head) => head.forward(hidden, train),
            OutputHead::Text(head) => head.logits(&hidden).together(),
        };
        Ok(Forward::new(logits, checkpoints))
    }

    fn next_tokens(&self, batch: &Batch, train: bool) -> Result<NextTokens<'_>> {
        let OutputHead::Text(head) = &self.output_head else { return Err(Error::does_not_write()) };
        let (states, checkpoints) = self.states(batch, train);
        Ok(NextTokens::new(states, head, checkpoints))
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

    fn further_linears(&self) -> Vec<NamedLinear> {
        let mut layers = self.frame.further();
        if let OutputHead::Text(head) = &self.output_head {
            layers.extend(head.untied());
        }
        layers
    }

    fn untie(&self, name: &str) -> Option<Tensor> {
        match &self.output_head {
            OutputHead::Text(head) => head.untie(self.frame.vs.root(), name),
            OutputHead::Labels(_) | OutputHead::Tags(_) => None,
        }
    }
}

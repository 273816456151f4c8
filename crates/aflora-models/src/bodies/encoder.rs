//! What encoders of ours share: BERT and its kin, DeBERTa and ModernBERT are an [`EncoderBody`]
//! each, everything else is here.

use crate::backbone::{About, Backbone, Forward, Frame, Tied};
use crate::batch::Batch;
use crate::heads::dense::DenseHead;
use crate::heads::each_token::{EachToken, TokenHead};
use crate::heads::Head;
use crate::nn::activation::Activation;
use crate::nn::scope::{self, Scope};
use crate::options::Options;
use crate::{Error, Result};
use aflora_core::{nn, Checkpoints};
use serde::Deserialize;
use tch::Tensor;

/// An encoder's body: what differs from one kind of encoder to another.
pub(crate) trait EncoderBody: std::fmt::Debug {
    /// Hidden states, `[batch, length, hidden]`, of a batch that is not too long, with what a
    /// backward pass goes through where blocks are checkpointed.
    fn forward(&self, batch: &Batch, train: bool, checkpointing: bool) -> (Tensor, Checkpoints);

    /// As [`Backbone::untie`], below the model's `root`.
    fn untie(&self, _root: nn::Path, _name: &str) -> Option<Tensor> {
        None
    }
}

/// What all models of one kind of encoder have in common beside their bodies.
pub(crate) struct EncoderSpec {
    pub prefix: &'static str,
    pub hidden: i64,
    /// The longest text.
    pub max_positions: i64,
    pub head: TextHead,
}

/// As [`EncoderSpec`], of a kind that is an encoder to label tokens alone, by a layer
/// [`CLASSIFIER`].
pub(crate) struct TaggerSpec {
    pub prefix: &'static str,
    /// As [`About::tied`].
    pub tied: &'static [Tied],
    /// As [`About::always_tied`].
    pub always_tied: &'static [&'static str],
    pub hidden: i64,
    /// The longest text.
    pub max_positions: i64,
    /// Before the layer.
    pub dropout: f64,
}

/// The layer that makes classes of every token's state.
const CLASSIFIER: &str = "classifier";

/// How a kind makes classes or scores of a text's states, and of every token's.
pub(crate) struct TextHead {
    pub shape: HeadShape,
    /// The hidden layer, which may be the pooler that was pretrained.
    pub dense: &'static str,
    pub activation: Activation,
    /// The last layer, with a row for each class.
    pub out: &'static str,
    /// Before the hidden layer, and before the last.
    pub dropout: [f64; 2],
    /// Before the classes of every token, where a layer [`CLASSIFIER`] makes them.
    pub token_dropout: f64,
    /// The modules that train in full.
    pub modules: &'static [&'static str],
    /// The modules that a pretrained checkpoint may lack, as [`About::new_modules`].
    pub new_modules: &'static [&'static str],
    /// As [`About::may_lack`].
    pub may_lack: &'static [&'static str],
}

/// What sets the head of one kind apart from most others'.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadShape {
    pub pooling: Pooling,
    /// Whether the hidden layer has a bias.
    pub dense_bias: bool,
    /// A LayerNorm behind the activation.
    pub norm: Option<HeadNorm>,
    /// Whether the same layers make classes of every token, and not a layer [`CLASSIFIER`] alone.
    pub for_tokens: bool,
}

impl Default for HeadShape {
    /// The first token's state, a bias, no norm, and classes of tokens by a layer alone.
    fn default() -> Self {
        HeadShape { pooling: Pooling::First, dense_bias: true, norm: None, for_tokens: false }
    }
}

/// A head's LayerNorm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadNorm {
    pub name: &'static str,
    pub eps: f64,
    pub shift: bool,
}

/// The state that stands for a text, under its names in config.json.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Pooling {
    /// The first token's.
    #[serde(rename = "cls")]
    First,
    /// The mean of all tokens'.
    #[serde(rename = "mean")]
    Mean,
}

impl Pooling {
    /// Of `hidden`, `[batch, length, hidden]`, with `mask`, `[batch, length]`: `[batch, hidden]`.
    fn of(self, hidden: &Tensor, mask: &Tensor) -> Tensor {
        match self {
            Pooling::First => hidden.select(1, 0),
            Pooling::Mean => {
                let tokens = mask.unsqueeze(2);
                let sum = (hidden * &tokens).sum_dim_intlist(&[1i64][..], false, None);
                sum / tokens.sum_dim_intlist(&[1i64][..], false, None)
            }
        }
    }
}

impl TextHead {
    fn build(&self, root: &Scope, hidden: i64, labels: i64) -> DenseHead {
        let HeadShape { dense_bias, norm, .. } = self.shape;
        DenseHead {
            dense: match dense_bias {
                true => root.linear(self.dense, hidden, hidden),
                false => root.bare_linear(self.dense, hidden, hidden),
            },
            activation: self.activation,
            norm: norm.map(|norm| root.scale_norm(norm.name, hidden, norm.eps, norm.shift)),
            out: root.linear(self.out, hidden, labels),
            dropout: self.dropout,
        }
    }
}

/// Builds the encoder whose body `body` makes. Weights are zero until loaded or initialised.
///
/// # Errors
/// It is to write.
pub(crate) fn build<B: EncoderBody + 'static>(
    head: Head,
    options: &Options,
    spec: EncoderSpec,
    body: impl FnOnce(&Scope) -> B,
) -> Result<Box<dyn Backbone>> {
    let EncoderSpec { prefix, hidden, max_positions, head: text_head } = spec;
    let (of_tokens, labels) = match head {
        Head::Classes(labels) | Head::Scores(labels) => (false, labels),
        Head::Tokens(labels) => (true, labels),
        Head::Language => return Err(Error::does_not_write()),
    };
    if of_tokens && !text_head.shape.for_tokens {
        let dropout = text_head.token_dropout;
        let spec =
            TaggerSpec { prefix, tied: &[], always_tied: &[], hidden, max_positions, dropout };
        return Ok(build_tagger(labels, options, spec, body));
    }
    let about = About {
        head,
        prefix,
        head_modules: text_head.modules,
        new_modules: text_head.new_modules,
        may_lack: text_head.may_lack,
        class_rows: Some(text_head.out),
        tied: &[],
        always_tied: &[],
        optional: &[],
        max_positions,
    };
    Ok(assembled(options, about, |root| {
        let pooling = (!of_tokens).then_some(text_head.shape.pooling);
        let body = body(root);
        (body, OutputHead::Dense { pooling, head: text_head.build(root, hidden, labels) })
    }))
}

/// Builds the encoder whose body `body` makes, with so many classes of every token. Weights are zero
/// until loaded or initialised.
pub(crate) fn build_tagger<B: EncoderBody + 'static>(
    labels: i64,
    options: &Options,
    spec: TaggerSpec,
    body: impl FnOnce(&Scope) -> B,
) -> Box<dyn Backbone> {
    let TaggerSpec { prefix, tied, always_tied, hidden, max_positions, dropout } = spec;
    let layer = TokenHead { name: CLASSIFIER, modules: &[CLASSIFIER], dropout };
    let about = About {
        head: Head::Tokens(labels),
        prefix,
        head_modules: layer.modules,
        new_modules: layer.modules,
        may_lack: &[],
        class_rows: Some(layer.name),
        tied,
        always_tied,
        optional: &[],
        max_positions,
    };
    assembled(options, about, |root| {
        let body = body(root);
        (body, OutputHead::Layer(EachToken::new(root, &layer, hidden, labels)))
    })
}

/// An encoder of the parts that `parts` makes.
fn assembled<B: EncoderBody + 'static>(
    options: &Options,
    about: About,
    parts: impl FnOnce(&Scope) -> (B, OutputHead),
) -> Box<dyn Backbone> {
    let mut vs = options.var_store();
    let ((body, output_head), made) = scope::build(&mut vs, options, |root| parts(&root));
    let frame = Frame::new(vs, made, about);
    Box::new(Encoder { frame, body, output_head, checkpointing: options.checkpointing })
}

/// An encoder's head: what is computed from its hidden states.
#[derive(Debug)]
enum OutputHead {
    /// On the state that stands for a text, or, without a pooling, on every token's.
    Dense { pooling: Option<Pooling>, head: DenseHead },
    /// On every token's state.
    Layer(EachToken),
}

impl OutputHead {
    /// `hidden`, `[batch, length, hidden]`, and `mask`, `[batch, length]`, to logits.
    fn forward(&self, hidden: Tensor, mask: &Tensor, train: bool) -> Tensor {
        match self {
            OutputHead::Dense { pooling, head } => {
                let states = match pooling {
                    Some(pooling) => pooling.of(&hidden, mask),
                    None => hidden,
                };
                head.forward(states, train)
            }
            OutputHead::Layer(layer) => layer.forward(hidden, train),
        }
    }
}

/// An encoder of ours.
#[derive(Debug)]
struct Encoder<B> {
    frame: Frame,
    body: B,
    output_head: OutputHead,
    checkpointing: bool,
}

impl<B: EncoderBody> Backbone for Encoder<B> {
    fn forward(&self, batch: &Batch, train: bool) -> Result<Forward> {
        let (length, most) = (batch.input_ids.size()[1], self.frame.about.max_positions);
        if length > most {
            let words = format!("{length} tokens are more than the model's {most} positions");
            return Err(Error::Length(words));
        }
        batch.refuse_documents()?;
        let checkpointing = train && self.checkpointing;
        let (hidden, checkpoints) = self.body.forward(batch, train, checkpointing);
        let logits = self.output_head.forward(hidden, &batch.attention_mask, train);
        Ok(Forward::new(logits, checkpoints))
    }

    fn frame(&self) -> &Frame {
        &self.frame
    }

    fn untie(&self, name: &str) -> Option<Tensor> {
        self.body.untie(self.frame.vs.root(), name)
    }
}

//! What encoders of ours share: BERT and its kin and DeBERTa are an [`EncoderBody`] each,
//! everything else is here.

use crate::backbone::{About, Backbone, Forward, Frame};
use crate::batch::Batch;
use crate::heads::dense::DenseHead;
use crate::heads::each_token::{EachToken, TokenHead};
use crate::heads::Head;
use crate::nn::activation::Activation;
use crate::nn::scope::{self, Scope};
use crate::options::Options;
use crate::{Error, Result};
use aflora_core::Checkpoints;
use tch::Tensor;

/// An encoder's body: what differs from one kind of encoder to another.
pub(crate) trait EncoderBody: std::fmt::Debug {
    /// Hidden states, `[batch, length, hidden]`, of a batch that is not too long, with what a
    /// backward pass goes through where blocks are checkpointed.
    fn forward(&self, batch: &Batch, train: bool, checkpointing: bool) -> (Tensor, Checkpoints);
}

/// What all models of one kind of encoder have in common beside their bodies.
pub(crate) struct EncoderSpec {
    pub prefix: &'static str,
    pub hidden: i64,
    /// The longest text.
    pub max_positions: i64,
    pub vocab_size: i64,
    pub head: TextHead,
}

/// The layer that makes classes of every token's state.
const CLASSIFIER: &str = "classifier";

/// How a kind makes classes or scores of the state of a text's first token, and of every token's.
pub(crate) struct TextHead {
    /// The hidden layer, which may be the pooler that was pretrained.
    pub dense: &'static str,
    pub activation: Activation,
    /// The last layer, with a row for each class.
    pub out: &'static str,
    /// Before the hidden layer, and before the last.
    pub dropout: [f64; 2],
    /// Before the classes of every token, which a layer [`CLASSIFIER`] makes.
    pub token_dropout: f64,
    /// The modules that train in full.
    pub modules: &'static [&'static str],
    /// The modules that a pretrained checkpoint may lack.
    pub new_modules: &'static [&'static str],
}

impl TextHead {
    fn build(&self, root: &Scope, hidden: i64, labels: i64) -> DenseHead {
        DenseHead {
            dense: root.linear(self.dense, hidden, hidden),
            activation: self.activation,
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
    let EncoderSpec { prefix, hidden, max_positions, vocab_size, head: text_head } = spec;
    let token_head =
        TokenHead { name: CLASSIFIER, modules: &[CLASSIFIER], dropout: text_head.token_dropout };
    let tokens = match head {
        Head::Classes(labels) | Head::Scores(labels) => (false, labels),
        Head::Tokens(labels) => (true, labels),
        Head::Language => return Err(Error::does_not_write()),
    };
    let (modules, new_modules, class_rows) = match tokens {
        (true, _) => (token_head.modules, token_head.modules, CLASSIFIER),
        (false, _) => (text_head.modules, text_head.new_modules, text_head.out),
    };
    let about = About {
        head,
        prefix,
        head_modules: modules,
        new_modules,
        class_rows: Some(class_rows),
        tied: &[],
        optional: &[],
        max_positions,
        vocab_size,
    };
    let mut vs = options.var_store();
    let ((body, output_head), linears) = scope::build(&mut vs, |root| {
        let body = body(&root);
        let output_head = match tokens {
            (true, n) => OutputHead::Tokens(EachToken::new(&root, &token_head, hidden, n)),
            (false, n) => OutputHead::Text(text_head.build(&root, hidden, n)),
        };
        (body, output_head)
    });
    let frame = Frame { vs, linears, about };
    Ok(Box::new(Encoder { frame, body, output_head, checkpointing: options.checkpointing }))
}

/// An encoder's head: what is computed from its hidden states.
#[derive(Debug)]
enum OutputHead {
    Text(DenseHead),
    Tokens(EachToken),
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
        let logits = match &self.output_head {
            OutputHead::Text(head) => head.forward(hidden.select(1, 0), train),
            OutputHead::Tokens(head) => head.forward(hidden, train),
        };
        Ok(Forward::new(logits, checkpoints))
    }

    fn frame(&self) -> &Frame {
        &self.frame
    }
}

//! The heads of encoder-decoders.

use super::spec::EncoderDecoderSpec;
use crate::batch::Batch;
use crate::heads::dense::DenseHead;
use crate::heads::language::LanguageHead;
use crate::heads::states::{last, states_at};
use crate::next_tokens::NextTokenHead;
use crate::nn::activation::Activation;
use crate::nn::scope::Scope;
use aflora_core::kernels::Logits;
use aflora_core::nn::{self, NamedLinear};
use tch::{Kind, Tensor};

/// The next token's logits.
#[derive(Debug)]
pub(super) struct NextToken {
    head: LanguageHead,
    /// What states are multiplied by before.
    scale: Option<f64>,
    /// What is added to logits, `[1, vocabulary]`.
    bias: Option<Tensor>,
}

impl NextToken {
    pub fn new(root: &Scope, shared: &nn::Embedding, spec: &EncoderDecoderSpec) -> Self {
        let size = [1, shared.ws.size()[0]];
        let bias = || root.path().var("final_logits_bias", &size, nn::Init::Const(0.0));
        NextToken {
            bias: spec.logits_bias.then(bias),
            head: LanguageHead::new(shared, None, None),
            scale: spec.states_scale,
        }
    }

    /// See [`LanguageHead::untie`].
    pub fn untie(&self, root: nn::Path, name: &str) -> Option<Tensor> {
        self.head.untie(root, name)
    }

    /// See [`LanguageHead::untied`].
    pub fn untied(&self) -> Option<NamedLinear> {
        self.head.untied()
    }
}

impl NextTokenHead for NextToken {
    fn logits(&self, states: &Tensor) -> Logits {
        let logits = match self.scale {
            Some(scale) => self.head.logits(&(states * scale)),
            None => self.head.logits(states),
        };
        Logits { bias: self.bias.as_ref().map(|bias| bias.to_kind(Kind::Float).view(-1)), ..logits }
    }

    fn vocabulary(&self) -> i64 {
        self.head.vocabulary()
    }
}

/// Classes or a score of the decoder's state at the end of the text, which encoder and decoder
/// both read (Lewis et al. 2020, §3.1).
#[derive(Debug)]
pub(super) struct EndOfText {
    head: DenseHead,
    /// The decoder's first token, and the token that ends a text.
    start: i64,
    end: i64,
}

impl EndOfText {
    pub fn new(
        root: &Scope,
        spec: &EncoderDecoderSpec,
        labels: i64,
        [start, end]: [i64; 2],
    ) -> Self {
        let scope = root / "classification_head";
        let head = DenseHead {
            dense: scope.linear("dense", spec.hidden, spec.hidden),
            activation: Activation::Tanh,
            norm: None,
            out: scope.linear("out_proj", spec.hidden, labels),
            dropout: [spec.classifier_dropout; 2],
        };
        EndOfText { head, start, end }
    }

    /// What the decoder reads: the text's ids `[batch, length]`, a place to the right.
    pub fn read(&self, ids: &Tensor) -> Tensor {
        let (batch, length) = (ids.size()[0], ids.size()[1]);
        let first = Tensor::full([batch, 1], self.start, (Kind::Int64, ids.device()));
        Tensor::cat(&[first, ids.narrow(1, 0, length - 1)], 1)
    }

    /// The decoder's states `[batch, length, hidden]` to `[batch, labels]`. As in transformers the
    /// last end token's state counts; of a text without one, which is refused there, that of its
    /// last token.
    pub fn forward(&self, hidden: &Tensor, batch: &Batch, train: bool) -> Tensor {
        let real = batch.attention_mask.ne(0).to_kind(Kind::Int64);
        let ends = batch.input_ids.eq(self.end).to_kind(Kind::Int64) * (hidden.size()[1] + 1);
        let at = last(&((ends + 1) * real));
        self.head.forward(states_at(hidden, &at), train)
    }
}

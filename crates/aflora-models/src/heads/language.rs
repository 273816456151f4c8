//! The next token: a product with the word embeddings themselves, or with a weight of its own.

use crate::next_tokens::NextTokenHead;
use crate::nn::linear::{with_bias, zeros};
use aflora_core::nn::{self, Embedding, Linear, Module, NamedLinear};
use aflora_core::Block;
use std::cell::OnceCell;
use tch::Tensor;

/// The module's name in most checkpoints.
pub(crate) const NAME: &str = "lm_head";

/// Logits of the next token from each token's hidden state.
#[derive(Debug)]
pub(crate) struct LanguageHead {
    /// The word embeddings, `[vocabulary, hidden]`.
    words: Tensor,
    /// Empty where the words are the head too.
    own: OnceCell<Linear>,
    /// The own layer, where the head got it after it was built.
    untied: OnceCell<NamedLinear>,
    /// What logits are bent below.
    softcap: Option<f64>,
}

impl LanguageHead {
    /// A head whose weight is `words`, or `own` where there is one; its logits are
    /// c · tanh(logit / c) of a `softcap` c.
    pub fn new(words: &Embedding, own: Option<Linear>, softcap: Option<f64>) -> Self {
        let own = own.map_or_else(OnceCell::new, OnceCell::from);
        LanguageHead { words: words.ws.shallow_clone(), own, untied: OnceCell::new(), softcap }
    }

    /// Gives a head that is tied to the word embeddings a weight of its own, frozen, of this `name`
    /// below the model's `root`, and gives that weight, `[vocabulary, hidden]`. None if the head
    /// has one.
    pub fn untie(&self, root: nn::Path, name: &str) -> Option<Tensor> {
        // A second one would take another name in the store.
        if self.own.get().is_some() {
            return None;
        }
        let (vocabulary, hidden) = self.words.size2().ok()?;
        let name = name.strip_suffix(".weight")?;
        let own = nn::linear(root / name, hidden, vocabulary, with_bias(zeros(), false));
        let weight = own.ws.set_requires_grad(false);
        let layer = NamedLinear::new(name, Block::Ffn, own.slot());
        self.untied.set(layer).ok()?;
        self.own.set(own).ok()?;
        Some(weight)
    }

    /// The layer that [`untie`](Self::untie) made.
    pub fn untied(&self) -> Option<NamedLinear> {
        self.untied.get().cloned()
    }
}

impl NextTokenHead for LanguageHead {
    fn logits(&self, states: &Tensor) -> Tensor {
        let logits = match self.own.get() {
            Some(own) => own.forward(states),
            None => states.linear(&self.words, None::<&Tensor>),
        };
        match self.softcap {
            Some(cap) => (logits / cap).tanh() * cap,
            None => logits,
        }
    }

    fn vocabulary(&self) -> i64 {
        self.words.size()[0]
    }
}

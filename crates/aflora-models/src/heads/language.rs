//! The next token: a product with the word embeddings themselves, or with a weight of its own.

use crate::next_tokens::NextTokenHead;
use crate::nn::linear::{with_bias, zeros};
use aflora_core::kernels::Logits;
use aflora_core::nn::{self, Embedding, Linear, Module, NamedLinear};
use aflora_core::Block;
use std::cell::OnceCell;
use tch::{Device, Kind, Tensor};

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
    fn logits(&self, states: &Tensor) -> Logits {
        let logits = match self.own.get() {
            Some(own) => own.forward(states).into(),
            None if self.softcap.is_none() && splits(states, &self.words) => {
                in_parts(states, &self.words)
            }
            None => states.linear(&self.words, None::<&Tensor>).into(),
        };
        match self.softcap {
            Some(cap) => ((logits.first / cap).tanh() * cap).into(),
            None => logits,
        }
    }

    fn vocabulary(&self) -> i64 {
        self.words.size()[0]
    }
}

/// Numbers in bf16 that the tensor cores read at once.
const EVEN: i64 = 8;

/// Whether the product with frozen `words` is better made [`in_parts`].
fn splits(states: &Tensor, words: &Tensor) -> bool {
    matches!(states.device(), Device::Cuda(_))
        && states.kind() == Kind::BFloat16
        && !words.requires_grad()
        && words.size()[0] > EVEN
        && words.size()[0] % EVEN != 0
}

/// `states` times the transposed `words`, for a vocabulary that is no multiple of eight: GPT-2's 50,257 and BART's 50,265
/// words. libtorch has slow kernels alone for rows of such a length (on an H100 the product takes seven times as long, its
/// gradient five), so the last few words have a product of their own.
fn in_parts(states: &Tensor, words: &Tensor) -> Logits {
    let all = words.size()[0];
    let even = all - all % EVEN;
    let product = |begin, count| states.linear(&words.narrow(0, begin, count), None::<&Tensor>);
    Logits { first: product(0, even), rest: Some(product(even, all - even)), bias: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_in_parts_is_the_product() {
        tch::manual_seed(3);
        let cpu = (Kind::Float, Device::Cpu);
        let words = Tensor::randn([21, 12], cpu).to_kind(Kind::BFloat16);
        let states = Tensor::randn([2, 5, 12], cpu).to_kind(Kind::BFloat16);
        let toward = Tensor::randn([2, 5, 21], cpu);
        let of = |product: &dyn Fn(&Tensor) -> Tensor| {
            let states = states.detach().copy().set_requires_grad(true);
            let logits = product(&states);
            let loss = (&logits * &toward).sum(Kind::Float);
            (logits.detach(), Tensor::run_backward(&[&loss], &[&states], false, false).remove(0))
        };
        let (logits, gradient) = of(&|states| in_parts(states, &words).whole());
        let whole = |states: &Tensor| states.linear(&words, None::<&Tensor>).to_kind(Kind::Float);
        let (expected, of_whole) = of(&whole);
        assert_eq!(logits, expected);
        let error = (&gradient - &of_whole).abs().max().double_value(&[]);
        assert!(error <= of_whole.abs().max().double_value(&[]) / 64.0, "{error:e}");
        assert!(!splits(&states, &words), "on a CPU");
    }
}

//! The choice of the next tokens of texts of one beam, which never leaves the device.

use super::past::Past;
use super::rules::Rules;
use super::sample::{drawn, filtered};
use super::{GenerationConfig, SpecialTokens};
use tch::{Kind, Tensor};

#[derive(Debug)]
pub(super) struct Chooser<'a> {
    pub config: &'a GenerationConfig,
    pub tokens: &'a SpecialTokens,
}

impl Chooser<'_> {
    /// The next token of each text, `[texts]`, by its logits, `[texts, vocabulary]`.
    pub fn choose(
        &self,
        logits: Tensor,
        past: Option<&Past>,
        written: &Tensor,
        chances: Option<&Tensor>,
    ) -> Tensor {
        let rules = Rules { config: self.config, tokens: self.tokens };
        let scores = rules.apply(logits.to_kind(Kind::Float), past, written);
        match chances.filter(|_| self.config.do_sample) {
            Some(chances) => drawn(&filtered(scores, self.config), chances),
            None => scores.argmax(1, false),
        }
    }
}

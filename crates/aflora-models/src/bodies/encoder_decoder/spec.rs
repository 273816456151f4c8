//! What sets one kind of encoder-decoder apart beside its body.

use crate::backbone::Tied;

/// What all models of one kind have in common beside their bodies.
pub(crate) struct EncoderDecoderSpec {
    pub hidden: i64,
    pub max_positions: i64,
    pub vocab_size: i64,
    /// The checkpoint prefix and the word embeddings' further names, of a model that writes (the
    /// head's among them) and of one for labels.
    pub names: [(&'static str, &'static [Tied]); 2],
    /// As [`About::always_tied`](crate::About::always_tied).
    pub always_tied: &'static [&'static str],
    /// Whether logits of words have a bias of their own, `final_logits_bias`.
    pub logits_bias: bool,
    /// What states are multiplied by before the language head.
    pub states_scale: Option<f64>,
    pub classifier_dropout: f64,
}

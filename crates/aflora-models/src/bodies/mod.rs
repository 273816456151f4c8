//! The networks.

pub(crate) mod bart;
pub(crate) mod bert_like;
pub(crate) mod deberta;
pub(crate) mod decoder;
pub(crate) mod encoder;
pub(crate) mod encoder_decoder;
pub(crate) mod gpt;
pub(crate) mod llama_like;
pub(crate) mod modernbert;
pub(crate) mod t5;

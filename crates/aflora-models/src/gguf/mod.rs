//! GGUF, llama.cpp's files: a model whole in one, its config, tokenizer and chat template in the
//! header, its weights mostly in blocks of few bits.
//!
//! * `header`, `value`, `cursor`: the header's keys and tensors, each count checked before it is
//!   believed
//! * `format`: how numbers lie in a tensor; what blocks of them stand for is `aflora_core::weight`'s to say
//! * `architecture`, `arrangement`: which tensor is which of Hugging Face's, and how it stands to it
//! * `model`: the config.json that a header stands for; `family`, `own_keys`, `rope`, `yarn`, `gemma`, `phi3`: what
//!   those of some kinds of models have of their own, both ways; `families`: all of it together
//! * `tokenizer`, `pre_tokenizer`: its tokenizer's files; `folder`: all files that it stands for
//! * `writer`, `precision`, `quantise`, `from_config`, `from_tokenizer`, `from_merges`: files of our own

mod architecture;
mod arrangement;
mod cursor;
mod families;
mod family;
mod folder;
mod format;
mod from_config;
mod from_merges;
mod from_tokenizer;
mod gemma;
mod header;
mod model;
mod own_keys;
mod phi3;
mod pre_tokenizer;
mod precision;
mod quantise;
mod rope;
mod tokenizer;
mod value;
mod writer;
mod yarn;

pub(crate) use arrangement::Arrangement;
pub(crate) use folder::{file, has};
pub(crate) use format::Format;
pub(crate) use from_config::ModelKeys;
pub(crate) use from_merges::pieces as pieces_of_merges;
pub(crate) use from_tokenizer::{byte_level, sentencepiece};
pub(crate) use header::Header;
pub(crate) use model::ModelHeader;
pub use precision::Precision;
pub use writer::GgufFile;
pub(crate) use writer::Written;

/// What a file's name ends with.
pub(crate) const EXTENSION: &str = "gguf";
/// The format's name.
pub(crate) const FORMAT: &str = "GGUF";

/// A tensor in single precision whose numbers are those that a file in `precision` gives back.
///
/// # Errors
/// libtorch refuses.
pub fn rounded(tensor: &tch::Tensor, precision: Precision) -> crate::Result<tch::Tensor> {
    Ok(quantise::rounded(tensor, precision)?)
}

/// Whether the file that begins with `bytes` is of this format.
pub(crate) fn is_gguf(bytes: &[u8]) -> bool {
    bytes.starts_with(header::MAGIC)
}

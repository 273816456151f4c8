//! Backbones, and the injection of adapters into them.
//!
//! * [`backbone`]: what a model must tell and do to be fine-tuned; `registry`: the kinds there are
//! * `bodies`: the networks: encoders, decoders, an encoder-decoder
//! * `heads`: what makes answers of a body's hidden states
//! * `nn`: parts that bodies of several kinds are made of
//! * [`Inference`]: logits without gradients, batch after batch
//! * [`generate`]: writing text, a token at a time
//! * [`chat`]: conversations as text, by a model's own template
//! * [`targets`]: which linear layers get an adapter
//! * [`adapted`]: a backbone with adapters in it, on the pieces by which any model of
//!   [`aflora_core::nn`] takes adapters ([`aflora_core::Injection`])
//! * [`adapter_folder`]: adapters on disk, in the layout of Hugging Face PEFT
//! * [`merged`]: a fine-tuned model as a plain model folder; [`merged_gguf`]: as llama.cpp's file, [`gguf`]
//! * [`rounding`]: what it costs to store merged weights in fewer bits
//! * [`weights`]: pretrained weights by name
//! * [`tokenizer`]: text to token ids
//! * [`model_file`]: what a model's folder holds, or a GGUF file in its place
//! * [`mapped`], [`panics`]: files mapped into memory; libraries that panic
//!   on damaged files

#![deny(unsafe_code)]

pub mod adapted;
pub mod adapter_folder;
pub mod backbone;
mod batch;
mod bodies;
pub mod chat;
mod claims;
mod companions;
mod config_file;
mod documents;
mod error;
mod foreign_file;
pub mod generate;
pub mod gguf;
mod heads;
mod inference;
mod json;
#[allow(unsafe_code)]
pub mod mapped;
pub mod merged;
pub mod merged_gguf;
pub mod model_file;
mod next_tokens;
mod nn;
mod options;
pub mod panics;
pub mod quantised_base;
mod registry;
pub mod rounding;
mod said;
pub mod targets;
pub mod tokenizer;
pub mod weights;
mod written;

pub use adapted::AdaptedModel;
pub use aflora_core::shapes_only;
pub use backbone::{About, Backbone, Forward, Frame};
pub use batch::Batch;
pub use chat::{Chat, ChatTemplate};
pub use companions::ModelSource;
pub use documents::Documents;
pub use error::{Error, Result};
pub use heads::Head;
pub use inference::Inference;
pub use next_tokens::NextTokens;
pub use options::Options;
pub use registry::{build, check_kind, kind_of, kinds, Usual};
pub use said::tell_oddities_at_debug_level;
pub use targets::{Pattern, Targets};
pub use tokenizer::TextEncoder;

/// The snippets of the README compile and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

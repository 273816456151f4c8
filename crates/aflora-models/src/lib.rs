//! Backbones, and the injection of adapters into them.
//!
//! * [`backbone`]: what a model must tell and do to be fine-tuned
//! * [`deberta`]: DeBERTa-v2 and v3, ours
//! * [`llama`], [`gpt`]: decoders, ours, on what `causal` shares
//! * [`bart`]: an encoder-decoder, ours
//! * [`rust_bert`]: rust-bert's models as backbones, a wrapper of a few lines each
//! * [`generate`]: writing text, a token at a time
//! * [`targets`]: which linear layers get an adapter
//! * [`adapted`]: a backbone with adapters in it
//! * [`adapter_folder`]: adapters on disk, in the layout of Hugging Face PEFT
//! * [`merged`]: a fine-tuned model as a plain model folder
//! * [`weights`]: pretrained weights by name
//! * [`tokenizer`]: text to token ids
//! * [`mapped`], [`foreign`]: files mapped into memory; libraries that panic
//!   on damaged files

#![deny(unsafe_code)]

mod activation;
pub mod adapted;
pub mod adapter_folder;
pub mod backbone;
pub mod bart;
mod causal;
mod claims;
mod companions;
mod config_file;
pub mod deberta;
mod error;
pub mod foreign;
mod foreign_file;
pub mod generate;
pub mod gpt;
mod json;
mod layers;
pub mod llama;
#[allow(unsafe_code)]
pub mod mapped;
pub mod merged;
pub mod rust_bert;
mod said;
pub mod targets;
pub mod tokenizer;
pub mod weights;
mod written;

pub use adapted::AdaptedModel;
pub use backbone::{
    build, build_writer, check_kind, kind_of, kinds, shapes_only, Backbone, Batch,
    InjectableLinear, Purpose, Usual, WriterOptions,
};
pub use error::{Error, Result};
pub use targets::{Pattern, Targets};
pub use tokenizer::TextEncoder;

//! Adapters on disk, in the layout of Hugging Face PEFT: `adapter_config.json` and
//! `adapter_model.safetensors`, keys `base_model.model.<layer>.lora_A.weight`, the head beside
//! them under its own name.
//!
//! Folders of methods that PEFT knows go both ways: PEFT opens ours, we open PEFT's. Plain LoRA is
//! written for llama.cpp, too.

mod allowed;
mod beside;
mod gguf;
mod layers;
mod names;
mod open;
mod pairs;
mod peft;
mod tables;
mod write;

pub use gguf::export_gguf;
pub use names::WEIGHTS;
pub use open::AdapterFolder;
pub use peft::{BaseModel, Description, TaskType, FILE as CONFIG};
pub use write::{export, export_pairs, save, save_with_tokenizer};

//! LLaMA and its kin: one decoder, of which every family is a `Description`.
//!
//! Ours, as rust-bert has none. Written from the papers (Touvron et al. 2023; Grattafiori et al.
//! 2024, and those that the families name) and the released configs, and held to the logits,
//! gradients and texts of transformers by tests. A family is a short file that fills in a
//! description from the keys of its config.json, and refuses by name what is not built.

mod block;
pub(crate) mod description;
pub(crate) mod gemma;
pub(crate) mod gpt_neox;
pub(crate) mod llama;
pub(crate) mod mistral;
mod network;
pub(crate) mod phi3;
pub(crate) mod qwen;
pub(crate) mod rope;
pub(crate) mod smollm3;
mod windows;

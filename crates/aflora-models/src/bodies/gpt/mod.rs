//! The GPTs: GPT-2, GPT-Neo and GPT-J.
//!
//! They differ in their blocks, each of which has a file; what stands before and behind these is
//! here. Held to the logits, gradients and texts of transformers by tests.

pub(crate) mod gpt2;
pub(crate) mod gpt_j;
pub(crate) mod gpt_neo;
mod network;
mod sizes;

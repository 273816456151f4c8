//! Models, their files and their adapters, beside what the Python ecosystem makes of the same.

#[path = "../common/mod.rs"]
mod common;

mod attach;
mod backbones;
mod chat;
mod chat_masks;
mod contradictions;
mod damaged;
mod decoders;
mod exchange;
mod files;
mod lacked;
mod mpnet_base;
mod parity;
mod round_trip;
mod smollm2;
mod tokens;
mod writer_exchange;
mod writers;

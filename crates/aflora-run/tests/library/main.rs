//! What the command is made of, called as functions.

#[path = "../common/mod.rs"]
mod common;

mod config;
mod data;
mod forms;
mod metrics;
mod updates;

//! What the project says of itself holds: that its files stand in an order, that its documents lead
//! to what is there, and that the commands in them work.

#[path = "../common/mod.rs"]
mod common;

mod circles;
mod commands;
#[path = "../common/documents.rs"]
mod documents;
mod links;

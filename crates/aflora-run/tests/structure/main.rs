//! What the project says of itself holds: that its files stand in an order, that its documents lead
//! to what is there, that the commands in them work, that a release is what its README says, and that scripts are not taken for
//! Python's own modules.

#[path = "../common/mod.rs"]
mod common;

mod circles;
mod commands;
#[path = "../common/documents.rs"]
mod documents;
mod links;
mod release;
mod scripts;

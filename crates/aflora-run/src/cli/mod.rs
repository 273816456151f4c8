//! Subcommands that are more than a call into the library.

pub mod experiment;

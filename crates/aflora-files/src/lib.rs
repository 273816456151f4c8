//! Files and names that come from elsewhere, handled with care in one place, without libtorch.
//!
//! | module | what it is for |
//! |---|---|
//! | [`read`](mod@read) | opening and reading what a user names: no pipe keeps us waiting, no device fills the memory |
//! | [`lines`] | lines of a log of any length, one at a time |
//! | [`write`](mod@write) | files and folders that appear whole or not at all, through no link that somebody laid |
//! | [`output`] | files that a user named as an output, found fit before the work for them begins |
//! | [`own`] | logs, locks and downloads of ours, written where they stand |
//! | [`names`] | names out of a file, which must not lead out of their folder |
//! | [`printable`](mod@printable) | text out of a file, made safe for a terminal |

pub mod lines;
pub mod names;
pub mod output;
pub mod own;
pub mod printable;
pub mod read;
pub mod write;

pub use names::inside;
pub use output::Output;
pub use own::open_to_append;
pub use printable::{printable, printable_json, printable_line};
pub use read::{open, read, read_at_most, read_text, read_text_at_most};
pub use write::{replace_folder, write, write_with};

/// The snippet of the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

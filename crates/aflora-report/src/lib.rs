//! What runs and experiments left, shown. Everything comes from [`aflora_record`]; nothing here
//! needs libtorch.
//!
//! * [`report`]: tables, charts and a page from the results of experiments
//! * [`watch`]: a run under way, on the terminal
//! * [`list`]: the runs in a folder, one a line
//! * [`words`]: numbers, durations and errors as people read them

pub mod error;
pub mod list;
pub mod report;
pub mod watch;
pub mod words;

pub use error::{Error, Result};

/// The snippet of the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

//! What a run leaves, and what others read of it: one schema, one writer and one reader a file,
//! without libtorch.
//!
//! | module | file | written |
//! |---|---|---|
//! | [`settings`] | `config.yaml` | at the start: the resolved configuration |
//! | [`provenance`] | `provenance.json` | at the start: versions, device, data and weights with their digests |
//! | [`event`], [`recorder`], [`history`] | `events.jsonl` | while it runs: steps, freeze tests, evaluations |
//! | `tensorboard` | `events.out.tfevents.*` | while it runs: the same as scalars for TensorBoard |
//! | [`gradients`] | `gradients.bin` | while it runs, if asked for: gradients for `aflora replay` |
//! | [`freezes`] | `freeze.csv` | at the end: when each matrix froze |
//! | [`summary`] | `metrics.json` | last: what the run is judged by |
//! | [`results`], [`finding`] | `experiments/results/*.json` | of many runs: what an experiment found |
//!
//! [`names`] has the names of a run's files, [`evaluation`] the rule which epoch is
//! best, [`by_class`] precision and recall. Readers
//! pass over fields that they do not know, so that what a later version writes can be read; files
//! may come from anywhere, so that each is bounded in what it may hold.

pub mod by_class;
pub mod error;
pub mod evaluation;
pub mod event;
pub mod finding;
pub mod freezes;
pub mod gradients;
pub mod history;
pub mod json;
pub mod names;
pub mod provenance;
pub mod recorder;
pub mod results;
pub mod settings;
pub mod summary;
pub mod tail;
mod tensorboard;

pub use by_class::ByClass;
pub use error::{Error, Result};
pub use evaluation::{Evaluation, Selection};
pub use event::Event;
pub use history::History;
pub use provenance::Provenance;
pub use recorder::Recorder;
pub use results::Results;
pub use settings::Settings;
pub use summary::Summary;

/// The snippet of the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

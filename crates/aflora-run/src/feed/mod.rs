//! Rows of files, wherever they lie and whatever their form.
//!
//! * [`source`]: where a task's rows lie and what their columns are called, as its file says it
//! * [`locate`]: where they are looked for
//! * [`mod@read`]: the rows of a file, whatever its form
//! * [`table`]: rows of CSV, TSV and JSONL files, for training and for `predict`
//! * `parquet`, `lines`, [`bounded`]: the hub's tables; lines, and records of a size that a record
//!   can have

pub mod bounded;
mod error;
mod lines;
pub mod locate;
mod parquet;
pub mod read;
pub mod source;
pub mod table;

pub(crate) use error::short;
pub use error::DataError;
pub use locate::{Dataset, Locator};
pub use source::{DatasetSpec, Source, TRAIN};

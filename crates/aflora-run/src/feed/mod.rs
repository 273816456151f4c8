//! Rows of files, wherever they lie and whatever their form.
//!
//! * [`source`]: where a task's rows lie and what their columns are called, as its file says it
//! * [`locate`]: where they are looked for
//! * [`mod@read`]: the rows of a file, whatever its form
//! * [`row`]: a row
//! * [`table`]: rows of CSV, TSV and JSONL files, for training and for `predict`
//! * `csv`, `json`, `parquet`, `conll`: the forms of files
//! * `lines`, [`bounded`]: lines, and records of a size that a record can have
//! * `unpack`: packed files
//! * `draw`: rows that are held out to evaluate on
//! * `notes`: what is told of rows that are read all the same

pub mod bounded;
mod conll;
mod csv;
mod draw;
mod error;
mod json;
mod lines;
pub mod locate;
mod notes;
mod parquet;
pub mod read;
pub mod row;
pub mod source;
pub mod table;
pub(crate) mod unpack;

pub(crate) use error::short;
pub use error::DataError;
pub use locate::{Dataset, Locator};
pub use source::{is_known_form, DatasetSpec, Source, TRAIN};

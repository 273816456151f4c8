//! JSON files, written whole and read with a bound; what JSON cannot say.

use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use std::path::Path;

/// The most bytes of a JSON file of a run: some hundred thousand evaluations have less.
const MOST: u64 = 64 << 20;

/// Reads a JSON file of a run, which may have come from anywhere; `what` it should be.
///
/// # Errors
/// It cannot be read, is longer than any run's, or is something else.
pub fn read<T: DeserializeOwned>(path: &Path, what: &'static str) -> Result<T> {
    let bytes = aflora_files::read_at_most(path, MOST).map_err(Error::read(path))?;
    serde_json::from_slice(&bytes).map_err(Error::content(path, what))
}

/// Writes a file that appears whole or not at all, as indented JSON.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = indented(value).map_err(|e| Error::write(path)(e.into()))?;
    aflora_files::write(path, &text).map_err(Error::write(path))
}

/// As indented JSON with an end of line.
///
/// # Errors
/// The value has a form that JSON has not.
pub fn indented(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

/// JSON has no number that is none: it is written as null, and read as NaN.
///
/// # Errors
/// It is neither a number nor null.
pub fn null_is_nan<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(from)?.unwrap_or(f64::NAN))
}

/// The value of a number that is not there.
pub(crate) fn nan() -> f64 {
    f64::NAN
}

//! Named fp32 tensors as one safetensors file, whatever they are: what a run keeps to go on.

use super::Checkpoint;
use crate::error::Listing;
use crate::written::write_safetensors;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Writes tensors, in single precision, to a new safetensors file.
///
/// # Errors
/// The file cannot be written.
pub fn write_tensors(path: &Path, tensors: BTreeMap<String, Tensor>) -> Result<()> {
    write_safetensors(path, tensors)
}

/// All tensors of a file by name, each in the shape that it has there, in single precision, on the
/// host.
///
/// # Errors
/// The file is missing or damaged, or holds something else beside.
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let file = Checkpoint::open(path)?;
    if let Some((name, _)) = file.unread().next() {
        let problems = Listing(vec![file.missing(name)]);
        return Err(Error::Weights { path: path.to_path_buf(), problems });
    }
    let read = |(name, shape): (&str, &[i64])| {
        let mut tensor = Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        file.copy_to(name, &mut tensor)?;
        Ok((name.to_string(), tensor))
    };
    file.shapes().map(read).collect()
}

//! A tensor of a mapped file, copied to its place in a model. Unsafe code: libtorch is given a
//! pointer into the map.

use super::contents::TensorEntry;
use crate::{Error, Result};
use std::path::Path;
use tch::{Device, Tensor};

/// Copies the tensor that lies at `entry` of the file `path`, whose content is `bytes`, to `target`.
/// Outside it would be refused.
pub(super) fn copy(
    path: &Path,
    bytes: &[u8],
    entry: &TensorEntry,
    target: &mut Tensor,
) -> Result<()> {
    let extent = entry.extent().and_then(|extent| {
        let end = extent.checked_add(entry.offset)?;
        bytes.get(entry.offset..end)
    });
    let Some(own) = extent else {
        let problem = "a tensor lies outside it".into();
        return Err(Error::Damaged { path: path.to_path_buf(), format: "checkpoint", problem });
    };
    // u64s are aligned for every kind.
    let mut aligned: Vec<u64> = Vec::new();
    let start = if own.as_ptr().align_offset(entry.kind.elt_size_in_bytes()) == 0 {
        own.as_ptr()
    } else {
        let word = |chunk: &[u8]| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        };
        aligned.extend(own.chunks(8).map(word));
        aligned.as_ptr().cast()
    };
    // SAFETY: from `start` on lie the bytes of `own` or a copy of them, as many as shape and
    // strides reach, aligned for the kind; both outlive the view, which is only read.
    let view = unsafe {
        Tensor::f_from_blob(start, &entry.shape, &entry.stride, entry.kind, Device::Cpu)?
    };
    target.f_copy_(&view)?;
    Ok(())
}

/// The tensor that lies at `entry` of a file, in the kind that it has there.
pub(super) fn owned(path: &Path, bytes: &[u8], entry: &TensorEntry) -> Result<Tensor> {
    let mut owned = Tensor::f_empty(&entry.shape, (entry.kind, Device::Cpu))?;
    copy(path, bytes, entry, &mut owned)?;
    Ok(owned)
}

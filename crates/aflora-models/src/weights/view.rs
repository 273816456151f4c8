//! A tensor of a mapped file, copied to its place in a model. Unsafe code: libtorch is given a
//! pointer into the map.

use super::contents::{contiguous, Layout, TensorEntry};
use crate::{Error, Result};
use aflora_core::weight::{restore_blocks, BlockFormat};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// The bytes of the tensor at `entry` of the file `path`, whose content is `bytes`. Outside it would be
/// refused.
fn own<'a>(path: &Path, bytes: &'a [u8], entry: &TensorEntry) -> Result<&'a [u8]> {
    let extent = entry.extent().and_then(|extent| {
        let end = extent.checked_add(entry.offset)?;
        bytes.get(entry.offset..end)
    });
    extent.ok_or_else(|| {
        let problem = "a tensor lies outside it".into();
        Error::Damaged { path: path.to_path_buf(), format: "checkpoint", problem }
    })
}

/// The matrix in blocks that lies at `entry` of the file `path`, whose content is `bytes`, as the
/// model's own rows of bytes, on the host; none of another layout, and of rows that are no whole blocks.
pub(super) fn blocks(
    path: &Path,
    bytes: &[u8],
    entry: &TensorEntry,
) -> Result<Option<(BlockFormat, Tensor)>> {
    let (Layout::Blocks(format), [rows, columns]) = (&entry.layout, &entry.shape[..]) else {
        return Ok(None);
    };
    if rows * columns == 0 || columns % format.numbers() as i64 != 0 {
        return Ok(None);
    }
    let stored = Tensor::f_from_slice(own(path, bytes, entry)?)?.f_view([*rows, -1])?;
    let own = entry.arrangement.undone(&stored)?.f_contiguous()?;
    Ok(Some((*format, own)))
}

/// Copies the tensor that lies at `entry` of the file `path`, whose content is `bytes`, to `target`.
/// Outside it would be refused.
pub(super) fn copy(
    path: &Path,
    bytes: &[u8],
    entry: &TensorEntry,
    target: &mut Tensor,
) -> Result<()> {
    let own = own(path, bytes, entry)?;
    match &entry.layout {
        Layout::Strided(kind, stride) => copy_strided(own, entry, *kind, stride, target),
        Layout::Blocks(format) => copy_blocks(own, entry, *format, target),
        // Has no extent, and is read by its parts.
        Layout::Codes(_) => Ok(()),
    }
}

fn copy_strided(
    own: &[u8],
    entry: &TensorEntry,
    kind: Kind,
    stride: &[i64],
    target: &mut Tensor,
) -> Result<()> {
    // u64s are aligned for every kind.
    let mut aligned: Vec<u64> = Vec::new();
    let start = if own.as_ptr().align_offset(kind.elt_size_in_bytes()) == 0 {
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
    let view = unsafe { Tensor::f_from_blob(start, &entry.shape, stride, kind, Device::Cpu)? };
    target.f_copy_(&entry.arrangement.undone(&view)?)?;
    Ok(())
}

/// Numbers that are made of blocks at once.
const AT_ONCE: i64 = 1 << 22;

/// Dequantises some rows after the other, so that the largest table takes no second place in single
/// precision.
fn copy_blocks(
    own: &[u8],
    entry: &TensorEntry,
    format: BlockFormat,
    target: &mut Tensor,
) -> Result<()> {
    let Some(&rows) = entry.shape.first().filter(|_| !entry.shape.contains(&0)) else {
        return Ok(());
    };
    // Rows of one head stay together, and so do the blocks of a row.
    let (group, row) = (entry.arrangement.group(rows), entry.shape[1..].iter().product::<i64>());
    let at_once = match entry.shape.len() {
        1 => rows,
        _ => (AT_ONCE / (group * row)).max(1) * group,
    };
    let bytes_of_row = row as usize / format.numbers() * format.bytes();
    let mut numbers = vec![0f32; (at_once.min(rows) * row) as usize];
    for start in (0..rows).step_by(at_once as usize) {
        let count = at_once.min(rows - start);
        let numbers = &mut numbers[..(count * row) as usize];
        restore_blocks(format, &own[start as usize * bytes_of_row..], numbers);
        let shape = [&[count], &entry.shape[1..]].concat();
        let (bytes, stride) = (numbers.as_ptr().cast(), contiguous(&shape));
        // SAFETY: `numbers` has as many elements as the shape, and outlives the view, which is only
        // read.
        let view =
            unsafe { Tensor::f_from_blob(bytes, &shape, &stride, Kind::Float, Device::Cpu)? };
        let part = entry.arrangement.of_rows(count, rows).undone(&view)?;
        target.f_narrow(0, start, count)?.f_copy_(&part)?;
    }
    Ok(())
}

/// The tensor that lies at `entry` of a file, in the kind that it has there.
pub(super) fn owned(path: &Path, bytes: &[u8], entry: &TensorEntry) -> Result<Tensor> {
    let mut owned = Tensor::f_empty(&entry.shape, (entry.kind(), Device::Cpu))?;
    copy(path, bytes, entry, &mut owned)?;
    Ok(owned)
}

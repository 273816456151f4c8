//! Packed files, unpacked as they are read, within bounds: an archive of a few bytes may unpack to
//! more than any disk holds.

use super::bounded::Bounded;
use super::DataError;
use aflora_files as files;
use bzip2::read::MultiBzDecoder;
use flate2::read::MultiGzDecoder;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// What a small file may unpack to.
const MOST: u64 = 1 << 28;

/// What a byte of a packed file may unpack to beyond that; text comes to some 3 to 20.
const RATIO: u64 = 64;

/// How a file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// `.gz`
    Gzip,
    /// `.bz2`
    Bzip2,
}

impl Packing {
    /// How the file is packed, by its name's ending; none if it is not.
    pub fn of(path: &Path) -> Option<Packing> {
        match path.extension()?.to_ascii_lowercase().to_str()? {
            "gz" => Some(Packing::Gzip),
            "bz2" => Some(Packing::Bzip2),
            _ => None,
        }
    }
}

/// The name without the ending of a packed file.
pub(super) fn unpacked_name(path: &Path) -> PathBuf {
    match Packing::of(path) {
        Some(_) => path.with_extension(""),
        None => path.to_path_buf(),
    }
}

/// The bytes of a file, unpacked if its name says that it is packed.
///
/// # Errors
/// It cannot be opened.
pub(super) fn open(path: &Path) -> Result<Bounded<Box<dyn Read>>, DataError> {
    let file = files::open(path).map_err(DataError::io(path))?;
    let length = file.metadata().map_or(0, |about| about.len());
    let most = MOST.saturating_add(length.saturating_mul(RATIO));
    let from = BufReader::new(file);
    Ok(match Packing::of(path) {
        None => Bounded::new(Box::new(from)),
        Some(Packing::Gzip) => Bounded::with_most(Box::new(MultiGzDecoder::new(from)), most),
        Some(Packing::Bzip2) => Bounded::with_most(Box::new(MultiBzDecoder::new(from)), most),
    })
}

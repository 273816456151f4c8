//! Packed files, unpacked as they are read, within bounds: an archive of a few bytes may unpack to
//! more than any disk holds.

use super::bounded::Bounded;
use super::DataError;
use aflora_files as files;
use bzip2::read::MultiBzDecoder;
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// What a small file may unpack to.
const MOST: u64 = 1 << 28;

/// What a byte of a packed file may unpack to beyond that; text comes to some 3 to 20.
const RATIO: u64 = 64;

/// How a file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
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
pub(super) fn open(path: &Path) -> Result<Bounded<Box<dyn Read + Send>>, DataError> {
    Ok(contents(files::open(path).map_err(DataError::io(path))?, path))
}

/// The bytes of a file that is called `path`, unpacked if the name says that it is packed.
pub(crate) fn contents(file: File, path: &Path) -> Bounded<Box<dyn Read + Send>> {
    let length = file.metadata().map_or(0, |about| about.len());
    let most = MOST.saturating_add(length.saturating_mul(RATIO));
    match Packing::of(path) {
        None => Bounded::new(Box::new(file)),
        Some(packing) => unpacked(BufReader::new(file), packing, most),
    }
}

/// The bytes of a packed stream, `most` at the most.
fn unpacked(
    from: impl BufRead + Send + 'static,
    packing: Packing,
    most: u64,
) -> Bounded<Box<dyn Read + Send>> {
    let from: Box<dyn Read + Send> = match packing {
        Packing::Gzip => Box::new(MultiGzDecoder::new(from)),
        Packing::Bzip2 => Box::new(MultiBzDecoder::new(from)),
    };
    Bounded::with_most(from, most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bzip2::write::BzEncoder;
    use flate2::write::GzEncoder;
    use std::io::{Cursor, Write};

    #[test]
    fn what_unpacks_to_more_than_its_bounds_is_refused() {
        let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::default());
        let mut bzip2 = BzEncoder::new(Vec::new(), bzip2::Compression::default());
        gzip.write_all(&[b'x'; 1000]).unwrap();
        bzip2.write_all(&[b'x'; 1000]).unwrap();
        let packed =
            [(Packing::Gzip, gzip.finish().unwrap()), (Packing::Bzip2, bzip2.finish().unwrap())];
        for (packing, bytes) in packed {
            let mut text = String::new();
            let read = |most| unpacked(Cursor::new(bytes.clone()), packing, most);
            assert_eq!(read(1000).read_to_string(&mut text).unwrap(), 1000);
            let error = read(999).read_to_string(&mut text).unwrap_err().to_string();
            assert!(error.contains("it unpacks to more than 999 bytes"), "{packing:?}: {error}");
        }
    }
}

//! Texts as tokens, flat, in one file that is mapped into memory.
//!
//! A large task takes minutes to tokenise and more memory as lists of numbers than a machine may
//! have. So it is done once: the file is named by a digest of all that decides the tokens, and
//! a later run with the same texts and the same tokenizer maps it and reads on demand. Small
//! tasks, and all where there is no folder for such files, have the same bytes in memory.
//!
//! A file holds, all little-endian: the tokens as i32, row by row; where each sequence ends, u64;
//! a byte of flags a row; then rows u64, columns u64, a CRC-32C u32 of everything so far, and
//! eight bytes that name the format.

use super::token_cache;
use aflora_models::mapped::Mapped;
use anyhow::Result;
use sha2::{Digest, Sha256};
use std::io::{self, Write};
use std::ops::Deref;
use std::path::Path;

/// Texts of fewer bytes together are tokenised in less than a second.
const WORTH: usize = 1 << 20;

const FORMAT: &[u8; 8] = b"aflora-1";
const TRAILER: usize = 8 + 8 + 4 + FORMAT.len();

/// The row's texts were cut.
pub const TRUNCATED: u8 = 1;
/// The row has nothing to learn from.
pub const EMPTY: u8 = 2;

/// A digest of everything that decides a table of tokens.
#[derive(Debug, Clone)]
pub struct CacheKey {
    digest: Sha256,
    bytes: usize,
}

impl CacheKey {
    /// Of a tokenizer's [fingerprint](aflora_models::TextEncoder::fingerprint), and the settings
    /// that matter beside it.
    pub fn new(tokenizer: &[u8], settings: &impl std::fmt::Debug) -> Self {
        let mut key = CacheKey { digest: Sha256::new(), bytes: 0 };
        key.part(FORMAT);
        key.part(tokenizer);
        key.part(format!("{settings:?}").as_bytes());
        key.bytes = 0;
        key
    }

    /// Adds a text; without one is not as with an empty one.
    pub fn add(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.part(text.as_bytes()),
            None => self.digest.update(u64::MAX.to_le_bytes()),
        }
    }

    // With its length before it, so that "ab", "c" is not "a", "bc".
    fn part(&mut self, bytes: &[u8]) {
        self.digest.update((bytes.len() as u64).to_le_bytes());
        self.digest.update(bytes);
        self.bytes += bytes.len();
    }

    fn name(self) -> String {
        let digest = self.digest.finalize();
        let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        hex + token_cache::SUFFIX
    }
}

/// Rows of token sequences, the same number a row.
#[derive(Debug)]
pub struct Tokens {
    bytes: Bytes,
    rows: usize,
    columns: usize,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mapped),
    InMemory(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::InMemory(bytes) => bytes,
        }
    }
}

impl Tokens {
    /// The table of `key`: from its file in `cache`, or as `fill` writes it.
    ///
    /// A file that is damaged is written anew. Where none can be written, the table is held in
    /// memory, with a warning.
    ///
    /// # Errors
    /// Those of `fill`.
    pub fn cached(
        cache: Option<&Path>,
        key: CacheKey,
        columns: usize,
        mut fill: impl FnMut(&mut TableWriter) -> Result<()>,
    ) -> Result<Tokens> {
        if let Some(folder) = cache.filter(|_| key.bytes >= WORTH) {
            let path = folder.join(key.name());
            match Tokens::open(&path, columns) {
                Ok(tokens) => {
                    token_cache::used(&path);
                    return Ok(tokens);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!("{}: {error}; it is made anew", path.display()),
            }
            match Tokens::create(&path, columns, &mut fill) {
                Ok(tokens) => {
                    token_cache::clean(folder, &path);
                    return Ok(tokens);
                }
                Err(error) => match error.downcast::<io::Error>() {
                    Ok(error) => tracing::warn!(
                        "{}: {error}; the next run will have to tokenise again",
                        path.display()
                    ),
                    Err(error) => return Err(error),
                },
            }
        }
        Tokens::in_memory(columns, fill)
    }

    /// A table that is kept in memory, without a file.
    ///
    /// # Errors
    /// Those of `fill`.
    pub fn in_memory(
        columns: usize,
        mut fill: impl FnMut(&mut TableWriter) -> Result<()>,
    ) -> Result<Tokens> {
        let mut bytes = Vec::new();
        let mut writer = TableWriter::new(&mut bytes, columns);
        fill(&mut writer)?;
        writer.finish()?;
        Ok(Tokens::of(Bytes::InMemory(bytes), columns)?)
    }

    fn create(
        path: &Path,
        columns: usize,
        fill: &mut impl FnMut(&mut TableWriter) -> Result<()>,
    ) -> Result<Tokens> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        aflora_files::write_with(path, |file| -> Result<()> {
            let mut writer = TableWriter::new(file, columns);
            fill(&mut writer)?;
            Ok(writer.finish()?)
        })?;
        Ok(Tokens::open(path, columns)?)
    }

    fn open(path: &Path, columns: usize) -> io::Result<Tokens> {
        // Files of finished tables are replaced, never changed.
        let map = Mapped::open(path)?;
        let sum_at = map.len().saturating_sub(FORMAT.len() + 4);
        let sum = map.get(sum_at..sum_at + 4);
        if sum != Some(&crc32c::crc32c(&map[..sum_at]).to_le_bytes()) {
            return Err(damaged("its checksum is another"));
        }
        Tokens::of(Bytes::Mapped(map), columns)
    }

    fn of(bytes: Bytes, columns: usize) -> io::Result<Tokens> {
        let Some(trailer) = bytes.len().checked_sub(TRAILER) else {
            return Err(damaged("it is too short"));
        };
        let (rows, own) = (word(&bytes, trailer), word(&bytes, trailer + 8));
        if !bytes.ends_with(FORMAT) || own != columns as u64 {
            return Err(damaged("it is of another format"));
        }
        let tokens = Tokens { rows: rows as usize, columns, bytes };
        let index = rows.checked_mul(8 * own + 1).filter(|&index| index <= trailer as u64);
        let sequences = if index.is_some() { tokens.rows * columns } else { 0 };
        // One after the other, and nothing but them before the index.
        let mut last = Some(0);
        for sequence in 0..sequences {
            last = last.filter(|&last| last <= tokens.end(sequence)).map(|_| tokens.end(sequence));
        }
        let bytes = last.and_then(|last| u64::try_from(last).ok()?.checked_mul(4));
        let whole = index.zip(bytes).and_then(|(index, bytes)| index.checked_add(bytes));
        if whole != Some(trailer as u64) {
            return Err(damaged("its lengths contradict each other"));
        }
        Ok(tokens)
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Tokens of a sequence.
    pub fn length(&self, row: usize, column: usize) -> usize {
        let (start, end) = self.span(row, column);
        end - start
    }

    /// The tokens of a sequence.
    pub fn get(&self, row: usize, column: usize) -> impl ExactSizeIterator<Item = i64> + '_ {
        let (start, end) = self.span(row, column);
        self.bytes[4 * start..4 * end]
            .chunks_exact(4)
            .map(|b| i64::from(i32::from_le_bytes([b[0], b[1], b[2], b[3]])))
    }

    /// Whether a row carries a flag.
    pub fn has(&self, row: usize, flag: u8) -> bool {
        self.bytes[self.bytes.len() - TRAILER - self.rows + row] & flag != 0
    }

    /// Rows that carry a flag.
    pub fn count(&self, flag: u8) -> usize {
        (0..self.rows).filter(|&row| self.has(row, flag)).count()
    }

    fn span(&self, row: usize, column: usize) -> (usize, usize) {
        let sequence = row * self.columns + column;
        let start = if sequence == 0 { 0 } else { self.end(sequence - 1) };
        (start, self.end(sequence))
    }

    fn end(&self, sequence: usize) -> usize {
        let index = self.bytes.len() - TRAILER - self.rows - 8 * self.rows * self.columns;
        word(&self.bytes, index + 8 * sequence) as usize
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn damaged(words: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the file is damaged: {words}"))
}

/// Writes a table row by row.
pub struct TableWriter<'a> {
    out: &'a mut dyn Write,
    sum: u32,
    columns: usize,
    elements: u64,
    ends: Vec<u64>,
    flags: Vec<u8>,
}

impl<'a> TableWriter<'a> {
    fn new(out: &'a mut dyn Write, columns: usize) -> Self {
        TableWriter { out, sum: 0, columns, elements: 0, ends: Vec::new(), flags: Vec::new() }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// The row cannot be written, or a number is no i32.
    pub fn push(&mut self, columns: &[&[i64]], flags: u8) -> io::Result<()> {
        assert_eq!(columns.len(), self.columns, "every row has the same columns");
        let mut bytes = Vec::new();
        for column in columns {
            for &value in *column {
                let value = i32::try_from(value).map_err(io::Error::other)?;
                bytes.extend_from_slice(&value.to_le_bytes());
            }
            self.elements += column.len() as u64;
            self.ends.push(self.elements);
        }
        self.flags.push(flags);
        self.write(&bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum = crc32c::crc32c_append(self.sum, bytes);
        self.out.write_all(bytes)
    }

    fn finish(mut self) -> io::Result<()> {
        let mut index: Vec<u8> = self.ends.iter().flat_map(|end| end.to_le_bytes()).collect();
        index.extend_from_slice(&self.flags);
        index.extend_from_slice(&(self.flags.len() as u64).to_le_bytes());
        index.extend_from_slice(&(self.columns as u64).to_le_bytes());
        self.write(&index)?;
        self.out.write_all(&self.sum.to_le_bytes())?;
        self.out.write_all(FORMAT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    type TableRow = (Vec<i64>, Vec<i64>, u8);

    fn fill(rows: &[TableRow]) -> impl FnMut(&mut TableWriter) -> Result<()> + '_ {
        |writer| Ok(rows.iter().try_for_each(|(a, b, flags)| writer.push(&[a, b], *flags))?)
    }

    fn read(tokens: &Tokens) -> Vec<TableRow> {
        let column = |row, column| tokens.get(row, column).collect();
        let flags = |row| [1u8, 2, 4].into_iter().filter(|&flag| tokens.has(row, flag)).sum();
        (0..tokens.rows()).map(|row| (column(row, 0), column(row, 1), flags(row))).collect()
    }

    /// A key of enough text for a file, and one letter.
    fn key(letter: &str) -> CacheKey {
        // Hundreds of keys are asked for, and a digest of so much takes a while.
        static TEXT: LazyLock<CacheKey> = LazyLock::new(|| {
            let mut key = CacheKey::new(b"tokenizer", &"settings");
            key.add(Some(&"x".repeat(WORTH)));
            key
        });
        let mut key = TEXT.clone();
        key.add(Some(letter));
        key
    }

    fn files(folder: &Path) -> Vec<std::path::PathBuf> {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(rows in prop::collection::vec(
            (prop::collection::vec(-100i64..1 << 30, 0..9), prop::collection::vec(0i64..9, 0..5), 0u8..8),
            0..20,
        )) {
            let folder = tempfile::tempdir().unwrap();
            for tokens in [
                Tokens::in_memory(2, fill(&rows)).unwrap(),
                Tokens::cached(Some(folder.path()), key("a"), 2, fill(&rows)).unwrap(),
                Tokens::cached(Some(folder.path()), key("a"), 2, |_| panic!("it is there")).unwrap(),
            ] {
                prop_assert_eq!(&read(&tokens), &rows);
                let lengths = |c| (0..tokens.rows()).map(|r| tokens.length(r, c)).sum::<usize>();
                prop_assert_eq!(lengths(0), rows.iter().map(|r| r.0.len()).sum::<usize>());
            }
        }
    }

    #[test]
    fn other_texts_have_a_file_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        for (letter, value) in [("a", 1), ("b", 2), ("a", 1)] {
            let rows = [(vec![value], vec![], 0)];
            let tokens = Tokens::cached(Some(folder.path()), key(letter), 2, fill(&rows)).unwrap();
            assert_eq!(read(&tokens), rows);
        }
        assert_eq!(files(folder.path()).len(), 2);
        let name = |parts: &[Option<&str>]| {
            let mut key = CacheKey::new(b"", &());
            parts.iter().for_each(|part| key.add(*part));
            key.name()
        };
        assert_ne!(name(&[Some("ab"), Some("c")]), name(&[Some("a"), Some("bc")]));
        assert_ne!(name(&[Some("a"), None]), name(&[Some("a"), Some("")]));
    }

    #[test]
    fn a_damaged_file_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let rows = [(vec![1, 2, 3], vec![4], 1), (vec![5], vec![], 0)];
        let open = || Tokens::cached(Some(folder.path()), key("a"), 2, fill(&rows)).unwrap();
        drop(open());
        let path = files(folder.path()).remove(0);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            std::fs::write(&path, &damaged).unwrap();
            assert_eq!(read(&open()), rows, "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(read(&open()), rows, "cut at {at}");
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
    }

    /// Changed by hand and given a right checksum again: no run may read past its sequences.
    #[test]
    fn a_file_whose_sequences_overlap_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let rows = [(vec![1, 2, 3], vec![4], 1), (vec![5], vec![], 0)];
        let open = || Tokens::cached(Some(folder.path()), key("a"), 2, fill(&rows)).unwrap();
        drop(open());
        let path = files(folder.path()).remove(0);
        let whole = std::fs::read(&path).unwrap();
        let index = 4 * 5;
        for (at, value) in [(index, 5), (index + 8, u64::MAX), (index + 24, u64::MAX / 4 + 2)] {
            let mut changed = whole.clone();
            changed[at..at + 8].copy_from_slice(&value.to_le_bytes());
            let sum_at = changed.len() - FORMAT.len() - 4;
            let sum = crc32c::crc32c(&changed[..sum_at]).to_le_bytes();
            changed[sum_at..sum_at + 4].copy_from_slice(&sum);
            std::fs::write(&path, &changed).unwrap();
            assert_eq!(read(&open()), rows, "{value} at {at}");
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn without_a_place_for_files_tokens_stay_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let rows = [(vec![1], vec![], 0)];
        let tokens = Tokens::cached(Some(&file), key("a"), 2, fill(&rows)).unwrap();
        assert_eq!(read(&tokens), rows);
        let fails = Tokens::cached(Some(folder.path()), key("a"), 2, |_| anyhow::bail!("no"));
        assert_eq!(fails.unwrap_err().to_string(), "no");
        assert_eq!(files(folder.path()), [file]);
    }
}

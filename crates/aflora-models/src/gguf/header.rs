//! The header of a GGUF file, versions 2 and 3: what it says of the model, and where each tensor
//! lies.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `GGUF` |
//! | 4 | the version |
//! | 8, 8 | how many tensors, how many keys |
//! | each key | its name, the number of its type, its value |
//! | each tensor | its name, its dimensions, the number of its format, where it lies behind the header |
//!
//! Everything is little-endian; texts stand behind their length; the tensors begin at a multiple of
//! `general.alignment` behind the header, each.

use super::cursor::Cursor;
use super::format::Format;
use super::value::Value;
use crate::error::cut;
use std::collections::BTreeMap;
use tch::Kind;

/// What a file begins with.
pub(crate) const MAGIC: &[u8; 4] = b"GGUF";
/// The key of the alignment, and what it is where no key says it.
pub(super) const ALIGNMENT: (&str, usize) = ("general.alignment", 32);
/// Dimensions of a tensor at the most.
const DIMENSIONS: usize = 4;

/// What a file says of itself.
#[derive(Debug)]
pub(crate) struct Header<'a> {
    /// The whole file.
    file: &'a [u8],
    /// Values by their keys.
    pub keys: BTreeMap<&'a str, Value<'a>>,
    /// The same as they lie in the file, in its order: the number of a value's type, and itself.
    pub raw: Vec<(&'a str, &'a [u8])>,
    /// The tensors in the file's order.
    pub tensors: Vec<(&'a str, Stored)>,
}

/// Where a tensor lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Elements in each dimension, the outermost first, as libtorch counts them.
    pub shape: Vec<i64>,
    /// How its numbers lie there, or the name of a format that is not read.
    pub format: Result<Format, &'static str>,
    /// Bytes from the start of the file.
    pub offset: usize,
}

impl<'a> Header<'a> {
    /// Reads the header of a file with these bytes.
    ///
    /// # Errors
    /// It is damaged, of another version, or a part of several.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut file = Cursor::new(bytes);
        if file.take(4)? != MAGIC {
            return Err("it does not begin with GGUF".into());
        }
        match file.u32()? {
            2 | 3 => {}
            1 => {
                return Err(
                    "it is of version 1, of which no files are made any more: get it again".into()
                )
            }
            version if matches!(version.swap_bytes(), 1..=3) => {
                return Err("its numbers are big-endian, which is not built".into())
            }
            version => return Err(format!("it is of version {version}; 2 and 3 are read")),
        }
        // A tensor takes 24 bytes at the least: the lengths of its name and of its dimensions, its
        // format and its place.
        let tensors = file.u64()?;
        // A key takes 13: the length of its name, the number of its type, and one byte.
        let count = file.count(13)?;
        let (mut keys, mut raw) = (BTreeMap::new(), Vec::new());
        for _ in 0..count {
            let key = file.text()?;
            let start = file.position();
            let value =
                Value::read(&mut file).map_err(|problem| format!("`{}`: {problem}", short(key)))?;
            raw.push((key, &bytes[start..file.position()]));
            if keys.insert(key, value).is_some() {
                return Err(format!("it has the key `{}` twice", short(key)));
            }
        }
        if let Some(Value::Integer(parts @ 2..)) = keys.get("split.count") {
            return Err(format!(
                "it is one of {parts} parts, which are not read: `llama-gguf-split --merge` joins them"
            ));
        }
        let alignment = alignment(&keys)?;
        if tensors > (bytes.len() / 24) as u64 {
            return Err(cut(format!(
                "its header counts {tensors} tensors, which it has no room for"
            )));
        }
        let mut found: Vec<(&str, u64, Stored)> = Vec::new();
        for _ in 0..tensors {
            found.push(tensor(&mut file)?);
        }
        let start = file.position().div_ceil(alignment) * alignment;
        let tensors = found.into_iter().map(|(name, offset, stored)| {
            let problem = |words: &str| format!("the data of `{}` {words}", short(name));
            if offset % alignment as u64 != 0 {
                return Err(problem(&format!("begin at no multiple of {alignment} bytes")));
            }
            let offset = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(start));
            let end = offset.and_then(|offset| stored.bytes()?.checked_add(offset));
            match (offset, end) {
                (Some(offset), Some(end)) if end <= bytes.len() => {
                    Ok((name, Stored { offset, ..stored }))
                }
                _ => Err(cut(problem("end after the file"))),
            }
        });
        let tensors = tensors.collect::<Result<Vec<_>, _>>()?;
        let mut names: Vec<&str> = tensors.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("it has the tensor `{}` twice", short(pair[0]))),
            None => Ok(Header { file: bytes, keys, raw, tensors }),
        }
    }

    /// The numbers of a tensor in single precision; none of one in another format.
    pub(super) fn numbers(&self, stored: &Stored) -> Option<Vec<f32>> {
        let single = stored.format == Ok(Format::Plain(Kind::Float));
        let bytes = self.file.get(stored.offset..)?.get(..stored.bytes()?)?;
        let number = |bytes: &[u8]| bytes.try_into().map(f32::from_le_bytes).unwrap_or_default();
        single.then(|| bytes.chunks_exact(4).map(number).collect())
    }
}

fn alignment(keys: &BTreeMap<&str, Value<'_>>) -> Result<usize, String> {
    let (key, usual) = ALIGNMENT;
    match keys.get(key) {
        None => Ok(usual),
        Some(Value::Integer(n)) if (1..=1 << 16).contains(n) && n & (n - 1) == 0 => Ok(*n as usize),
        Some(value) => Err(format!("`{key}` is {}; it must be a power of two", value.what())),
    }
}

/// A tensor's name, where it lies behind the header, and what else is said of it.
fn tensor<'a>(file: &mut Cursor<'a>) -> Result<(&'a str, u64, Stored), String> {
    let name = file.text()?;
    let problem = |words: String| format!("the tensor `{}` {words}", short(name));
    let dimensions = file.u32()? as usize;
    if dimensions > DIMENSIONS {
        return Err(problem(format!("has {dimensions} dimensions; {DIMENSIONS} are the most")));
    }
    let mut shape = Vec::with_capacity(DIMENSIONS);
    for _ in 0..dimensions {
        let n = file.u64()?;
        let n =
            i64::try_from(n).map_err(|_| problem(format!("has {n} elements in a dimension")))?;
        shape.insert(0, n);
    }
    let format = match Format::of(file.u32()?) {
        Ok(format) => Ok(format),
        Err(Some(name)) => Err(name),
        Err(None) => return Err(problem("has a format that is none of llama.cpp's".into())),
    };
    let stored = Stored { shape, format, offset: 0 };
    if let Ok(format) = format {
        let row = stored.shape.last().copied().unwrap_or(1);
        if row % format.block() as i64 != 0 {
            let words =
                format!("has rows of {row} numbers, no multiple of its blocks' {}", format.block());
            return Err(problem(words));
        }
    }
    Ok((name, file.u64()?, stored))
}

impl Stored {
    /// How many bytes it takes; none where its format is not read; `None` if no machine has so many.
    fn bytes(&self) -> Option<usize> {
        let Ok(format) = self.format else { return Some(0) };
        let size = |&n: &i64| usize::try_from(n).ok();
        let elements = self.shape.iter().map(size).try_fold(1usize, |n, d| n.checked_mul(d?))?;
        (elements / format.block()).checked_mul(format.bytes())
    }
}

/// A name for a message.
pub(super) fn short(name: &str) -> String {
    name.chars().take(80).collect()
}

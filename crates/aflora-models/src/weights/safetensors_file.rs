//! The tensors of a safetensors file.

use super::contents::{contiguous, Contents, TensorEntry};
use crate::error::cut;
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use tch::Kind;

/// Bytes before the header, which say how long it is.
const LENGTH: usize = 8;

pub(super) fn read(bytes: &[u8]) -> Result<Contents, String> {
    let (length, metadata, mut later) = header(bytes).map_err(words)?;
    let mut contents = Contents::default();
    for (name, info) in metadata.tensors() {
        let kind = match later.remove(&name) {
            Some(dtype) => Err(dtype),
            None => kind(info.dtype).ok_or_else(|| format!("{:?}", info.dtype)),
        };
        match kind {
            Ok(kind) => {
                let shape: Vec<i64> = info.shape.iter().map(|&n| n as i64).collect();
                let stride = contiguous(&shape);
                let offset = LENGTH + length + info.data_offsets.0;
                let entry = TensorEntry::strided(shape, stride, kind, offset);
                contents.tensors.insert(name, entry);
            }
            Err(dtype) => {
                contents.unread.insert(name, format!("a tensor of the type {dtype}"));
            }
        }
    }
    Ok(contents)
}

/// The types, by the tensors' names, that no version of the format has which is known here.
type Later = BTreeMap<String, String>;

/// The header's length and what it says.
fn header(bytes: &[u8]) -> Result<(usize, Metadata, Later), SafeTensorError> {
    match SafeTensors::read_metadata(bytes) {
        Ok((length, metadata)) => Ok((length, metadata, Later::new())),
        Err(error @ SafeTensorError::InvalidHeaderDeserialization(_)) => {
            later_header(bytes).unwrap_or(Err(error))
        }
        Err(error) => Err(error),
    }
}

/// A tensor of any version of the format.
#[derive(Deserialize)]
struct TensorHeader {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

#[derive(Deserialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    metadata: Option<HashMap<String, String>>,
    #[serde(flatten)]
    tensors: HashMap<String, TensorHeader>,
}

/// A header that has only types against it which came with a later version of the format; the crate
/// refuses all of the file for one. Each such tensor stands as the bytes that it takes, so that the
/// crate makes its checks: each byte of the file belongs to one tensor, as many as it needs.
fn later_header(bytes: &[u8]) -> Option<Result<(usize, Metadata, Later), SafeTensorError>> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let Header { metadata, tensors } = serde_json::from_slice(rest.get(..length)?).ok()?;
    let mut later = Later::new();
    let info = |(name, TensorHeader { dtype, shape, data_offsets }): (String, TensorHeader)| {
        let known = serde_json::from_value(dtype.as_str().into());
        let (dtype, shape) = known.map(|known| (known, shape)).unwrap_or_else(|_| {
            later.insert(name.clone(), dtype.chars().take(40).collect());
            (Dtype::U8, vec![data_offsets.1.saturating_sub(data_offsets.0)])
        });
        (name, TensorInfo { dtype, shape, data_offsets })
    };
    let mut tensors: Vec<(String, TensorInfo)> = tensors.into_iter().map(info).collect();
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let end = tensors.last().map_or(0, |(_, info)| info.data_offsets.1);
    Some(Metadata::new(metadata, tensors).and_then(|metadata| {
        match Some(end) == rest.len().checked_sub(length) {
            true => Ok((length, metadata, later)),
            false => Err(SafeTensorError::MetadataIncompleteBuffer),
        }
    }))
}

/// What is wrong with a file, and whether a cut can have done it.
fn words(error: SafeTensorError) -> String {
    use SafeTensorError::{HeaderTooSmall, InvalidHeaderLength, MetadataIncompleteBuffer};
    match error {
        HeaderTooSmall | InvalidHeaderLength => cut("it ends within its header".into()),
        MetadataIncompleteBuffer => cut("its tensors are more or fewer bytes than it holds".into()),
        other => other.to_string(),
    }
}

fn kind(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let length = (header.len() as u64).to_le_bytes();
        [&length[..], header.as_bytes(), &vec![0; data]].concat()
    }

    const KNOWN: &str = r#""a": {"dtype": "F32", "shape": [1], "data_offsets": [2, 6]}"#;

    fn with(later: &str) -> String {
        format!(r#"{{"__metadata__": {{"format": "pt"}}, {KNOWN}, "b": {later}}}"#)
    }

    /// All of the file was refused.
    #[test]
    fn a_type_of_a_later_format_is_refused_only_where_it_is_needed() {
        let header = with(r#"{"dtype": "F9_NEW", "shape": [3], "data_offsets": [0, 2]}"#);
        let contents = read(&file(&header, 6)).unwrap();
        let offset = LENGTH + header.len() + 2;
        let entry = TensorEntry::strided(vec![1], vec![1], Kind::Float, offset);
        assert_eq!(contents.tensors, BTreeMap::from([("a".to_string(), entry)]));
        assert_eq!(contents.unread["b"], "a tensor of the type F9_NEW");
    }

    #[test]
    fn beside_a_later_type_the_offsets_are_checked_as_ever() {
        let sound = r#"{"dtype": "F9_NEW", "shape": [3], "data_offsets": [0, 2]}"#;
        for data in [5, 7] {
            let error = read(&file(&with(sound), data)).unwrap_err();
            assert!(error.contains("more or fewer bytes than it holds"), "{error}");
        }
        for (from, to) in [("[0, 2]", "[0, 1]"), ("[0, 2]", "[0, 3]"), ("[0, 2]", "[2, 0]")] {
            let error = read(&file(&with(&sound.replace(from, to)), 6)).unwrap_err();
            assert!(error.contains("invalid offset"), "{to}: {error}");
        }
        let short = with(sound).replace("\"shape\": [1]", "\"shape\": [2]");
        read(&file(&short, 6)).unwrap_err();
        // What no version has is told as before.
        for odd in [r#"{"dtype": 9, "shape": [3], "data_offsets": [0, 2]}"#, r#"{"shape": [3]}"#] {
            let error = read(&file(&with(odd), 6)).unwrap_err();
            assert!(error.contains("invalid JSON in header"), "{error}");
        }
    }
}

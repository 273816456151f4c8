//! The tensors of a safetensors file.

use super::checkpoint::{contiguous, Contents, Place};
use crate::error::cut;
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use tch::Kind;

pub(super) fn read(bytes: &[u8]) -> Result<Contents, String> {
    let file = SafeTensors::deserialize(bytes).map_err(words)?;
    let start = bytes.as_ptr() as usize;
    let mut contents = Contents::default();
    for (name, view) in file.iter() {
        let Some(kind) = kind(view.dtype()) else {
            let what = format!("a tensor of the type {:?}", view.dtype());
            contents.unread.insert(name.to_string(), what);
            continue;
        };
        let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
        let stride = contiguous(&shape);
        let offset = view.data().as_ptr() as usize - start;
        contents.places.insert(name.to_string(), Place { shape, stride, kind, offset });
    }
    Ok(contents)
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

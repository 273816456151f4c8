//! The tensors of a safetensors file.

use super::checkpoint::{contiguous, Place};
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use tch::Kind;

pub(super) fn read(bytes: &[u8]) -> Result<BTreeMap<String, Place>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| format!("{e:?}"))?;
    let start = bytes.as_ptr() as usize;
    file.iter()
        .map(|(name, view)| {
            let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
            let kind = kind(view.dtype())
                .ok_or_else(|| format!("`{name}` has the unknown type {:?}", view.dtype()))?;
            let stride = contiguous(&shape);
            let offset = view.data().as_ptr() as usize - start;
            Ok((name.to_string(), Place { shape, stride, kind, offset }))
        })
        .collect()
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

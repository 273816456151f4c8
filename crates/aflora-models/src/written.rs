//! Folders and weight files, written whole.

use crate::{Error, Result};
use safetensors::{Dtype, View};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Makes `folder` by `write`, whole or not at all.
pub(crate) fn write_whole(folder: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut failed = None;
    let replaced = aflora_files::replace_folder(folder, |folder| {
        write(folder).map_err(|error| {
            failed = Some(error);
            std::io::Error::other("the folder's content cannot be written")
        })
    });
    match failed {
        Some(error) => Err(error),
        None => replaced.map_err(Error::io(folder)),
    }
}

/// Writes tensors, in single precision, to a safetensors file.
pub(crate) fn write_safetensors(path: &Path, tensors: BTreeMap<String, Tensor>) -> Result<()> {
    write_safetensors_as(path, tensors, StoredKind::F32)
}

/// Writes tensors, rounded to `kind`, to a safetensors file.
pub(crate) fn write_safetensors_as(
    path: &Path,
    tensors: BTreeMap<String, Tensor>,
    kind: StoredKind,
) -> Result<()> {
    let of_kind = tensors.into_iter().map(|(name, t)| {
        let host = t.detach().f_to_device(Device::Cpu)?.f_to_kind(kind.kind())?;
        Ok::<_, Error>((name, host))
    });
    write_safetensors_raw(path, of_kind.collect::<Result<_>>()?)
}

/// Writes tensors, in the kinds of numbers that they have, to a safetensors file; of kinds beside
/// halves and bytes in single precision.
pub(crate) fn write_safetensors_raw(path: &Path, tensors: BTreeMap<String, Tensor>) -> Result<()> {
    let views = tensors.into_iter().map(|(name, t)| Ok((name, HostTensor::new(&t)?)));
    let views: Vec<(String, HostTensor)> = views.collect::<Result<_>>()?;
    let about = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize_to_file(views, Some(about), path)
        .map_err(|e| Error::Io { path: path.into(), source: std::io::Error::other(e.to_string()) })
}

/// How the numbers of a file lie in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredKind {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// Half precision with the range of single precision.
    Bf16,
}

impl StoredKind {
    /// That of libtorch's numbers; single precision where it is none of these.
    pub fn of(kind: Kind) -> StoredKind {
        match kind {
            Kind::Half => StoredKind::F16,
            Kind::BFloat16 => StoredKind::Bf16,
            _ => StoredKind::F32,
        }
    }

    /// libtorch's.
    pub fn kind(self) -> Kind {
        match self {
            StoredKind::F32 => Kind::Float,
            StoredKind::F16 => Kind::Half,
            StoredKind::Bf16 => Kind::BFloat16,
        }
    }

    /// Its name in a config.json.
    pub fn name(self) -> &'static str {
        match self {
            StoredKind::F32 => "float32",
            StoredKind::F16 => "float16",
            StoredKind::Bf16 => "bfloat16",
        }
    }

    /// A tensor in single precision whose numbers are rounded to this.
    ///
    /// # Errors
    /// libtorch refuses.
    pub fn rounded(self, tensor: &Tensor) -> Result<Tensor> {
        let to = |tensor: &Tensor, kind| tensor.f_to_dtype(kind, false, false);
        Ok(to(&to(tensor, self.kind())?, Kind::Float)?)
    }
}

/// A tensor's bytes on the host.
struct HostTensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl HostTensor {
    fn new(tensor: &Tensor) -> Result<Self> {
        let host = tensor.detach().f_to_device(Device::Cpu)?.f_contiguous()?;
        let dtype = match host.kind() {
            Kind::Half => Dtype::F16,
            Kind::BFloat16 => Dtype::BF16,
            Kind::Uint8 => Dtype::U8,
            Kind::Int8 => Dtype::I8,
            _ => Dtype::F32,
        };
        let host = match dtype {
            Dtype::F32 => host.f_to_kind(Kind::Float)?,
            _ => host,
        };
        let mut bytes = vec![0; host.numel() * host.kind().elt_size_in_bytes()];
        host.f_copy_data_u8(&mut bytes, host.numel())?;
        Ok(HostTensor { dtype, shape: host.size().iter().map(|&n| n as usize).collect(), bytes })
    }
}

impl View for HostTensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

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
    let views = tensors.into_iter().map(|(name, t)| Ok((name, HostTensor::new(&t)?)));
    let views: Vec<(String, HostTensor)> = views.collect::<Result<_>>()?;
    let about = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize_to_file(views, Some(about), path)
        .map_err(|e| Error::Io { path: path.into(), source: std::io::Error::other(e.to_string()) })
}

/// A tensor's bytes on the host.
struct HostTensor {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl HostTensor {
    fn new(tensor: &Tensor) -> Result<Self> {
        let host = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
        let mut bytes = vec![0; host.numel() * size_of::<f32>()];
        host.f_copy_data_u8(&mut bytes, host.numel())?;
        Ok(HostTensor { shape: host.size().iter().map(|&n| n as usize).collect(), bytes })
    }
}

impl View for HostTensor {
    fn dtype(&self) -> Dtype {
        Dtype::F32
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

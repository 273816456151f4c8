//! Adapters on disk, in the layout of Hugging Face PEFT: `adapter_config.json` and
//! `adapter_model.safetensors`, keys `base_model.model.<layer>.lora_A.weight`, the head beside
//! them under its own name.

use crate::adapted::AdaptedModel;
use crate::error::Lines;
use crate::weights::Checkpoint;
use crate::{Error, Result};
use safetensors::{Dtype, View};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use tch::{Device, Kind, Tensor};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const ROOT: &str = "base_model.model.";

/// Every tensor of the adapters and of the saved modules, under its key in the file.
fn tensors(model: &AdaptedModel) -> BTreeMap<String, Tensor> {
    let mut all = BTreeMap::new();
    for adapter in model.adapters() {
        for t in adapter.tensors() {
            let key = match t.shared {
                true => format!("base_model.{}", t.key),
                false => format!("{ROOT}{}.{}", adapter.site().name, t.key),
            };
            all.insert(key, t.tensor);
        }
    }
    for (name, tensor) in model.saved_weights() {
        all.insert(format!("{ROOT}{name}"), tensor);
    }
    all
}

/// Writes the adapters and the saved modules of `model` to `folder`, with `config` (a JSON
/// object of the method's settings) and what PEFT's readers expect in `adapter_config.json`.
///
/// The folder appears whole or not at all; one that was there is replaced.
pub fn save(
    model: &AdaptedModel,
    folder: &Path,
    config: &serde_json::Map<String, serde_json::Value>,
) -> Result<()> {
    let temporary = folder.with_extension("tmp");
    let _ = fs::remove_dir_all(&temporary);
    let written = write(model, &temporary, config).and_then(|()| {
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(Error::io(folder))?;
        }
        fs::rename(&temporary, folder).map_err(Error::io(folder))
    });
    if written.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    written
}

fn write(
    model: &AdaptedModel,
    folder: &Path,
    config: &serde_json::Map<String, serde_json::Value>,
) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let mut config = config.clone();
    config.insert("task_type".into(), "SEQ_CLS".into());
    config.insert("modules_to_save".into(), model.saved_modules().into());
    let path = folder.join(CONFIG);
    let text = serde_json::Value::Object(config);
    fs::write(&path, format!("{text:#}\n")).map_err(Error::io(&path))?;

    let path = folder.join(WEIGHTS);
    let views = tensors(model).into_iter().map(|(name, t)| Ok((name, HostTensor::new(&t)?)));
    let views: Vec<(String, HostTensor)> = views.collect::<Result<_>>()?;
    let about = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize_to_file(views, Some(about), &path)
        .map_err(|e| Error::Io { path: path.clone(), source: std::io::Error::other(e.to_string()) })
}

/// Loads an adapter folder into `model`, whose adapters must be of the same shape.
///
/// # Errors
/// The file is damaged, or a tensor is missing, unexpected or of another shape; nothing is
/// changed then.
pub fn load(model: &AdaptedModel, folder: &Path) -> Result<()> {
    let path = folder.join(WEIGHTS);
    let file = Checkpoint::open(&path)?;
    let mut in_file: BTreeMap<&str, &[i64]> = file.shapes().collect();
    let mut problems = Vec::new();
    let mut loads = Vec::new();
    for (name, tensor) in tensors(model) {
        match in_file.remove(name.as_str()) {
            None => problems.push(format!("`{name}` is missing from it")),
            Some(shape) if shape == tensor.size() => loads.push((name, tensor)),
            Some(shape) => {
                let wanted = tensor.size();
                problems.push(format!("`{name}` has shape {shape:?} there, {wanted:?} here"));
            }
        }
    }
    problems.extend(in_file.keys().map(|name| format!("`{name}` has no place in the model")));
    if !problems.is_empty() {
        return Err(Error::Weights { path, problems: Lines(problems) });
    }
    tch::no_grad(|| loads.into_iter().try_for_each(|(name, mut t)| file.copy_to(&name, &mut t)))
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

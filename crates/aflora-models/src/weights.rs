//! Pretrained weights from safetensors files, by name.
//!
//! The names in a checkpoint and in a model differ in two ways only: a checkpoint of the bare
//! encoder leaves out the model's prefix (`bert.`), and early ones say `gamma` and `beta` for
//! the weight and bias of a LayerNorm. Everything else must fit exactly, or is named.

use crate::backbone::Backbone;
use crate::error::Lines;
use crate::{Error, Result};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Kind, Tensor};

/// What loading did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// How many tensors were loaded.
    pub loaded: usize,
    /// Tensors of the head that the file has not: they keep their random start.
    pub new: Vec<String>,
    /// Tensors of the file that the model has no place for.
    pub unused: Vec<String>,
}

/// Loads `path` into `backbone`. Nothing changes unless everything fits.
///
/// # Errors
/// The file is damaged, or a tensor of the model (other than its head's) is missing from it or
/// has another shape there. All of them are named.
pub fn load(backbone: &dyn Backbone, path: &Path) -> Result<LoadReport> {
    let file = open(path)?;
    let mut in_file: BTreeMap<String, TensorView> = BTreeMap::new();
    for (name, view) in parse(path, &file)?.iter() {
        let modern = match name.rsplit_once('.') {
            Some((stem, "gamma")) => format!("{stem}.weight"),
            Some((stem, "beta")) => format!("{stem}.bias"),
            _ => name.to_string(),
        };
        in_file.insert(modern, view);
    }
    let variables: BTreeMap<String, Tensor> =
        backbone.var_store().variables().into_iter().collect();

    let mut report = LoadReport::default();
    let mut problems = Vec::new();
    let mut loads = Vec::new();
    for (name, variable) in variables {
        let bare = name.strip_prefix(backbone.prefix()).unwrap_or(&name);
        let view = in_file.remove(&name).or_else(|| in_file.remove(bare));
        let is_head = backbone.head().iter().any(|h| in_module(&name, h));
        match view {
            None if is_head => report.new.push(name),
            None => problems.push(format!("`{name}` is missing from it")),
            Some(view) => {
                let found: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
                if found == variable.size() {
                    loads.push((variable, view));
                } else if is_head {
                    // A head for another number of labels is no head for this task.
                    report.new.push(name);
                } else {
                    problems.push(format!(
                        "`{name}` has shape {found:?} there, {:?} in the model",
                        variable.size()
                    ));
                }
            }
        }
    }
    if !problems.is_empty() {
        return Err(Error::Weights { path: path.to_path_buf(), problems: Lines(problems) });
    }
    report.loaded = loads.len();
    // Position ids are 0, 1, 2, …: a buffer that some versions of transformers saved.
    report.unused = in_file.into_keys().filter(|n| !n.ends_with("position_ids")).collect();
    tch::no_grad(|| {
        for (mut variable, view) in loads {
            variable.f_copy_(&to_tensor(path, &view)?)?;
        }
        Ok(report)
    })
}

/// Gives the tensors in `names` (of a new head) their start: weights N(0, 0.02), as
/// transformers initialises a head, biases 0. The same seed and name give the same values.
pub fn initialise(backbone: &dyn Backbone, names: &[String], seed: u64) {
    const STD: f64 = 0.02;
    let variables = backbone.var_store().variables();
    tch::no_grad(|| {
        for name in names {
            if let Some(variable) = variables.get(name) {
                let mut variable = variable.shallow_clone();
                let start = if variable.dim() < 2 {
                    variable.zeros_like()
                } else {
                    aflora_core::adapter::normal(&variable.size(), STD, seed, name)
                };
                variable.copy_(&start);
            }
        }
    });
}

/// Whether the parameter `name` belongs to `module` or to something inside it.
pub fn in_module(name: &str, module: &str) -> bool {
    name.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// A file's bytes, mapped: pages are read when they are copied to their place.
pub(crate) fn open(path: &Path) -> Result<memmap2::Mmap> {
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    // SAFETY: the map is read while this process holds it; a file that another process cuts
    // short meanwhile would end this one, as with every program that maps its input.
    unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(path))
}

pub(crate) fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(bytes)
        .map_err(|e| Error::Safetensors { path: path.to_path_buf(), problem: format!("{e:?}") })
}

/// A tensor of a file, on the CPU in the kind of the file.
pub(crate) fn to_tensor(path: &Path, view: &TensorView) -> Result<Tensor> {
    let kind = match view.dtype() {
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F64 => Kind::Double,
        other => {
            return Err(Error::Safetensors {
                path: path.to_path_buf(),
                problem: format!("a tensor has type {other:?}; expected F64, F32, F16 or BF16"),
            })
        }
    };
    let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
    Ok(Tensor::f_from_data_size(view.data(), &shape, kind)?)
}

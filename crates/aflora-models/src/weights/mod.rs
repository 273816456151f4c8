//! Pretrained weights, by name, from every file format that real checkpoints come in.
//!
//! The names in a checkpoint and in a model differ in two ways only: a checkpoint of the bare
//! encoder leaves out the model's prefix (`bert.`), and early ones say `gamma` and `beta` for
//! the weight and bias of a LayerNorm. Everything else must fit exactly, or is named.

mod checkpoint;
mod pickle;
mod safetensors_file;
mod tensors;
#[allow(unsafe_code)]
mod view;

pub use checkpoint::{shards, Checkpoint, FILES};
pub use tensors::{read_tensors, write_tensors};

use crate::backbone::Backbone;
use crate::error::Lines;
use crate::{claims, Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// What loading did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// The files that were read.
    pub files: Vec<PathBuf>,
    /// How many tensors were loaded.
    pub loaded: usize,
    /// Tensors of the head that the file has not: they keep their random start.
    pub new: Vec<String>,
    /// Tensors of the file that the model has no place for.
    pub unused: Vec<String>,
}

/// Loads `path`, a file or a model's folder, into `backbone`. Nothing changes unless everything
/// fits.
///
/// # Errors
/// A file is damaged, or a tensor of the model (other than its head's) is missing from it or
/// has another shape there. All of them are named.
pub fn load(backbone: &dyn Backbone, path: &Path) -> Result<LoadReport> {
    let checkpoint = Checkpoint::open(path)?;
    let mut in_file: BTreeMap<String, (&str, &[i64])> =
        checkpoint.shapes().map(|(name, shape)| (modern(name), (name, shape))).collect();
    let variables: BTreeMap<String, Tensor> =
        backbone.var_store().variables().into_iter().collect();

    let mut report = LoadReport {
        files: checkpoint.files().map(Path::to_path_buf).collect(),
        ..Default::default()
    };
    let mut problems = Vec::new();
    let (mut loads, mut zeros) = (Vec::new(), Vec::new());
    for (name, variable) in variables {
        let bare = name.strip_prefix(backbone.prefix()).unwrap_or(&name);
        let mut found = in_file.remove(&name).or_else(|| in_file.remove(bare));
        let tied = backbone.tied().iter().find(|(tied, _)| *tied == name);
        for other in tied.iter().flat_map(|(_, others)| others.iter()) {
            let bare = other.strip_prefix(backbone.prefix()).unwrap_or(other);
            let copy = in_file.remove(*other).or_else(|| in_file.remove(bare));
            found = found.or(copy);
        }
        let may_be_new = backbone.new_modules().iter().any(|module| in_module(&name, module));
        match found {
            None if may_be_new => report.new.push(name),
            None if backbone.optional().contains(&name.as_str()) => zeros.push(variable),
            None => problems.push(format!("`{name}` is missing from it")),
            // A head for another number of labels is no head for this task.
            Some((_, shape)) if may_be_new && shape != variable.size() => report.new.push(name),
            Some((stored, _)) => match checkpoint.misfit(stored, &variable.size()) {
                Some(misfit) => problems.push(misfit),
                None => loads.push((variable, stored)),
            },
        }
    }
    if !problems.is_empty() {
        return Err(Error::Weights { path: path.to_path_buf(), problems: Lines(problems) });
    }
    report.loaded = loads.len();
    report.unused = in_file.into_keys().filter(|name| !is_buffer(name)).collect();
    tch::no_grad(|| {
        for mut variable in zeros {
            let _ = variable.f_zero_()?;
        }
        for (mut variable, stored) in loads {
            checkpoint.copy_to(stored, &mut variable)?;
        }
        Ok(report)
    })
}

/// Refuses a config.json that claims a larger model than the weights in `folder` are, before it
/// is built.
///
/// # Errors
/// The weights hold fewer numbers than the embeddings alone, or cannot be read.
pub fn check_size(folder: &Path, config: &Path) -> Result<()> {
    let elements = |shape: &[i64]| shape.iter().fold(1i64, |n, &d| n.saturating_mul(d));
    let checkpoint = Checkpoint::open(folder)?;
    let held = checkpoint.shapes().map(|(_, shape)| elements(shape)).fold(0, i64::saturating_add);
    match claims::embeddings(config) {
        Some(claimed) if claimed > held => Err(Error::Config {
            path: config.to_path_buf(),
            problem: format!(
                "it describes embeddings of {claimed} numbers, but the weights beside it are \
                 {held} in all: they are not of one model"
            ),
        }),
        _ => Ok(()),
    }
}

/// Whether `name` is no weight but something that follows from the config, which some versions
/// of transformers saved: position ids, causal masks, rotary frequencies.
fn is_buffer(name: &str) -> bool {
    const ENDS: [&str; 6] = [
        "position_ids",
        ".attn.bias",
        ".attn.masked_bias",
        ".attention.bias",
        ".attention.masked_bias",
        ".rotary_emb.inv_freq",
    ];
    ENDS.iter().any(|end| name.ends_with(end))
}

/// The name that newer checkpoints have for `name`.
fn modern(name: &str) -> String {
    match name.rsplit_once('.') {
        Some((stem, "gamma")) => format!("{stem}.weight"),
        Some((stem, "beta")) => format!("{stem}.bias"),
        _ => name.to_string(),
    }
}

/// Gives the tensors in `names` their start, as transformers does: weights N(0, 0.02), biases 0,
/// scales of a LayerNorm 1. The same seed and name give the same values.
pub fn initialise(backbone: &dyn Backbone, names: &[String], seed: u64) {
    const STD: f64 = 0.02;
    let variables = backbone.var_store().variables();
    tch::no_grad(|| {
        for name in names {
            if let Some(variable) = variables.get(name) {
                let mut variable = variable.shallow_clone();
                let start = if is_scale(name) {
                    variable.ones_like()
                } else if variable.dim() < 2 || name.ends_with("bias") {
                    variable.zeros_like()
                } else {
                    aflora_core::adapter::normal(&variable.size(), STD, seed, name)
                };
                variable.copy_(&start);
            }
        }
    });
}

/// Gives every weight of `backbone` a random start, for trying things out without a checkpoint.
pub fn initialise_all(backbone: &dyn Backbone, seed: u64) -> LoadReport {
    let mut names: Vec<String> = backbone.var_store().variables().into_keys().collect();
    names.sort_unstable();
    initialise(backbone, &names, seed);
    LoadReport { new: names, ..Default::default() }
}

/// Whether `name` is the scale of a normalisation: `LayerNorm.weight`, `sa_layer_norm.weight`,
/// LLaMA's `norm.weight`, GPT's `ln_1.weight`.
fn is_scale(name: &str) -> bool {
    let layer = name.strip_suffix(".weight").and_then(|stem| stem.rsplit('.').next());
    layer.is_some_and(|layer| {
        let plain = layer.to_lowercase().replace('_', "");
        plain.ends_with("norm") || plain.contains("layernorm") || layer.starts_with("ln_")
    })
}

/// Whether the parameter `name` belongs to `module` or to something inside it.
pub fn in_module(name: &str, module: &str) -> bool {
    name.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

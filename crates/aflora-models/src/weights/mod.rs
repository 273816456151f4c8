//! Pretrained weights, by name, from every file format that real checkpoints come in.

mod bitsandbytes;
mod checkpoint;
mod contents;
mod gguf_file;
mod head;
mod load;
mod names;
mod pickle;
mod plan;
mod safetensors_file;
mod sound;
mod tensors;
#[allow(unsafe_code)]
mod view;

pub(crate) use bitsandbytes::tensors as bitsandbytes_tensors;
pub use checkpoint::{are_whole, files, shards, Checkpoint, FILES};
pub use load::{check_for, load, load_beside, load_for, share, LoadReport};
pub use tensors::{read_tensors, write_tensors};

use crate::backbone::Backbone;
use crate::{claims, Error, Result};
use std::path::Path;

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

/// Gives the tensors in `names` their start, as transformers does: weights N(0, 0.02); biases and
/// what norms scale by keep what they were made with, zeros and ones (zeros where a norm scales by
/// 1 + w). The same seed and name give the same values.
///
/// # Errors
/// libtorch refuses: the device has not the memory.
pub fn initialise(backbone: &dyn Backbone, names: &[String], seed: u64) -> Result<()> {
    const STD: f64 = 0.02;
    let (variables, elsewhere) = (backbone.var_store().variables(), backbone.elsewhere());
    tch::no_grad(|| {
        for name in names {
            if let Some(variable) = variables.get(name) {
                let mut variable = variable.shallow_clone();
                if variable.dim() >= 2 && !name.ends_with("bias") {
                    let start = aflora_core::adapter::normal(&variable.size(), STD, seed, name);
                    match elsewhere.get(name) {
                        Some(layer) => layer.put(&start.to_device(variable.device()))?,
                        None => variable.copy_(&start),
                    }
                }
            }
        }
        Ok(())
    })
}

/// Gives every weight of `backbone` a random start, for trying things out without a checkpoint.
///
/// # Errors
/// As [`initialise`].
pub fn initialise_all(backbone: &dyn Backbone, seed: u64) -> Result<LoadReport> {
    let mut names: Vec<String> = backbone.var_store().variables().into_keys().collect();
    names.sort_unstable();
    initialise(backbone, &names, seed)?;
    Ok(LoadReport { new: names, ..Default::default() })
}

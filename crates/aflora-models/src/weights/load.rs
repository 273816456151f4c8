//! Loading a checkpoint into a model, and finding out beforehand whether that would go well.

use super::plan::LoadPlan;
use super::{sound, Checkpoint};
use crate::backbone::Backbone;
use crate::{said, Error, Result};
use aflora_core::nn::{self, LinearHandle};
use aflora_core::shapes_only;
use aflora_core::weight::FrozenWeight;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

/// What loading did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// The files that were read.
    pub files: Vec<PathBuf>,
    /// How many tensors were loaded.
    pub loaded: usize,
    /// Tensors of the head that the file has not, or has for other labels: they keep their random
    /// start.
    pub new: Vec<String>,
    /// Tensors of the file that the model has no place for.
    pub unused: Vec<String>,
    /// What is odd: where config.json and the weights contradict each other, and weights that are
    /// no numbers. Each was logged as a warning, too.
    pub warnings: Vec<String>,
}

/// Loads `path`, a file or a model's folder, into `backbone`. Nothing changes unless everything
/// fits. A head that the file has is taken as it stands if its shape fits.
///
/// # Errors
/// A file is damaged, or a tensor of the model (other than its head's) is missing from it or
/// has another shape there. All of them are named.
pub fn load(backbone: &dyn Backbone, path: &Path) -> Result<LoadReport> {
    load_with(backbone, path, None)
}

/// [`load`] for a task with these classes, each by the names that it goes by, in the order of the
/// model's logits; with none, for a score. A head that the file has, with names in the config.json
/// beside it, is put into that order by name; one for other classes is left out, and new.
///
/// # Errors
/// As [`load`].
pub fn load_for(backbone: &dyn Backbone, path: &Path, classes: &[&[&str]]) -> Result<LoadReport> {
    load_with(backbone, path, Some(classes))
}

/// [`load`] for a model beside `loaded`, into which the same files were: what the two have alike lies
/// in memory once, and is not read again. `backbone` may be made of [shapes](shapes_only); what
/// changes its weights afterwards, adapters and heads of another task, leaves those of `loaded` as
/// they are ([`share`]).
///
/// # Errors
/// As [`load`].
pub fn load_beside(
    backbone: &dyn Backbone,
    path: &Path,
    loaded: &dyn Backbone,
) -> Result<LoadReport> {
    let checkpoint = Checkpoint::open(path)?;
    let mut plan = LoadPlan::new(backbone, &checkpoint, path, None)?;
    let old = |name: &str| !plan.new.iter().any(|new| new == name);
    let own = share(loaded, backbone, old)?;
    plan.loads.retain(|(name, ..)| own.contains(name));
    fill(backbone, path, &checkpoint, plan)
}

/// [`nn::share()`] between models: what both hold in few bits is shared as its codes, and what one of
/// them holds so alone is not shared. Gives the names of the weights of `to` that are its own, sorted.
///
/// # Errors
/// As [`nn::share()`].
pub fn share(
    from: &dyn Backbone,
    to: &dyn Backbone,
    which: impl Fn(&str) -> bool,
) -> Result<Vec<String>> {
    let (lent, quantised) = (from.quantised(), to.quantised());
    // Of what is in codes the variable is only a place, which may be any.
    let variable =
        |name: &str| quantised.contains_key(name) || (which(name) && !lent.contains_key(name));
    let mut own = nn::share(from.var_store(), to.var_store(), variable)?;
    for (name, layer) in &quantised {
        match lent.get(name).filter(|_| which(name)).map(|layer| layer.weight()) {
            Some(FrozenWeight::Quantised(weight)) => layer.put_codes(weight)?,
            _ => own.push(name.clone()),
        }
    }
    own.sort_unstable();
    own.dedup();
    Ok(own)
}

/// Whether [`load_for`] would find everything in `path` that it needs, by names and shapes alone:
/// `backbone` may be made of [shapes](shapes_only). What is odd is logged as a warning.
///
/// # Errors
/// As [`load`].
pub fn check_for(backbone: &dyn Backbone, path: &Path, classes: &[&[&str]]) -> Result<()> {
    let checkpoint = Checkpoint::open(path)?;
    let plan = shapes_only(|| LoadPlan::new(backbone, &checkpoint, path, Some(classes)))?;
    tell(path, &plan.warnings);
    Ok(())
}

fn load_with(
    backbone: &dyn Backbone,
    path: &Path,
    classes: Option<&[&[&str]]>,
) -> Result<LoadReport> {
    let checkpoint = Checkpoint::open(path)?;
    let plan = LoadPlan::new(backbone, &checkpoint, path, classes)?;
    fill(backbone, path, &checkpoint, plan)
}

/// Copies what `plan` says.
fn fill(
    backbone: &dyn Backbone,
    path: &Path,
    checkpoint: &Checkpoint,
    mut plan: LoadPlan,
) -> Result<LoadReport> {
    let elsewhere = backbone.elsewhere();
    tch::no_grad(|| {
        for variable in &mut plan.zeros {
            let _ = variable.f_zero_()?;
        }
        let mut dense = Vec::new();
        for (name, variable, stored) in &mut plan.loads {
            match elsewhere.get(name) {
                Some(layer) => plan.warnings.extend(put(checkpoint, stored, layer)?),
                None => {
                    checkpoint.copy_to(stored, variable)?;
                    plan.head.reorder(name, variable)?;
                    dense.push((&*variable, *stored));
                }
            }
        }
        plan.warnings.extend(sound::unsound(&dense)?);
        Ok::<_, Error>(())
    })?;
    tell(path, &plan.warnings);
    backbone.frame().set_lacked(plan.lacked, &plan.new);
    Ok(LoadReport {
        files: checkpoint.files().map(Path::to_path_buf).collect(),
        loaded: plan.loads.len(),
        new: plan.new,
        unused: plan.unused,
        warnings: plan.warnings,
    })
}

/// Gives `layer` the tensor `stored`, in few bits by way of its own numbers in single precision on the
/// layer's device; gives what is odd about it.
fn put(checkpoint: &Checkpoint, stored: &str, layer: &LinearHandle) -> Result<Vec<String>> {
    let kind = match layer.format() {
        None => layer.ws.kind(),
        // As the file has them, whatever the format: to restore and quantise them again would cost twice.
        Some(format) => match checkpoint.few_bits(stored)?.filter(|_| !layer.transposed) {
            Some(codes) => {
                layer.put_codes(codes.to_device(layer.ws.device()).multiplied_as(format))?;
                return Ok(Vec::new());
            }
            None => Kind::Float,
        },
    };
    let mut whole = Tensor::f_empty(layer.ws.size(), (kind, layer.ws.device()))?;
    checkpoint.copy_to(stored, &mut whole)?;
    layer.put(&whole)?;
    sound::unsound(&[(&whole, stored)])
}

fn tell(path: &Path, warnings: &[String]) {
    for warning in warnings {
        said::warn(path, warning);
    }
}

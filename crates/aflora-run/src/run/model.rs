//! The model of a configuration: built, loaded, and what works for its task with it.

use super::model_files::ModelFiles;
use crate::config::{Precision, Resolved, WeightsFrom};
use crate::kinds::{ModelContext, Processor};
use crate::precision::{self, Base};
use crate::usage;
use aflora_core::Method;
use aflora_models::weights::{self, LoadReport};
use aflora_models::{Backbone, Options};
use anyhow::Result;
use tch::{Device, Kind};

/// The model of a configuration, its weights neither loaded nor initialised.
///
/// # Errors
/// The model's config.json is missing, damaged or of a kind that is not built, or no module has a
/// name that `train_modules` gives.
pub fn build_model(
    resolved: &Resolved,
    files: &ModelFiles,
    device: Device,
    base: Base,
) -> Result<Box<dyn Backbone>> {
    let options = Options {
        device,
        base: base.kind,
        format: base.format,
        train_modules: resolved.model.train_modules.clone(),
        checkpointing: resolved.model.gradient_checkpointing,
    };
    let kind = &resolved.model.backbone;
    Ok(aflora_models::build(kind, &files.config, resolved.task.head(), &options)?)
}

/// The [model](build_model) without its weights: its tensors have shapes and no memory, so that it
/// can be inspected and not run.
///
/// # Errors
/// Those of [`build_model`].
pub fn build_shapes(resolved: &Resolved, files: &ModelFiles) -> Result<Box<dyn Backbone>> {
    let base = Base { kind: Kind::Float, format: resolved.run.precision.format() };
    aflora_models::shapes_only(|| build_model(resolved, files, Device::Cpu, base))
}

/// The model of a configuration with its weights, those of its checkpoint or random ones, and what
/// loading them did. In a `fresh` one the head's classes are the task's, by their names; else a
/// head is to come that was trained.
///
/// # Errors
/// The model cannot be built, or its weights are missing, damaged, or another model's.
pub fn load_model(
    resolved: &Resolved,
    files: &ModelFiles,
    device: Device,
    base: Base,
    fresh: bool,
) -> Result<(Box<dyn Backbone>, LoadReport)> {
    let (from, seed) = (resolved.model.weights, resolved.run.seed);
    if from == WeightsFrom::Pretrained {
        weights::check_size(&files.folder, &files.config)?;
    }
    let backbone = build_model(resolved, files, device, base)?;
    let report = match from {
        WeightsFrom::Pretrained => {
            let (model, folder) = (backbone.as_ref(), &files.folder);
            let report = match fresh {
                true => resolved
                    .task
                    .with_class_names(|classes| weights::load_for(model, folder, classes))?,
                false => weights::load(model, folder)?,
            };
            weights::initialise(model, &report.new, seed)?;
            report
        }
        WeightsFrom::Random => weights::initialise_all(backbone.as_ref(), seed)?,
    };
    Ok((backbone, report))
}

/// The [model](load_model) of a configuration beside `loaded`, one of the same files: what the two
/// have alike lies in memory once. A head is to come that was trained.
///
/// # Errors
/// As [`load_model`].
pub fn load_beside(
    resolved: &Resolved,
    files: &ModelFiles,
    loaded: &dyn Backbone,
    device: Device,
    base: Base,
) -> Result<Box<dyn Backbone>> {
    let backbone = aflora_models::shapes_only(|| build_model(resolved, files, device, base))?;
    let new = match resolved.model.weights {
        WeightsFrom::Pretrained => {
            weights::load_beside(backbone.as_ref(), &files.folder, loaded)?.new
        }
        WeightsFrom::Random => weights::share(loaded, backbone.as_ref(), |_| true)?,
    };
    weights::initialise(backbone.as_ref(), &new, resolved.run.seed)?;
    Ok(backbone)
}

/// Whether the method trains weights of the model itself.
pub fn trains_weights(method: &dyn Method) -> bool {
    ["layer.weight", "layer.bias"].iter().any(|name| method.trains(name))
}

/// Refuses a precision that the method cannot train in.
///
/// # Errors
/// The method trains the model's own weights, and bf16 is asked for, or few bits for what trains.
pub fn check_precision(resolved: &Resolved, method: &dyn Method) -> Result<()> {
    if resolved.run.precision.format().is_some() && method.trains("layer.weight") {
        usage!(
            "the method `{}` trains the model's own weights, which cannot be held in few bits \
             meanwhile; set precision=fp32, or leave it out",
            method.name()
        );
    }
    if trains_weights(method) && resolved.run.precision == Precision::Bf16 {
        usage!(
            "the method `{}` trains the model's own weights, whose updates bf16 would round away; \
             set precision=fp32, or leave it out",
            method.name()
        );
    }
    Ok(())
}

/// How the frozen weights are held, as the run has it. A method that trains the model's own weights has
/// them in single precision; for others `work` may be asked for the size of the model's products
/// ([`precision::choose`]).
///
/// # Errors
/// As [`check_precision`], and those of `work`.
pub fn base_kind(
    resolved: &Resolved,
    method: &dyn Method,
    device: Device,
    work: impl FnOnce() -> Result<f64>,
) -> Result<Base> {
    check_precision(resolved, method)?;
    match resolved.run.precision {
        asked @ (Precision::Fp32 | Precision::Tf32 | Precision::Bf16) => {
            precision::choose(asked, device, work)
        }
        asked if trains_weights(method) => Ok(Base { kind: Kind::Float, format: asked.format() }),
        asked => precision::choose(asked, device, work),
    }
}

/// What works for the task of a configuration with `backbone`, its model, which may have shapes
/// alone.
///
/// # Errors
/// Those of [`TaskKind::processor`](crate::kinds::TaskKind::processor).
pub fn processor(
    resolved: &Resolved,
    files: &ModelFiles,
    backbone: &dyn Backbone,
    device: Device,
) -> Result<Box<dyn Processor>> {
    let (task, max_length) = (&resolved.task, resolved.run.max_length);
    let source = files.source();
    task.rules().processor(&ModelContext { task, source, backbone, max_length, device })
}

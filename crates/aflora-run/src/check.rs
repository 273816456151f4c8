//! What can be checked of a run before it trains, for `aflora validate`: everything at once, and
//! nothing is fetched.

use crate::config::{ConfigErrors, Problem, Resolved, WeightsFrom};
use crate::device;
use crate::feed::{DataError, Dataset};
use crate::is_usage;
use crate::kinds::{Processor, Splits};
use crate::refused::Refused;
use crate::run::fits::{self, adapted, problem, Shapes};
use crate::run::location::RunLocation;
use crate::run::model::{check_base, processor};
use crate::run::model_files::{self, locator, ModelFiles};
use crate::run::passes::Passes;
use crate::run::prepare::{load_examples, steps_per_epoch};
use crate::ui::Progress;
use aflora_core::RunLength;
use aflora_cuda::World;
use aflora_models::{weights, Backbone};
use anyhow::Result;
use tch::Device;

/// What was found.
#[derive(Default)]
struct Checks {
    problems: Vec<Problem>,
    usage: bool,
    unseen: Vec<String>,
}

impl Checks {
    /// Keeps a result, or notes what is wrong.
    fn take<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.refuse(&error)).ok()
    }

    fn refuse(&mut self, error: &anyhow::Error) {
        self.usage |= is_usage(error);
        self.problems.push(problem(error));
    }
}

/// Makes every check that needs no training, and gives what could not be looked at, because it
/// would have to be fetched first.
///
/// # Errors
/// Everything that would end the run before it begins.
pub fn all(resolved: &Resolved, progress: &mut dyn Progress) -> Result<Vec<String>, Refused> {
    let mut checks = Checks::default();
    let kind = aflora_models::check_kind(&resolved.model.backbone, resolved.task.head());
    let kind = checks.take(kind.map_err(Into::into));
    checks.take(device::choose(resolved.run.device, &World::alone()));
    let method = checks.take(resolved.method.build().map_err(Into::into));
    if let Some(method) = &method {
        checks.take(check_base(resolved, method.as_ref()));
    }
    if let Some(folder) = &resolved.run.run_dir {
        checks.take(RunLocation::check(folder, &mut resolved.clone()));
    }

    let mut locator = locator(resolved);
    let fetches = !locator.hub.is_offline();
    locator.hub = locator.hub.without_network();
    let name = &resolved.model.model;
    let (mut parameters, mut processor) = (None, None);
    // Those that a run would read; if they are not all there, those that can be looked at.
    let mut find = |runs| model_files::find(resolved, &locator, None, runs, progress);
    match find(true).or_else(|_| find(false)) {
        Ok(mut files) if kind.is_some() => {
            if let Some(folder) = &resolved.run.adapter {
                files = files.with_tokenizer_of(folder);
            }
            files.on_hub &= fetches;
            let shapes = checks.take(fits::model(resolved, &files));
            let backbone = shapes.map(|Shapes { backbone, problems }| {
                checks.usage |= !problems.is_empty();
                checks.problems.extend(problems);
                backbone
            });
            processor = files_of(resolved, &files, backbone.as_deref(), &mut checks);
            if let (Some(backbone), Some(method)) = (backbone, &method) {
                let adapted = checks.take(adapted(backbone, resolved, method.as_ref()));
                parameters = adapted.map(|adapted| adapted.parameters());
            }
        }
        Ok(_) => {}
        Err(_) if fetches && resolved.model.repo.is_some() => {
            checks.unseen.push(format!("the model `{name}`, which is still on the hub"));
        }
        Err(error) => checks.refuse(&error),
    }

    match load_examples(&resolved.task, &locator, &resolved.run, progress) {
        Ok(Dataset { train, evals, test, .. }) => {
            let mut rows = train.len();
            // What becomes of them with the model: a chat template may refuse some, and packs are
            // fewer than rows.
            if let Some(processor) = processor {
                let splits = Splits { train, evals, test };
                let passes = Passes::new(resolved.run.eval_batch_size);
                let objective = processor.objective(splits, &passes, None, progress);
                rows = checks.take(objective).map_or(rows, |found| found.training_rows());
            }
            let steps_per_epoch = steps_per_epoch(rows, &resolved.run);
            let total_steps = resolved.run.total_steps(steps_per_epoch);
            let length = RunLength { steps_per_epoch, total_steps };
            if let (Some(method), Some(parameters)) = (method, parameters) {
                checks.take(method.hook(length, &parameters).map_err(Into::into));
            }
        }
        Err(error) => match error.downcast_ref() {
            Some(DataError::NotFound { .. }) if fetches && resolved.task.dataset.is_on_hub() => {
                let task = resolved.task.name();
                checks.unseen.push(format!("the data of `{task}`, which are still on the hub"));
            }
            _ => checks.refuse(&error),
        },
    }
    match checks.problems.is_empty() {
        true => Ok(checks.unseen),
        false => Err(Refused { problems: ConfigErrors(checks.problems), usage: checks.usage }),
    }
}

/// The weights and the tokenizer, as far as they are there; gives what makes tokens of rows, where
/// all that takes is there and right.
fn files_of(
    resolved: &Resolved,
    files: &ModelFiles,
    backbone: Option<&dyn Backbone>,
    checks: &mut Checks,
) -> Option<Box<dyn Processor>> {
    let (name, folder) = (&resolved.model.model, &files.folder);
    if resolved.model.weights == WeightsFrom::Pretrained {
        if files.on_hub && !weights::are_whole(folder) {
            checks.unseen.push(format!("the weights of `{name}`, which are still on the hub"));
        } else {
            checks.take(fit(resolved, files, backbone));
        }
    }
    if files.on_hub && !files.have_tokenizer() {
        checks.unseen.push(format!("the tokenizer of `{name}`, which is still on the hub"));
        return None;
    }
    // What is wrong with the model itself was told.
    backbone.and_then(|backbone| checks.take(tokens(resolved, files, backbone)))
}

/// Whether the weights are the model's.
fn fit(resolved: &Resolved, files: &ModelFiles, backbone: Option<&dyn Backbone>) -> Result<()> {
    weights::check_size(&files.folder, &files.config)?;
    let Some(backbone) = backbone else { return Ok(()) };
    let check = |classes: &[&[&str]]| weights::check_for(backbone, &files.folder, classes);
    Ok(resolved.task.with_class_names(check)?)
}

/// The tokenizer, if it can be read and belongs to the model.
fn tokens(
    resolved: &Resolved,
    files: &ModelFiles,
    backbone: &dyn Backbone,
) -> Result<Box<dyn Processor>> {
    let processor = processor(resolved, files, backbone, Device::Cpu)?;
    // An adapter with a tokenizer of its own may bring the words, too.
    if files.tokenizer == files.folder {
        fits::vocabulary(files, processor.vocab_size(), backbone)?;
    }
    Ok(processor)
}

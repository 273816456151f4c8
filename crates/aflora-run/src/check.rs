//! What can be checked of a run before it trains: [`all`] for `aflora validate`, which finds
//! everything at once and fetches nothing; [`model`] for every run, too, before its weights are
//! read.

use crate::config::{ConfigErrors, Problem, Resolved, WeightsFrom};
use crate::device;
use crate::feed::DataError;
use crate::is_usage;
use crate::run::model_files::{self, locator, ModelFiles};
use crate::run::place::Place;
use crate::run::prepare::{build_shapes, check_precision, load_examples, steps_per_epoch, texts};
use crate::task::Kind as TaskKind;
use crate::ui::{words, Progress};
use aflora_core::{Method, RunLength};
use aflora_models::{shapes_only, tokenizer, weights, AdaptedModel, Backbone, TextEncoder};
use anyhow::Result;
use tch::Kind;

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

/// All that would end a run before it trains.
#[derive(Debug, thiserror::Error)]
#[error("{problems}")]
pub struct Refused {
    /// What it is.
    problems: ConfigErrors,
    /// Whether some of it is a wrong call, a wrong configuration or missing data: all else is only
    /// found where those are not.
    pub(crate) usage: bool,
}

fn problem(error: &anyhow::Error) -> Problem {
    Problem::at(None, words(error))
}

/// A model of which only the shapes are there, built once for all that looks at it.
#[derive(Debug)]
pub struct Shapes {
    backbone: Box<dyn Backbone>,
    problems: Vec<Problem>,
}

impl Shapes {
    /// The model.
    pub fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }

    /// Refuses what does not go together: of the model, and of it with its adapters.
    ///
    /// # Errors
    /// All of it.
    pub fn accept(self, resolved: &Resolved, method: &dyn Method) -> Result<()> {
        let Shapes { backbone, mut problems } = self;
        match adapted(backbone, resolved, method) {
            Err(error) if is_usage(&error) => problems.push(problem(&error)),
            made => drop(made?),
        }
        match problems.is_empty() {
            true => Ok(()),
            false => Err(ConfigErrors(problems).into()),
        }
    }
}

/// The model with the shapes of its adapters where they are wanted.
fn adapted(
    backbone: Box<dyn Backbone>,
    resolved: &Resolved,
    method: &dyn Method,
) -> Result<AdaptedModel> {
    let (targets, modules) = (resolved.model.targets(), &resolved.model.train_modules);
    let seed = resolved.run.seed;
    let make = || AdaptedModel::new(backbone, method, &targets, modules, Kind::Float, seed);
    Ok(shapes_only(make)?)
}

/// Whether the model can do what is asked of it: checkpoint its layers, read and write texts of
/// that length. Its weights are not needed.
///
/// # Errors
/// The model's config.json is damaged, or describes a model that is not built.
pub fn model(resolved: &Resolved, files: &ModelFiles) -> Result<Shapes> {
    let (backbone, mut problems) = shapes(resolved, files)?;
    let (length, positions) = (resolved.run.max_length, backbone.max_positions());
    if length as i64 > positions {
        let name = &resolved.model.model;
        let message = format!(
            "max_length is {length}, but the model `{name}` reads at most {positions} tokens; set \
             max_length={positions}"
        );
        problems.push(Problem::at(None, message));
    }
    let target = resolved.task.max_target_length;
    let decodes = backbone.writer().is_some_and(|writer| writer.tokens().decoder_start.is_some());
    if decodes && target as i64 > positions {
        let name = &resolved.model.model;
        let message = format!(
            "task.max_target_length is {target}, but the model `{name}` writes at most {positions} \
             tokens; set task.max_target_length={positions}"
        );
        problems.push(Problem::at(None, message));
    }
    Ok(Shapes { backbone, problems })
}

/// The model without its weights. One that is not built as it is asked for is looked at as it is
/// built.
fn shapes(resolved: &Resolved, files: &ModelFiles) -> Result<(Box<dyn Backbone>, Vec<Problem>)> {
    match build_shapes(resolved, files) {
        Ok(backbone) => Ok((backbone, Vec::new())),
        Err(error) if resolved.model.gradient_checkpointing && is_usage(&error) => {
            let mut plain = resolved.clone();
            plain.model.gradient_checkpointing = false;
            Ok((build_shapes(&plain, files)?, vec![problem(&error)]))
        }
        Err(error) => Err(error),
    }
}

/// Makes every check that needs no training, and gives what could not be looked at, because it
/// would have to be fetched first.
///
/// # Errors
/// Everything that would end the run before it begins.
pub fn all(resolved: &Resolved, progress: &mut dyn Progress) -> Result<Vec<String>, Refused> {
    let mut checks = Checks::default();
    let kind = aflora_models::check_kind(&resolved.model.backbone, resolved.task.kind.purpose());
    let kind = checks.take(kind.map_err(Into::into));
    checks.take(device::choose(resolved.run.device));
    let method = checks.take(resolved.method.build().map_err(Into::into));
    if let Some(method) = &method {
        checks.take(check_precision(resolved, method.as_ref()));
    }
    if let Some(folder) = &resolved.run.run_dir {
        checks.take(Place::check(folder, &mut resolved.clone()));
    }

    let mut locator = locator(resolved);
    let fetches = !locator.hub.is_offline();
    locator.hub = locator.hub.without_network();
    let name = &resolved.model.model;
    let mut parameters = None;
    // Those that a run would read; if they are not all there, those that can be looked at.
    let mut find = |runs| model_files::find(resolved, &locator, None, runs, progress);
    match find(true).or_else(|_| find(false)) {
        Ok(mut files) if kind.is_some() => {
            files.on_hub &= fetches;
            let shapes = checks.take(model(resolved, &files));
            let backbone = shapes.map(|Shapes { backbone, problems }| {
                checks.usage |= !problems.is_empty();
                checks.problems.extend(problems);
                backbone
            });
            files_of(resolved, &files, backbone.as_deref(), &mut checks);
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
        Ok(dataset) => {
            let steps_per_epoch = steps_per_epoch(dataset.train.len(), &resolved.run);
            let total_steps = steps_per_epoch * resolved.run.epochs as u64;
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

/// The weights and the tokenizer, as far as they are there.
fn files_of(
    resolved: &Resolved,
    files: &ModelFiles,
    backbone: Option<&dyn Backbone>,
    checks: &mut Checks,
) {
    let (name, folder) = (&resolved.model.model, &files.folder);
    if resolved.model.weights == WeightsFrom::Pretrained {
        if files.on_hub && !weights::are_whole(folder) {
            checks.unseen.push(format!("the weights of `{name}`, which are still on the hub"));
        } else {
            checks.take(fit(resolved, files, backbone));
        }
    }
    if files.on_hub && !tokenizer::FILES.iter().any(|file| folder.join(file).is_file()) {
        checks.unseen.push(format!("the tokenizer of `{name}`, which is still on the hub"));
        return;
    }
    // What is wrong with the model itself was told.
    if let Some(backbone) = backbone {
        checks.take(tokens(resolved, files, backbone));
    }
}

/// Whether the weights are the model's.
fn fit(resolved: &Resolved, files: &ModelFiles, backbone: Option<&dyn Backbone>) -> Result<()> {
    weights::check_size(&files.folder, &files.config)?;
    let Some(backbone) = backbone else { return Ok(()) };
    let check = |classes: &[&[&str]]| weights::check_for(backbone, &files.folder, classes);
    Ok(resolved.task.with_class_names(check)?)
}

/// Whether the tokenizer can be read, and belongs to the model.
fn tokens(resolved: &Resolved, files: &ModelFiles, backbone: &dyn Backbone) -> Result<()> {
    let known = match resolved.task.kind {
        TaskKind::Write => texts(resolved, files, backbone)?.vocab_size(),
        _ => TextEncoder::from_folder(&files.folder, resolved.run.max_length)?.vocab_size(),
    };
    vocabulary_fits(files, known, backbone)
}

/// Refuses a tokenizer that knows more tokens than the model.
///
/// # Errors
/// It does.
pub fn vocabulary_fits(files: &ModelFiles, known: i64, backbone: &dyn Backbone) -> Result<()> {
    if known > backbone.vocab_size() {
        anyhow::bail!(
            "{}: its tokenizer knows {known} tokens, but the model has embeddings for {}; they are \
             not of one model",
            files.folder.display(),
            backbone.vocab_size()
        );
    }
    Ok(())
}

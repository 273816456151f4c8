//! Whether a model fits what is asked of it, by its shapes alone.

use super::model::build_shapes;
use super::model_files::ModelFiles;
use crate::config::{ConfigErrors, Problem, Resolved};
use crate::is_usage;
use crate::ui::words;
use aflora_core::Method;
use aflora_models::{shapes_only, AdaptedModel, Backbone, Pattern};
use anyhow::Result;
use tch::Kind;

/// An error as a problem of the configuration.
pub fn problem(error: &anyhow::Error) -> Problem {
    Problem::at(None, words(error))
}

/// A model of which only the shapes are there, built once for all that looks at it.
#[derive(Debug)]
pub struct Shapes {
    /// The model.
    pub backbone: Box<dyn Backbone>,
    /// What it is asked for and cannot do.
    pub problems: Vec<Problem>,
}

impl Shapes {
    /// Refuses what does not go together: of the model, and of it with its adapters.
    ///
    /// # Errors
    /// Everything that does not go together, in one error.
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
///
/// # Errors
/// It takes none there.
pub fn adapted(
    backbone: Box<dyn Backbone>,
    resolved: &Resolved,
    method: &dyn Method,
) -> Result<AdaptedModel> {
    let (mut targets, modules) = (resolved.model.targets(), &resolved.model.train_modules);
    if let (true, Pattern::Names(names)) =
        (resolved.run.adapter.is_some(), &mut targets.target_modules)
    {
        // An adapter's folder may have some on further layers, and tells by itself what fits.
        let sites: Vec<&str> = backbone.linears().iter().map(|l| l.site.name.as_str()).collect();
        names.retain(|name| sites.contains(&name.as_str()));
    }
    let seed = resolved.run.seed;
    let make = || AdaptedModel::new(backbone, method, &targets, modules, Kind::Float, seed);
    Ok(shapes_only(make)?)
}

/// Whether the model can do what is asked of it: read and write texts of that length. Its weights are not needed.
///
/// # Errors
/// The model's config.json is damaged, or describes a model that is not built.
pub fn model(resolved: &Resolved, files: &ModelFiles) -> Result<Shapes> {
    let backbone = build_shapes(resolved, files)?;
    let mut problems = Vec::new();
    let (length, positions) = (resolved.run.max_length, backbone.about().max_positions);
    if length as i64 > positions {
        let name = &resolved.model.model;
        let message = format!(
            "max_length is {length}, but the model `{name}` reads at most {positions} tokens; set \
             max_length={positions}"
        );
        problems.push(Problem::at(None, message));
    }
    let target = resolved.task.max_target_length;
    let decodes = backbone
        .text_generator()
        .is_some_and(|generator| generator.tokens().decoder_start.is_some());
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

/// Refuses a tokenizer that knows more tokens than the model.
///
/// # Errors
/// It does.
pub fn vocabulary(files: &ModelFiles, known: i64, backbone: &dyn Backbone) -> Result<()> {
    if known > backbone.vocab_size() {
        anyhow::bail!(
            "{}: its tokenizer knows {known} tokens, but the model has embeddings for {}; they are \
             not of one model",
            files.tokenizer.display(),
            backbone.vocab_size()
        );
    }
    Ok(())
}

//! Everything that a run needs, looked up and loaded before anything is written.

use super::digests::Digests;
use super::eval_points::EvalPoints;
use super::fits;
use super::model::{base_kind, check_base, load_model_among, processor};
use super::model_files::{self, byte_progress, locator};
use super::objective::Objective;
use super::passes::Passes;
use super::rows;
use crate::config::{Resolved, RunSettings, WeightsFrom};
use crate::feed::{Dataset, Locator};
use crate::hub::FoundAdapter;
use crate::kinds::Splits;
use crate::precision::{self, Base};
use crate::task::{Example, TaskSpec};
use crate::ui::Progress;
use crate::{device, threads, usage, UsageError};
use aflora_core::{Method, Tuner};
use aflora_cuda::World;
use aflora_models::adapter_folder::{AdapterFolder, BaseModel};
use aflora_models::weights::{self, LoadReport};
use aflora_models::AdaptedModel;
use aflora_record::provenance::DataFile;
use anyhow::{Context, Result};
use std::path::PathBuf;
use tch::Device;

/// A run that can start.
#[derive(Debug)]
pub struct Prepared {
    /// The run's own settings.
    pub config: RunSettings,
    /// The method.
    pub method: Box<dyn Method>,
    /// The model with its adapters.
    pub model: AdaptedModel,
    /// The kind of its frozen weights.
    pub base: Base,
    /// The task with its rows.
    pub objective: Box<dyn Objective>,
    /// Where it computes.
    pub device: Device,
    /// Where the examples came from.
    pub data: Vec<DataFile>,
    /// The model that the adapters belong to, as others find it.
    pub base_model: BaseModel,
    /// The folder of the tokenizer, if it is not the model's own.
    pub tokenizer: Option<PathBuf>,
    /// The weights' files with their digests; none for random weights.
    pub weights: Vec<(PathBuf, String)>,
    /// What loading the weights did.
    pub loaded: LoadReport,
    /// Updates an epoch.
    pub steps_per_epoch: u64,
    /// The processes that train together.
    pub world: World,
}

impl Prepared {
    /// Updates of the whole run.
    pub fn total_steps(&self) -> u64 {
        self.config.total_steps(self.steps_per_epoch)
    }

    /// When it is evaluated.
    pub(super) fn eval_points(&self) -> EvalPoints {
        EvalPoints::new(self.config.eval_every, self.steps_per_epoch, self.total_steps())
    }

    /// What will do the training steps.
    ///
    /// # Errors
    /// The settings do not fit the length of the run.
    pub fn tuner(&self) -> aflora_core::Result<Tuner> {
        let mut tuner = Tuner::new(
            self.config.update.clone(),
            self.method.as_ref(),
            self.model.parameters(),
            self.steps_per_epoch,
            self.total_steps(),
        )?;
        tuner.join(self.world.clone());
        Ok(tuner)
    }
}

/// Looks up, checks and loads everything that `resolved` asks for.
///
/// # Errors
/// Data, weights or a device are missing or damaged, or the settings do not fit them.
pub fn prepare(resolved: &Resolved, progress: &mut dyn Progress) -> Result<Prepared> {
    prepare_among(resolved, World::alone(), progress)
}

/// [`prepare`] for one of the processes that train together.
///
/// # Errors
/// As there.
pub fn prepare_among(
    resolved: &Resolved,
    world: World,
    progress: &mut dyn Progress,
) -> Result<Prepared> {
    aflora_models::check_kind(&resolved.model.backbone, resolved.task.head())?;
    let config = resolved.run.clone();
    let device = device::start(config.device, &world)?;
    if let Some(wanted) = config.threads.or_else(|| threads::share(world.local().1)) {
        tch::set_num_threads(i32::try_from(threads::bounded(wanted)).context("threads")?);
    }
    let locator = locator(resolved);
    let files = model_files::find(resolved, &locator, None, true, progress)?;
    let files = match &config.adapter {
        Some(folder) => files.with_tokenizer_of(folder),
        None => files,
    };
    let method = resolved.method.build()?;
    check_base(resolved, method.as_ref())?;
    let shapes = fits::model(resolved, &files)?;
    let work = precision::rows_times_weights(shapes.backbone.as_ref(), config.batch_size);
    shapes.accept(resolved, method.as_ref())?;
    let dataset = load_examples(&resolved.task, &locator, &config, progress)?;

    let read = match resolved.model.weights {
        WeightsFrom::Pretrained => weights::files(&files.folder)?,
        WeightsFrom::Random => Vec::new(),
    };
    let digests = Digests::begin(read);
    tch::manual_seed(config.seed as i64);
    let base = base_kind(resolved, method.as_ref(), device, || Ok(work))?;
    let (backbone, loaded) = load_model_among(resolved, &files, device, base, true, &world)?;
    let model = match &config.adapter {
        Some(named) => {
            let found = FoundAdapter::find(named, &mut byte_progress(progress, "adapter"));
            let Some(found) = found.map_err(UsageError)? else {
                usage!("{} is no adapter any more", named.display());
            };
            let adapter = AdapterFolder::open(&found.folder)?.trained_as(resolved.method.clone());
            adapter.attach(backbone, base.kind)?
        }
        None => {
            let (targets, modules) = (resolved.model.targets(), &resolved.model.train_modules);
            AdaptedModel::new(backbone, method.as_ref(), &targets, modules, base.kind, config.seed)?
        }
    };
    let processor = processor(resolved, &files, model.backbone(), device)?;
    fits::vocabulary(&files, processor.vocab_size(), model.backbone())?;
    let Dataset { train, evals, test, files: data } = dataset;
    let sharded = model.backbone().sharded().cloned();
    let passes =
        Passes::among(config.eval_batch_size, world.clone(), sharded).recording(config.cuda_graphs);
    let cache = config.token_cache.as_deref();
    let objective = processor.objective(Splits { train, evals, test }, &passes, cache, progress)?;
    let model = model.with_noise(config.neftune_noise_alpha);
    Ok(Prepared {
        steps_per_epoch: steps_per_epoch(objective.training_rows(), &config),
        method,
        model,
        base,
        objective,
        device,
        data,
        tokenizer: (files.tokenizer != files.folder).then_some(files.tokenizer),
        base_model: files.base,
        weights: digests.wait().context("reading the weights for their digests")?,
        loaded,
        config,
        world,
    })
}

/// Updates an epoch over so many rows.
pub(crate) fn steps_per_epoch(rows: usize, config: &RunSettings) -> u64 {
    rows.div_ceil(config.batch_size).div_ceil(config.accumulate) as u64
}

/// The examples that a run uses.
///
/// # Errors
/// They are nowhere, incomplete or damaged, or nothing can be learned from those that are left.
pub(crate) fn load_examples(
    task: &TaskSpec,
    locator: &Locator,
    config: &RunSettings,
    progress: &mut dyn Progress,
) -> Result<Dataset<Example>> {
    let mut dataset = task.load(locator, &mut byte_progress(progress, "data"))?;
    rows::choose(&mut dataset.train, &mut dataset.evals, config);
    rows::limit(dataset.test.as_mut_slice(), config);
    task.check_training(&dataset.train, "the rows that `limit` and `holdout` leave")?;
    Ok(dataset)
}

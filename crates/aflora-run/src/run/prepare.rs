//! Everything that a run needs, looked up and loaded before anything is written.

use super::batches::EncodedSet;
use super::model_files::{self, byte_progress, locator};
use crate::config::{Resolved, RunSettings, WeightsFrom};
use crate::data::{check_training, Dataset, Example, Source, Task};
use crate::provenance::sha256;
use crate::ui::Progress;
use crate::{device, usage};
use aflora_core::{Method, Tuner};
use aflora_models::weights::{self, LoadReport};
use aflora_models::{AdaptedModel, TextEncoder};
use anyhow::{bail, Context, Result};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::PathBuf;
use tch::{Device, Kind};

/// A run that can start.
#[derive(Debug)]
pub struct Prepared {
    /// The task.
    pub task: Task,
    /// The run's own settings.
    pub config: RunSettings,
    /// The method.
    pub method: Box<dyn Method>,
    /// The model with its adapters.
    pub model: AdaptedModel,
    /// Training rows.
    pub train: EncodedSet,
    /// Evaluation rows by split.
    pub evals: Vec<(String, EncodedSet)>,
    /// The token that fills batches up.
    pub pad_id: i64,
    /// Where it computes.
    pub device: Device,
    /// Where the examples came from.
    pub sources: Vec<Source>,
    /// The weights' files with their digests; none for random weights.
    pub weights: Vec<(PathBuf, String)>,
    /// What loading the weights did.
    pub loaded: LoadReport,
    /// Updates an epoch.
    pub steps_per_epoch: u64,
}

impl Prepared {
    /// Updates of the whole run.
    pub fn total_steps(&self) -> u64 {
        self.steps_per_epoch * self.config.epochs as u64
    }

    /// What will do the training steps.
    ///
    /// # Errors
    /// The settings do not fit the length of the run.
    pub fn tuner(&self) -> aflora_core::Result<Tuner> {
        Tuner::new(
            self.config.tuner(),
            self.method.as_ref(),
            self.model.parameters(),
            self.steps_per_epoch,
            self.total_steps(),
        )
    }
}

/// Looks up, checks and loads everything that `resolved` asks for.
pub fn prepare(resolved: &Resolved, progress: &mut dyn Progress) -> Result<Prepared> {
    aflora_models::check_kind(&resolved.model.backbone)?;
    let config = resolved.run.clone();
    let device = device::choose(&config.device)?;
    if let Some(threads) = config.threads {
        tch::set_num_threads(i32::try_from(threads).context("threads")?);
    }
    let locator = locator(resolved);

    let files = model_files::find(resolved, &locator, true, progress)?;
    let encoder = TextEncoder::from_folder(&files.folder, config.max_length)?;
    let dataset = locator.load(resolved.task, &mut byte_progress(progress, "data"))?;
    let Dataset { train, evals, sources } = limited(dataset, &config)?;

    tch::manual_seed(config.seed as i64);
    let outputs = resolved.task.outputs();
    let kind = &resolved.model.backbone;
    let backbone = aflora_models::build(kind, &files.config, outputs, device)?;
    let loaded = match resolved.model.weights {
        WeightsFrom::Pretrained => {
            let report = weights::load(backbone.as_ref(), &files.folder)?;
            weights::initialise(backbone.as_ref(), &report.new, config.seed);
            report
        }
        WeightsFrom::Random => weights::initialise_all(backbone.as_ref(), config.seed),
    };
    if config.max_length as i64 > backbone.max_positions() {
        usage!(
            "max_length is {}, but the model `{}` reads at most {} tokens; set max_length={}",
            config.max_length,
            resolved.model.model,
            backbone.max_positions(),
            backbone.max_positions()
        );
    }
    if encoder.vocab_size() > backbone.vocab_size() {
        bail!(
            "{}: its tokenizer knows {} tokens, but the model has embeddings for {}; they are not of one model",
            files.folder.display(),
            encoder.vocab_size(),
            backbone.vocab_size()
        );
    }
    let method = resolved.method.build()?;
    let targets = resolved.model.targets();
    // A method that trains the model's own weights needs them in single precision.
    let own = backbone.var_store().variables().keys().any(|name| method.trains(name));
    let base = match config.precision.as_str() {
        "auto" if own => Kind::Float,
        precision => device::base_kind(precision, device)?,
    };
    if own && base != Kind::Float {
        usage!(
            "the method `{}` trains the model's own weights, whose updates bf16 would round away; \
             set precision=fp32, or leave it out",
            method.name()
        );
    }
    let model = AdaptedModel::new(
        backbone,
        method.as_ref(),
        &targets,
        &resolved.model.train_modules,
        base,
        config.seed,
    )?;
    let digest = |path: &PathBuf| Ok((path.clone(), sha256(path)?));
    let digests: std::io::Result<Vec<_>> = loaded.files.iter().map(digest).collect();
    let batches = train.len().div_ceil(config.batch_size);
    Ok(Prepared {
        task: resolved.task,
        steps_per_epoch: batches.div_ceil(config.accumulate) as u64,
        method,
        model,
        train: encode(&encoder, &train)?,
        evals: evals
            .into_iter()
            .map(|(name, rows)| Ok((name, encode(&encoder, &rows)?)))
            .collect::<Result<_>>()?,
        pad_id: encoder.pad_id(),
        device,
        sources,
        weights: digests.context("reading the weights for their digests")?,
        loaded,
        config,
    })
}

/// Cuts the splits to `limit` and `eval_limit`; rows are drawn with the seed, in file order.
fn limited(mut dataset: Dataset, config: &RunSettings) -> Result<Dataset> {
    if let Some(limit) = config.limit {
        draw(&mut dataset.train, limit, config.seed);
        check_training(&dataset.train, "the rows that `limit` leaves")?;
    }
    if let Some(limit) = config.eval_limit {
        for (_, rows) in &mut dataset.evals {
            // One sample for all seeds: runs that differ in the seed stay comparable.
            draw(rows, limit, 0);
        }
    }
    Ok(dataset)
}

fn draw(rows: &mut Vec<Example>, limit: usize, seed: u64) {
    if rows.len() <= limit {
        return;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut keys: Vec<(u64, usize)> = (0..rows.len()).map(|i| (rng.next_u64(), i)).collect();
    keys.sort_unstable();
    let mut keep = vec![false; rows.len()];
    for (_, row) in keys.into_iter().take(limit) {
        keep[row] = true;
    }
    let mut keep = keep.into_iter();
    rows.retain(|_| keep.next().unwrap_or(false));
}

fn encode(encoder: &TextEncoder, rows: &[Example]) -> Result<EncodedSet> {
    let texts: Vec<(&str, Option<&str>)> =
        rows.iter().map(|row| (row.text_a.as_str(), row.text_b.as_deref())).collect();
    let labels = rows.iter().map(|row| row.label).collect();
    Ok(EncodedSet { texts: encoder.encode(&texts)?, labels })
}

//! Everything that a run needs, looked up and loaded before anything is written.

use super::batches::EncodedSet;
use crate::config::{Resolved, RunSettings};
use crate::data::{check_training, Dataset, Example, Locator, Source, Task};
use crate::hub::{Hub, Repo};
use crate::provenance::sha256;
use crate::ui::Progress;
use crate::{config, device, usage};
use aflora_core::{Method, Tuner};
use aflora_models::weights::{self, LoadReport};
use aflora_models::{AdaptedModel, TextEncoder};
use anyhow::{bail, Context, Result};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::{Path, PathBuf};
use tch::Device;

/// A run that can start.
#[derive(Debug)]
pub struct Prepared {
    /// The task.
    pub task: Task,
    /// The run's own settings.
    pub config: RunSettings,
    /// The method, unless only the head trains.
    pub method: Option<Box<dyn Method>>,
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
    /// The weights' file and digest.
    pub weights: (PathBuf, String),
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
            self.method.as_deref().and_then(Method::freezing),
            self.model.parameters(),
            self.steps_per_epoch,
            self.total_steps(),
        )
    }
}

/// A model's files.
#[derive(Debug)]
pub struct ModelFiles {
    /// `config.json`.
    pub config: PathBuf,
    /// The folder that holds the tokenizer.
    pub folder: PathBuf,
}

/// Looks up, checks and loads everything that `resolved` asks for.
pub fn prepare(resolved: &Resolved, progress: &mut dyn Progress) -> Result<Prepared> {
    aflora_models::check_kind(&resolved.model.backbone)?;
    let config = resolved.run.clone();
    let device = device::choose(&config.device)?;
    if let Some(threads) = config.threads {
        tch::set_num_threads(i32::try_from(threads).context("threads")?);
    }
    let base = device::base_kind(&config.precision, device)?;
    let locator = locator(resolved);

    let files = find_model(resolved, &locator, progress)?;
    let encoder = TextEncoder::from_folder(&files.folder, config.max_length)?;
    let dataset = locator.load(resolved.task, &mut byte_progress(progress))?;
    let Dataset { train, evals, sources } = limited(dataset, &config)?;

    tch::manual_seed(config.seed as i64);
    let outputs = resolved.task.outputs();
    let kind = &resolved.model.backbone;
    let backbone = aflora_models::build(kind, &files.config, outputs, device)?;
    let weights_file = files.folder.join("model.safetensors");
    if !weights_file.is_file() {
        bail!("{}: there is no model.safetensors", files.folder.display());
    }
    let loaded = weights::load(backbone.as_ref(), &weights_file)?;
    weights::initialise(backbone.as_ref(), &loaded.new, config.seed);
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
    let model = AdaptedModel::new(
        backbone,
        method.as_deref().map(|m| (m, &targets)),
        &resolved.model.train_modules,
        base,
        config.seed,
    )?;
    let digest = sha256(&weights_file).context("reading the weights for their digest")?;
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
        weights: (weights_file, digest),
        loaded,
        config,
    })
}

/// The places where data and models are looked for.
pub fn locator(resolved: &config::Resolved) -> Locator {
    let mut named = Vec::new();
    if let Some(folder) = &resolved.run.data {
        named.push((format!("data={}", folder.display()), folder.clone()));
    }
    if let Some(folder) = std::env::var_os("AFLORA_DATA").filter(|v| !v.is_empty()) {
        named.push(("AFLORA_DATA".to_string(), PathBuf::from(folder)));
    }
    Locator { named, assets: resolved.project.join(".assets"), hub: Hub::from_env() }
}

/// The model's files: in a named folder, at its own path, or from the hub.
pub fn find_model(
    resolved: &Resolved,
    locator: &Locator,
    progress: &mut dyn Progress,
) -> Result<ModelFiles> {
    const NEEDED: &str = "config.json";
    let model = &resolved.model;
    let mut tried = String::new();
    let mut places: Vec<PathBuf> = Vec::new();
    for (_, folder) in &locator.named {
        places.push(folder.join(&model.model));
        places.push(folder.join("models").join(&model.model));
    }
    places.extend(model.path.as_ref().map(|path| resolved.project.join(path)));
    for folder in places {
        let config = folder.join(NEEDED);
        if config.is_file() {
            return Ok(ModelFiles { config, folder });
        }
        tried.push_str(&format!("\n  {}", config.display()));
    }
    if let (Some(repo), Some(revision)) = (&model.repo, &model.revision) {
        let repo = Repo { repo: repo.clone(), revision: revision.clone(), dataset: false };
        tried.push_str(&format!("\n  {}", locator.hub.cached(&repo, NEEDED).display()));
        match fetch_model(&locator.hub, &repo, progress) {
            Ok(config) => {
                let folder = config.parent().unwrap_or(Path::new(".")).to_path_buf();
                return Ok(ModelFiles { config, folder });
            }
            Err(error) => tried.push_str(&format!("\n  {error}")),
        }
    }
    let name = &model.model;
    usage!(
        "the model `{name}` was not found. Tried:{tried}\nName a folder that holds {name}/config.json, \
         {name}/model.safetensors and the tokenizer with DATA=folder, data=folder or AFLORA_DATA{}.",
        if name == "minilm" { "; `make assets` fetches this one" } else { "" }
    )
}

fn fetch_model(
    hub: &Hub,
    repo: &Repo,
    progress: &mut dyn Progress,
) -> Result<PathBuf, crate::hub::HubError> {
    let config = hub.get(repo, "config.json", &mut |_, _| {})?;
    hub.get(repo, "model.safetensors", &mut byte_progress(progress))?;
    // A repository has one of these; which one, the tokenizer's reader sorts out.
    for file in ["tokenizer.json", "vocab.txt", "tokenizer_config.json"] {
        if let Err(error) = hub.get(repo, file, &mut |_, _| {}) {
            tracing::debug!("{error}");
        }
    }
    Ok(config)
}

fn byte_progress(progress: &mut dyn Progress) -> impl FnMut(u64, Option<u64>) + '_ {
    let mut begun = false;
    move |done, total| {
        if !begun {
            progress.begin("download", total.unwrap_or(0));
            begun = true;
        }
        progress.update(done, "");
        if Some(done) == total {
            progress.end();
            begun = false;
        }
    }
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

//! A finished run, opened again: its model with its adapter, to predict with, merge or export.

use crate::config::{self, Resolved, WeightsFrom};
use crate::data::{Labels, Task, TaskSpec};
use crate::run::folder::{CONFIG, METRICS};
use crate::run::model_files::{self, locator, ModelFiles};
use crate::run::objective::write::Texts;
use crate::run::prepare::{base_kind, build_model, texts};
use crate::ui::Progress;
use crate::{device, precision, usage};
use aflora_models::adapter_folder::AdapterFolder;
use aflora_models::merged::Answers;
use aflora_models::{weights, AdaptedModel, TextEncoder};
use anyhow::Result;
use std::path::{Path, PathBuf};
use tch::{Device, Kind};

/// A run's folder and what it says.
#[derive(Debug)]
pub struct SavedRun {
    resolved: Resolved,
    files: ModelFiles,
    adapter: AdapterFolder,
}

impl SavedRun {
    /// Opens the run in `folder`; `data` is a further place to look for its model in.
    ///
    /// # Errors
    /// The run did not finish, or its model is nowhere.
    pub fn open(
        folder: &Path,
        data: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<SavedRun> {
        if !folder.join(METRICS).is_file() {
            usage!(
                "{} is no finished run: it holds no {METRICS}; `aflora ls` lists those that are",
                folder.display()
            );
        }
        let overrides: Vec<String> =
            data.iter().map(|data| format!("data={:?}", data.display().to_string())).collect();
        let resolved = config::load(&folder.join(CONFIG), &overrides)?;
        let files = model_files::find(&resolved, &locator(&resolved), true, progress)?;
        let adapter = AdapterFolder::open(&folder.join("adapter"))?;
        Ok(SavedRun { resolved, files, adapter })
    }

    /// The task that it was trained on.
    pub fn task(&self) -> Task {
        self.resolved.task
    }

    /// What the model answers with.
    pub fn answers(&self) -> Answers<'static> {
        match self.task() {
            Task::Labels(TaskSpec { labels: Labels::Classes(names), .. }) => {
                Answers::Classes(names)
            }
            Task::Labels(_) => Answers::Score,
            Task::Text(_) => Answers::Text,
        }
    }

    /// The model's name or repository.
    pub fn base_model(&self) -> &str {
        let model = &self.resolved.model;
        model.repo.as_deref().unwrap_or(&model.model)
    }

    /// The folder of the model's own files.
    pub fn source(&self) -> &PathBuf {
        &self.files.folder
    }

    /// The model with its adapter.
    pub fn model(&self, device: Device, base: Kind) -> Result<AdaptedModel> {
        if self.resolved.model.weights == WeightsFrom::Pretrained {
            weights::check_size(&self.files.folder, &self.files.config)?;
        }
        let backbone = build_model(&self.resolved, &self.files, device, base)?;
        let seed = self.resolved.run.seed;
        match self.resolved.model.weights {
            WeightsFrom::Pretrained => {
                let report = weights::load(backbone.as_ref(), &self.files.folder)?;
                weights::initialise(backbone.as_ref(), &report.new, seed);
            }
            WeightsFrom::Random => {
                weights::initialise_all(backbone.as_ref(), seed);
            }
        }
        Ok(self.adapter.attach(backbone, base)?)
    }

    /// The tokenizer, with the length that the run cut texts to.
    pub fn encoder(&self) -> Result<TextEncoder> {
        Ok(TextEncoder::from_folder(&self.files.folder, self.resolved.run.max_length)?)
    }

    /// What makes tokens of a text task's examples, and text of tokens.
    ///
    /// # Errors
    /// The model does not write, or its tokenizer is missing.
    pub fn texts(&self, model: &AdaptedModel) -> Result<Texts> {
        texts(&self.resolved, &self.files, model.backbone())
    }

    /// The device that `name` asks for, and the precision for it.
    pub fn place(&self, name: &str, precision: &str) -> Result<(Device, Kind)> {
        let device = device::choose(name)?;
        let method = self.resolved.method.build()?;
        // Unless asked otherwise, in what it trained in.
        let base = match precision {
            "auto" => base_kind(&self.resolved, &self.files, method.as_ref(), device)?,
            asked => precision::choose(asked, device, || Ok(f64::INFINITY))?,
        };
        Ok((device, base))
    }
}

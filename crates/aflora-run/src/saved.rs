//! A finished run, opened again: its model with its adapter, to predict with, merge or export; or an
//! adapter's folder with the model that it is for.

mod adapter;
mod combine;
mod several;

pub use several::ModelsOnOneBase;

use crate::config::{self, DeviceChoice, Precision, Resolved, WeightsFrom};
use crate::kinds::{ModelContext, Processor};
use crate::precision::{self, Base};
use crate::run::model::{base_kind, build_shapes, load_model, processor};
use crate::run::model_files::{self, locator, ModelFiles};
use crate::run::objective::texts::{Learned, TextPairs};
use crate::task::{Kind as TaskKind, TaskSpec};
use crate::ui::Progress;
use crate::{device, usage};
use aflora_core::weight::WeightFormat;
use aflora_cuda::World;
use aflora_models::adapter_folder::{self, AdapterFolder, BaseModel};
use aflora_models::chat::ChatFormat;
use aflora_models::generate::GenerationSettings;
use aflora_models::gguf::{self, GgufFile};
use aflora_models::merged::{self, OutputKind, StoredKind};
use aflora_models::rounding::Rounding;
use aflora_models::weights::Checkpoint;
use aflora_models::{merged_gguf, quantised_base, AdaptedModel, ChatTemplate, Head};
use aflora_record::names::{holds, ADAPTER, CONFIG, METRICS};
use anyhow::Result;
use std::path::Path;
use std::sync::Arc;
use tch::{Device, Kind};

/// A run's folder, or an adapter's with its model, and what it says.
#[derive(Debug)]
pub struct SavedRun {
    resolved: Resolved,
    files: ModelFiles,
    adapter: AdapterFolder,
}

impl SavedRun {
    /// Opens the run in `folder`, or the adapter in it (or on the hub, `owner/name@revision`) on
    /// `model`, a name or a folder, else on the one that it names; `data` is a further place to look
    /// for the model in.
    ///
    /// # Errors
    /// The run did not finish, there is no adapter, or the model is nowhere.
    pub fn open(
        folder: &Path,
        model: Option<&str>,
        data: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<SavedRun> {
        if !holds(folder, METRICS)? {
            return SavedRun::open_adapter(folder, model, data, progress);
        }
        if model.is_some() {
            usage!("{} is a run, and has its own model: --model is for adapters", folder.display());
        }
        SavedRun::open_run(folder, data, progress)
    }

    /// Opens the adapter that is named so.
    fn open_adapter(
        named: &Path,
        model: Option<&str>,
        data: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<SavedRun> {
        let (adapter, resolved, files) = adapter::open(named, model, data, progress)?;
        Ok(SavedRun { resolved, files, adapter })
    }

    /// Opens the finished run in `folder`.
    fn open_run(
        folder: &Path,
        data: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<SavedRun> {
        // What it went on from is in its own adapter, and may be no more.
        let mut overrides = vec!["adapter=null".to_string()];
        overrides.extend(data.map(|data| format!("data={:?}", data.display().to_string())));
        let mut resolved = config::load(&folder.join(CONFIG), &overrides)?;
        // They balance what is trained on; nothing is any more.
        Arc::make_mut(&mut resolved.task).class_weights = None;
        let adapter = AdapterFolder::open(&folder.join(ADAPTER))?;
        // Where the run found its model, if that was a folder: in `AFLORA_DATA`, for example.
        let used = adapter.description().base_model.as_ref().map(|base| Path::new(&base.name));
        let used = used.filter(|path| path.is_absolute());
        let files = model_files::find(&resolved, &locator(&resolved), used, true, progress)?;
        let files = files.with_tokenizer_of(&folder.join(ADAPTER));
        Ok(SavedRun { resolved, files, adapter })
    }

    /// The task that it was trained on.
    pub fn task(&self) -> &Arc<TaskSpec> {
        &self.resolved.task
    }

    /// Writes the model with the adapter merged into it to `target`, in the numbers of the base
    /// model's own file if no others are asked for, of a base in few bits in bf16; gives which those
    /// were, and what it cost to round to them.
    ///
    /// # Errors
    /// The model cannot be loaded, or the folder not be written.
    pub fn merge(
        &self,
        target: &Path,
        stored: Option<StoredKind>,
    ) -> Result<(StoredKind, Option<Rounding>)> {
        let stored = match stored {
            Some(stored) => stored,
            None if self.format().is_some() => StoredKind::Bf16,
            None => self.stored()?,
        };
        let model = self.model(Device::Cpu, self.merge_base())?;
        let kind = &self.resolved.model.backbone;
        let answers = match self.task().rules().output(self.task()) {
            OutputKind::Text(generation) if self.task().kind == TaskKind::Chat => {
                OutputKind::Turns(generation, self.chat_format(&model)?)
            }
            answers => answers,
        };
        let source = self.files.source();
        merged::save(&model, kind, source, target, answers, stored)?;
        let rounding = match stored {
            // As it was computed.
            StoredKind::F32 => None,
            _ => Rounding::of(model, &self.files.tokenizer, |weight| stored.rounded(weight))?,
        };
        Ok((stored, rounding))
    }

    /// The model with the adapter merged into it as llama.cpp's file, its matrices in `precision`, and
    /// what it costs to round to that.
    ///
    /// # Errors
    /// The model cannot be loaded, or no such file is written of it.
    pub fn merge_gguf(&self, precision: gguf::Precision) -> Result<(GgufFile, Option<Rounding>)> {
        let model = self.model(Device::Cpu, self.merge_base())?;
        let (kind, source) = (&self.resolved.model.backbone, self.files.source());
        let file = merged_gguf::make(&model, kind, source, precision)?;
        let rounding = match precision {
            gguf::Precision::F32 => None,
            _ => Rounding::of(model, &self.files.tokenizer, |weight| {
                gguf::rounded(weight, precision)
            })?,
        };
        Ok((file, rounding))
    }

    /// The adapter as llama.cpp's file: plain LoRA, where it folds into one.
    ///
    /// # Errors
    /// The model cannot be loaded, or no such file is written of its adapter.
    pub fn export_gguf(&self) -> Result<GgufFile> {
        let model = self.model(Device::Cpu, Kind::Float.into())?;
        let method = &self.adapter.description().method;
        let (kind, source) = (&self.resolved.model.backbone, &self.files.folder);
        Ok(adapter_folder::export_gguf(&model, method, kind, source)?)
    }

    /// Writes the adapter to `target` as PEFT opens it: plain LoRA, where it folds into one. It names
    /// `base` as the model that it is for, else the run's own.
    ///
    /// # Errors
    /// As [`merge`](Self::merge); or the method has no adapters.
    pub fn export(&self, target: &Path, base: Option<&Path>) -> Result<()> {
        let model = self.model(Device::Cpu, Kind::Float.into())?;
        let base = base.map(|base| BaseModel::from(&*base.to_string_lossy()));
        let base = Some(base.unwrap_or_else(|| self.files.base.clone()));
        let method = &self.adapter.description().method;
        let (source, generation) = (self.files.source(), &self.task().generation);
        let chat = self.chat_format(&model)?;
        Ok(adapter_folder::export(&model, method, base, source, generation, &chat, target)?)
    }

    /// The numbers that the base model's file has; of random weights, which have none, those that they
    /// are drawn in.
    fn stored(&self) -> Result<StoredKind> {
        match self.resolved.model.weights {
            WeightsFrom::Random => Ok(StoredKind::F32),
            WeightsFrom::Pretrained => {
                Ok(StoredKind::of(Checkpoint::open(&self.files.folder)?.kind()))
            }
        }
    }

    /// Whether the base that the adapter learned beside [can be written](Self::export_base).
    ///
    /// # Errors
    /// The run's base was in whole numbers, or in a format that bitsandbytes has not.
    pub fn check_base(&self) -> Result<()> {
        let problem = match self.format() {
            None => Some("not in few bits, but as its own files have it"),
            Some(WeightFormat::Fp8) => Some("in fp8, which bitsandbytes has not"),
            Some(_) => None,
        };
        if let Some(problem) = problem {
            usage!(
                "the run's base is {problem}: --base is for runs with precision=nf4, nf4_nested or \
                 int8"
            );
        }
        Ok(())
    }

    /// Writes the base that the adapter learned beside, in few bits, to `target` as bitsandbytes has it:
    /// what is whole in the numbers of the base model's own file.
    ///
    /// # Errors
    /// As [`check_base`](Self::check_base); or the model cannot be loaded, or the folder not be written.
    pub fn export_base(&self, target: &Path) -> Result<()> {
        self.check_base()?;
        let base = self.merge_base();
        let (model, _) = load_model(&self.resolved, &self.files, Device::Cpu, base, false)?;
        let (source, stored) = (self.files.source(), self.stored()?);
        Ok(quantised_base::save(model.as_ref(), source, target, stored)?)
    }

    /// How the model was taught to talk; nothing of a task without conversations.
    fn chat_format(&self, model: &AdaptedModel) -> Result<ChatFormat> {
        match self.task().kind {
            TaskKind::Chat => {
                let generation = GenerationSettings::default();
                Ok(self.texts(model, Device::Cpu, &generation)?.chat_format())
            }
            _ => Ok(ChatFormat::default()),
        }
    }

    /// What an adapter is merged into: single precision; of a base that was trained beside in few bits,
    /// what those are restored to, for that is the model that learned.
    fn merge_base(&self) -> Base {
        Base { kind: Kind::Float, format: self.format() }
    }

    /// In how many bits the run held its base.
    pub fn format(&self) -> Option<WeightFormat> {
        self.resolved.run.precision.format()
    }

    /// The model with its adapter.
    ///
    /// # Errors
    /// The model's weights or the adapter are missing, damaged, or of another model.
    pub fn model(&self, device: Device, base: Base) -> Result<AdaptedModel> {
        let (backbone, _) = load_model(&self.resolved, &self.files, device, base, false)?;
        let model = self.adapter.attach(backbone, base.kind)?;
        aflora_cuda::awake();
        Ok(model)
    }

    /// What makes tokens of rows and answers of what `model` gives for them.
    ///
    /// # Errors
    /// The tokenizer is missing or damaged.
    pub fn processor(&self, model: &AdaptedModel, device: Device) -> Result<Box<dyn Processor>> {
        processor(&self.resolved, &self.files, model.backbone(), device)
    }

    /// Refuses a run whose model writes no text.
    ///
    /// # Errors
    /// Its task asks for something else.
    pub fn check_that_it_writes(&self) -> Result<()> {
        if self.task().head() != Head::Language {
            let (task, asks) = (self.task().name(), self.task().rules().asks_for());
            usage!("the run's task `{task}` {asks}, and its model writes none; `aflora predict` answers with it");
        }
        Ok(())
    }

    /// What makes tokens of prompts and lets `model` write after them, as `generation` says, else as
    /// the run's task does.
    ///
    /// # Errors
    /// The tokenizer is missing or damaged, or the settings do not go together.
    pub fn texts(
        &self,
        model: &AdaptedModel,
        device: Device,
        generation: &GenerationSettings,
    ) -> Result<TextPairs> {
        let mut task = TaskSpec::clone(self.task());
        task.generation = generation.or(&task.generation);
        let (source, max_length) = (self.files.source(), self.resolved.run.max_length);
        let task = &Arc::new(task);
        let backbone = model.backbone();
        let with = ModelContext { task, source, backbone, max_length, device };
        // Else what is written after does not depend on what was learned from.
        let learned = match task.kind {
            TaskKind::Chat => Learned::Conversations,
            _ => Learned::Pairs,
        };
        TextPairs::new(&with, learned)
    }

    /// How the model wants conversations written, if its files say it; none of a task of conversations,
    /// whose [texts](Self::texts) have a template.
    ///
    /// # Errors
    /// A file cannot be read, or its template is none; or there is none.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>> {
        if self.task().kind == TaskKind::Chat {
            return Ok(None);
        }
        let template = ChatTemplate::from_folder(&self.files.tokenizer)?;
        if template.is_none() {
            usage!(
                "the run's model has no chat template (chat_template.jinja, or the key \
                 chat_template of its tokenizer_config.json): it is none for conversations; \
                 `aflora generate` writes on after a text"
            );
        }
        Ok(template)
    }

    /// The device that was chosen, and the precision of the frozen weights on it.
    ///
    /// # Errors
    /// The device is not there, or cannot compute in that precision.
    pub fn device_and_precision(
        &self,
        device: DeviceChoice,
        precision: Precision,
    ) -> Result<(Device, Base)> {
        let device = device::start(device, &World::alone())?;
        let method = self.resolved.method.build()?;
        // Unless the user asks for another precision, it is the one that the run trained in.
        let base = match precision {
            Precision::Auto => base_kind(&self.resolved, method.as_ref(), device, || {
                let shapes = build_shapes(&self.resolved, &self.files)?;
                let rows = self.resolved.run.batch_size;
                Ok(precision::rows_times_weights(shapes.as_ref(), rows))
            })?,
            asked => precision::choose(asked, device, || Ok(f64::INFINITY))?,
        };
        Ok((device, base))
    }
}

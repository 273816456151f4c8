//! `aflora merge`: a finished run's model as a plain folder, or as a GGUF file.

use super::output::{is_gguf, new_folder, new_gguf};
use super::saved::Saved;
use aflora_models::gguf::Precision;
use aflora_models::merged::StoredKind;
use aflora_run::ui::{shown, Progress};
use aflora_run::UsageError;
use anyhow::Result;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// What the command takes.
#[derive(Args)]
pub struct Merge {
    #[command(flatten)]
    saved: Saved,
    /// The folder to write; or, by its ending .gguf, the file.
    target: PathBuf,
    /// How the numbers lie in what is written. Where nothing is said, those of a folder as the base model's
    /// file has them, or as bf16 where the run held its base in few bits; the matrices of a GGUF file as f16.
    #[arg(long = "as", visible_alias = "dtype", value_enum)]
    form: Option<Form>,
}

/// The part of what the adapters add that may be noise before it is a warning.
const LARGE: f64 = 0.1;

/// A form of numbers.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    F32,
    F16,
    Bf16,
    /// Of GGUF files alone.
    #[value(name = "q8_0")]
    Q8,
}

impl Form {
    fn of_gguf(self) -> Precision {
        match self {
            Form::F32 => Precision::F32,
            Form::F16 => Precision::F16,
            Form::Bf16 => Precision::Bf16,
            Form::Q8 => Precision::Q8_0,
        }
    }

    fn of_folder(self) -> Result<StoredKind, UsageError> {
        match self {
            Form::F32 => Ok(StoredKind::F32),
            Form::F16 => Ok(StoredKind::F16),
            Form::Bf16 => Ok(StoredKind::Bf16),
            Form::Q8 => Err(UsageError(
                "--as q8_0 is of a GGUF file; name the target FILE.gguf, or ask for f32, f16 or bf16"
                    .into(),
            )),
        }
    }
}

/// Words for `--help`.
pub const HELP: &str = "Example:\n  aflora merge runs/reviews-minilm-aflora-seed42 my-model\n\
    transformers opens it with AutoModelForSequenceClassification (AutoModelForCausalLM,\n\
    AutoModelForSeq2SeqLM for models that write); llama.cpp runs the file.\n\
    Weights are merged in single precision and rounded once; what that costs is told, beside what the adapter adds.";

impl Merge {
    /// Merges.
    ///
    /// # Errors
    /// The run cannot be opened, the folder exists, or it cannot be written.
    pub fn run(self, progress: &mut dyn Progress) -> Result<()> {
        let rounding = if is_gguf(&self.target) {
            let form = self.form.unwrap_or(Form::F16);
            let mut rounding = None;
            new_gguf(&self.target, || {
                let (file, cost) = self.saved.open(progress)?.merge_gguf(form.of_gguf())?;
                rounding = cost;
                Ok(file)
            })?;
            rounding
        } else {
            let stored = self.form.map(Form::of_folder).transpose()?;
            new_folder(&self.target)?;
            let run = self.saved.open(progress)?;
            let (stored, rounding) = run.merge(&self.target, stored)?;
            if stored != StoredKind::F32 && self.form.is_none() {
                let whose = match run.format() {
                    None => ", as the base model's file",
                    Some(_) => "",
                };
                tracing::info!("in {}{whose}; --as f32 rounds nothing", stored.name());
            }
            rounding
        };
        match rounding {
            Some(rounding) if rounding.of_added > LARGE => {
                tracing::warn!("{rounding}; --as f32 rounds nothing");
            }
            Some(rounding) => tracing::info!("{rounding}"),
            None => {}
        }
        println!("{}", shown(&self.target));
        Ok(())
    }
}

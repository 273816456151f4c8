//! `aflora merge`: a finished run's model as a plain folder, or as a GGUF file.

use super::output::{is_gguf, new_folder, new_gguf};
use super::saved::Saved;
use aflora_models::gguf::Precision;
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
    /// How the matrices of a GGUF file lie in it; f16 where nothing is said.
    #[arg(long = "as", value_enum)]
    form: Option<Form>,
}

/// A form of matrices in GGUF files.
#[derive(Clone, Copy, ValueEnum)]
enum Form {
    F32,
    F16,
    Bf16,
    #[value(name = "q8_0")]
    Q8,
}

impl Form {
    fn precision(self) -> Precision {
        match self {
            Form::F32 => Precision::F32,
            Form::F16 => Precision::F16,
            Form::Bf16 => Precision::Bf16,
            Form::Q8 => Precision::Q8_0,
        }
    }
}

/// Words for `--help`.
pub const HELP: &str = "Example:\n  aflora merge runs/reviews-minilm-aflora-seed42 my-model\n\
    transformers opens it with AutoModelForSequenceClassification (AutoModelForCausalLM,\n\
    AutoModelForSeq2SeqLM for models that write); llama.cpp runs the file.";

impl Merge {
    /// Merges.
    ///
    /// # Errors
    /// The run cannot be opened, the folder exists, or it cannot be written.
    pub fn run(self, progress: &mut dyn Progress) -> Result<()> {
        if is_gguf(&self.target) {
            let form = self.form.unwrap_or(Form::F16);
            let make = || self.saved.open(progress)?.merge_gguf(form.precision());
            new_gguf(&self.target, make)?;
        } else {
            if self.form.is_some() {
                let problem = "--as is of a GGUF file; name the target FILE.gguf, or leave it out";
                return Err(UsageError(problem.into()).into());
            }
            new_folder(&self.target)?;
            let run = self.saved.open(progress)?;
            run.merge(&self.target)?;
        }
        println!("{}", shown(&self.target));
        Ok(())
    }
}

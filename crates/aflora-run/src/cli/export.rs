//! `aflora export`: a finished run's adapter for users of PEFT, or of llama.cpp.

use super::output::{is_gguf, new_folder, new_gguf};
use super::saved::Saved;
use aflora_files::printable_line;
use aflora_run::ui::{shown, Progress};
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// What the command takes.
#[derive(Args)]
pub struct Export {
    #[command(flatten)]
    saved: Saved,
    /// The folder to write; or, by its ending .gguf, llama.cpp's file.
    target: PathBuf,
    /// The form: lora, which adapters fold into; those that do not stay PEFT's own method.
    #[arg(long = "as", value_parser = ["lora"], default_value = "lora")]
    form: String,
}

/// Words for `--help`.
pub const HELP: &str =
    "Example:\n  aflora export runs/reviews-minilm-aflora-seed42 my-adapter --as lora\n\
    PeftModel.from_pretrained(base_model, \"my-adapter\") opens it; the classes' names, which are told,\n\
    go to the base model: AutoModelForSequenceClassification.from_pretrained(base, id2label={0: …}).\n\
    my-adapter.gguf as the target is llama.cpp's: llama-cli --model base.gguf --lora my-adapter.gguf.";

impl Export {
    /// Exports.
    ///
    /// # Errors
    /// The run cannot be opened, the folder exists, or it cannot be written.
    pub fn run(self, progress: &mut dyn Progress) -> Result<()> {
        let Export { saved, target, form: _ } = self;
        if is_gguf(&target) {
            new_gguf(&target, || saved.open(progress)?.export_gguf())?;
            println!("{}", shown(&target));
            return Ok(());
        }
        new_folder(&target)?;
        let run = saved.open(progress)?;
        run.export(&target)?;
        let classes = run.task().class_names();
        if !classes.is_empty() {
            let classes = printable_line(&classes.join(", ")).into_owned();
            tracing::info!("its logits are of {classes}: PEFT's folders have no place for names");
        }
        println!("{}", shown(&target));
        Ok(())
    }
}

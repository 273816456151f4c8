//! `aflora export`: a finished run's adapter for users of PEFT, or of llama.cpp.

use super::output::{is_gguf, new_folder, new_gguf};
use super::saved::Saved;
use aflora_files::printable_line;
use aflora_run::ui::{shown, Progress};
use aflora_run::UsageError;
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
    /// A further folder to write: the base that the adapter learned beside, in few bits as bitsandbytes has
    /// it. For runs with precision=nf4, nf4_nested or int8.
    #[arg(long)]
    base: Option<PathBuf>,
}

/// Words for `--help`.
pub const HELP: &str =
    "Example:\n  aflora export runs/reviews-minilm-aflora-seed42 my-adapter --as lora\n\
    PeftModel.from_pretrained(base_model, \"my-adapter\") opens it; the classes' names, which are told,\n\
    go to the base model: AutoModelForSequenceClassification.from_pretrained(base, id2label={0: …}).\n\
    my-adapter.gguf as the target is llama.cpp's: llama-cli --model base.gguf --lora my-adapter.gguf.\n\
    --base my-base keeps the two apart as they were trained: from_pretrained(\"my-base\") opens it with\n\
    bitsandbytes, and the adapter names it.";

impl Export {
    /// Exports.
    ///
    /// # Errors
    /// The run cannot be opened, the folder exists, or it cannot be written.
    pub fn run(self, progress: &mut dyn Progress) -> Result<()> {
        let Export { saved, target, form: _, base } = self;
        if is_gguf(&target) {
            if base.is_some() {
                let problem = "--base is for a folder of PEFT's: llama.cpp has files of its own";
                return Err(UsageError(problem.into()).into());
            }
            new_gguf(&target, || saved.open(progress)?.export_gguf())?;
            println!("{}", shown(&target));
            return Ok(());
        }
        new_folder(&target)?;
        base.as_deref().map_or(Ok(()), new_folder)?;
        // Whole, for PEFT looks for it from wherever it runs.
        let base = base.map(std::path::absolute).transpose()?;
        if let Some(base) = &base {
            let target = std::path::absolute(&target)?;
            if base.starts_with(&target) || target.starts_with(base) {
                let problem = "the adapter and its --base need folders of their own, neither within the other";
                return Err(UsageError(problem.into()).into());
            }
        }
        let run = saved.open(progress)?;
        base.as_ref().map_or(Ok(()), |_| run.check_base())?;
        run.export(&target, base.as_deref())?;
        if let Some(base) = &base {
            let written = run.export_base(base);
            if written.is_err() {
                // It names a base that is not there.
                let _ = std::fs::remove_dir_all(&target);
            }
            written?;
        }
        let classes = run.task().class_names();
        if !classes.is_empty() {
            let classes = printable_line(&classes.join(", ")).into_owned();
            tracing::info!("its logits are of {classes}: PEFT's folders have no place for names");
        }
        println!("{}", shown(&target));
        Ok(())
    }
}

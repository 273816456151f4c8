//! `aflora merge`: a finished run's model as a plain folder.

use super::output::new_folder;
use super::saved::Saved;
use aflora_run::ui::{shown, Progress};
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// What the command takes.
#[derive(Args)]
pub struct Merge {
    #[command(flatten)]
    saved: Saved,
    /// The folder to write.
    target: PathBuf,
}

/// Words for `--help`.
pub const HELP: &str = "Example:\n  aflora merge runs/reviews-minilm-aflora-seed42 my-model\n\
    transformers opens it with AutoModelForSequenceClassification (AutoModelForCausalLM,\n\
    AutoModelForSeq2SeqLM for models that write).";

impl Merge {
    /// Merges.
    ///
    /// # Errors
    /// The run cannot be opened, the folder exists, or it cannot be written.
    pub fn run(self, progress: &mut dyn Progress) -> Result<()> {
        new_folder(&self.target)?;
        let run = self.saved.open(progress)?;
        run.merge(&self.target)?;
        println!("{}", shown(&self.target));
        Ok(())
    }
}

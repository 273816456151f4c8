//! What `predict`, `evaluate`, `generate`, `chat`, `merge` and `export` open: a finished run, or an
//! adapter's folder.

use aflora_run::saved::SavedRun;
use aflora_run::ui::Progress;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// A finished run or an adapter, and where else its model may lie.
#[derive(Args)]
pub struct Saved {
    /// A finished run's folder; or an adapter's, as PEFT writes it, here or on the hub
    /// (owner/name@revision).
    run: PathBuf,
    #[command(flatten)]
    base: Base,
}

/// Where the base model is that adapters are for.
#[derive(Args)]
pub struct Base {
    /// Of an adapter, the model that it is for: a name or a folder; else the one that it names.
    #[arg(long)]
    pub model: Option<String>,
    /// A further folder to look for the model in.
    #[arg(long)]
    pub data: Option<PathBuf>,
}

impl Saved {
    /// Opens the finished run, or the adapter.
    ///
    /// # Errors
    /// There is neither, or its model is not found.
    pub fn open(&self, progress: &mut dyn Progress) -> Result<SavedRun> {
        // The run told what is odd in its model's files when it trained.
        aflora_models::tell_oddities_at_debug_level();
        SavedRun::open(&self.run, self.base.model.as_deref(), self.base.data.as_deref(), progress)
    }
}

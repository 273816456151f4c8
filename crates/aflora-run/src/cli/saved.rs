//! What `predict`, `evaluate`, `merge` and `export` open: a finished run.

use aflora_run::saved::SavedRun;
use aflora_run::ui::Progress;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// A finished run, and where else its model may lie.
#[derive(Args)]
pub struct Saved {
    /// A finished run's folder.
    run: PathBuf,
    /// A further folder to look for the run's model in.
    #[arg(long)]
    data: Option<PathBuf>,
}

impl Saved {
    /// Opens the finished run.
    ///
    /// # Errors
    /// There is no finished run, or its model is not found.
    pub fn open(&self, progress: &mut dyn Progress) -> Result<SavedRun> {
        // The run told what is odd in its model's files when it trained.
        aflora_models::tell_oddities_at_debug_level();
        SavedRun::open(&self.run, self.data.as_deref(), progress)
    }
}

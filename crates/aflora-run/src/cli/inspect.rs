//! `aflora inspect`: what a configuration would train.

use super::target::RunTarget;
use aflora_files::printable;
use aflora_run::inspect;
use aflora_run::ui::Progress;
use anyhow::Result;
use clap::Args;

/// What the command takes.
#[derive(Args)]
pub struct Inspect {
    #[command(flatten)]
    pub(super) target: RunTarget,
    /// Measure what a step takes of the device's memory, too: on random weights, with few rows, and what each
    /// further row adds.
    #[arg(long)]
    memory: bool,
}

/// Words for `--help`.
pub const HELP: &str = "\
Needs the model's config.json, not its weights. The rows are described where they are at hand:
labels with counts, lengths in tokens, what `max_length` cuts, the first rows as tokens. Nothing of
them is fetched.

With --memory a run is prepared, on random weights, and a step of some 2,048 tokens and one of half as
many are measured: what weights, adapters, optimiser and activations take on the device, and what a step of
`batch_size` of the longest rows will.

Of a run's folder, an adapter's, ours or PEFT's, or an adapter of the hub (owner/name@revision), it tells the method, the base model and the
layers.

Examples:
  aflora inspect train=reviews.csv text=body label=stars model=minilm
  aflora inspect task=mrpc model=minilm --memory
  aflora inspect runs/mine";

impl Inspect {
    /// Whether it computes with tensors.
    pub fn computes(&self) -> bool {
        self.memory
    }

    /// Prints the layers that would get an adapter, how many parameters would train, and what memory a
    /// step would take.
    ///
    /// # Errors
    /// The configuration is wrong, the model is not found, the adapter is damaged or of a kind that is not
    /// built, or rows are damaged: then the layers are printed all the same.
    pub fn run(&self, progress: &mut dyn Progress) -> Result<()> {
        if let Some(folder) = self.target.adapter()? {
            print!("{}", printable(&inspect::adapter(&folder)?));
            return Ok(());
        }
        let resolved = self.target.load()?;
        let found = inspect::inspect(&resolved, progress)?;
        print!("{}", printable(&found.words));
        found.rows?;
        if self.memory {
            print!("{}", inspect::memory(&resolved, progress)?);
        }
        Ok(())
    }
}

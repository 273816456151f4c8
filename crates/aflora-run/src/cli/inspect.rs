//! `aflora inspect`: what a configuration would train.

use super::target::RunTarget;
use aflora_files::printable;
use aflora_run::inspect;
use aflora_run::ui::Progress;
use anyhow::Result;

/// Words for `--help`.
pub const HELP: &str = "\
Needs the model's config.json, not its weights. The rows are described where they are at hand:
labels with counts, lengths in tokens, what `max_length` cuts, the first rows as tokens. Nothing of
them is fetched.

Of an adapter's folder, ours or PEFT's, or an adapter of the hub (owner/name@revision), it tells the method, the base model and the layers.

Examples:
  aflora inspect train=reviews.csv text=body label=stars model=minilm
  aflora inspect my-adapter";

/// Prints the layers that would get an adapter, and how many parameters would train.
///
/// # Errors
/// The configuration is wrong, the model is not found, the adapter is damaged or of a kind that is not
/// built, or rows are damaged: then the layers are printed all the same.
pub fn inspect(target: &RunTarget, progress: &mut dyn Progress) -> Result<()> {
    if let Some(folder) = target.adapter()? {
        print!("{}", printable(&inspect::adapter(&folder)?));
        return Ok(());
    }
    let resolved = target.load()?;
    let found = inspect::inspect(&resolved, progress)?;
    print!("{}", printable(&found.words));
    found.rows
}

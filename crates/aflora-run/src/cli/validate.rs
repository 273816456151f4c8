//! `aflora validate`: a configuration, its model and its data checked, without a run.

use super::target::RunTarget;
use aflora_files::printable_line;
use aflora_run::check;
use aflora_run::ui::Progress;
use anyhow::Result;

/// Words for `--help`.
pub const HELP: &str = "\
Makes every check of a run that needs no training, and fetches nothing: keys and values, the model's
kind and length, its target modules, weights and tokenizer, the data with all their rows and what
the model would read of them, the spans of freezing, the folder to write to. What is still on the hub is named as not looked at.

Example:
  aflora validate configs/experiment.yaml task=mrpc model=minilm data=../data";

/// Checks it, and says so if it is fine.
///
/// # Errors
/// All problems with the configuration; where it can be read, all that would end the run before
/// it trains.
pub fn validate(target: &RunTarget, progress: &mut dyn Progress) -> Result<()> {
    let resolved = target.load()?;
    let unseen = check::all(&resolved, progress)?;
    let words = format!("{}: fine, {}", target.shown(), resolved.name());
    println!("{}", printable_line(&words));
    for what in unseen {
        println!("  not looked at: {}", printable_line(&what));
    }
    Ok(())
}

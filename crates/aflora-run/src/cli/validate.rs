//! `aflora validate`: a configuration checked, without a run.

use super::target::Target;
use aflora_run::config;
use anyhow::Result;

/// Checks it, and says so if it is fine.
///
/// # Errors
/// All problems with the configuration.
pub fn validate(target: &Target) -> Result<()> {
    let resolved = config::load(&target.config, &target.overrides)?;
    println!("{}: fine, {}", target.config.display(), resolved.name());
    Ok(())
}

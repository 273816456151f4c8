//! `aflora combine`: adapters of several finished runs, or of folders, made into one.

use super::output::new_folder;
use super::saved::Base;
use aflora_core::adapter::combine::{Combination, How, Majority};
use aflora_run::saved::SavedRun;
use aflora_run::ui::{shown, Progress};
use aflora_run::UsageError;
use anyhow::Result;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

/// What the command takes.
#[derive(Args)]
pub struct Combine {
    /// The folder to write.
    target: PathBuf,
    /// A finished run's folder, or an adapter's, as PEFT writes it, here or on the hub
    /// (owner/name@revision), and what it counts for, 1 if not said; once for each.
    #[arg(long = "adapter", value_name = "RUN[:WEIGHT]", required = true)]
    adapters: Vec<String>,
    /// How: by PEFT's names.
    #[arg(long, default_value = "cat", value_parser = How::ALL.map(|(name, _)| name))]
    how: String,
    /// The share of each adapter's elements that is kept; for ties, dare_… and magnitude_prune.
    #[arg(long)]
    density: Option<f64>,
    /// Which sign of an element wins, for ties and dare_ties: that of the sum, or of most adapters.
    #[arg(long, value_enum, default_value = "total")]
    majority: Sign,
    /// The rank of what comes out, for svd and …_svd; the largest of the adapters' if not given.
    #[arg(long)]
    rank: Option<i64>,
    /// Draws which elements are dropped; for dare_….
    #[arg(long, default_value = "0")]
    seed: u64,
    #[command(flatten)]
    base: Base,
}

/// Which sign wins.
#[derive(Clone, Copy, ValueEnum)]
enum Sign {
    /// That of the sum.
    Total,
    /// That of most adapters.
    Frequency,
}

/// Words for `--help`.
pub const HELP: &str =
    "Example:\n  aflora combine both --adapter runs/one:0.7 --adapter runs/other:0.3 --how ties --density 0.5\n\
    All are of one base model, which is loaded once; PeftModel.from_pretrained(base_model, \"both\") opens what is written, plain LoRA.\n\
    cat is the weighted sum of what the adapters add to each weight, exactly; svd and those that end in _svd combine\n\
    the same and keep the best part of a rank. All others combine A and B each by itself, as PEFT's add_weighted_adapter does, and want equal ranks.\n\
    What trained beside the adapters, such as a head, is that of the first run.";

impl Combine {
    /// Combines.
    ///
    /// # Errors
    /// A run cannot be opened, their adapters cannot be combined so, or the folder exists or cannot be
    /// written.
    pub fn run(self, progress: &mut dyn Progress) -> Result<()> {
        new_folder(&self.target)?;
        let combination = self.combination()?;
        aflora_models::tell_oddities_at_debug_level();
        let named: Vec<(&str, f64)> = self.adapters.iter().map(|named| weighted(named)).collect();
        let (folders, weights): (Vec<&Path>, Vec<f64>) =
            named.into_iter().map(|(folder, weight)| (Path::new(folder), weight)).unzip();
        let (model, data) = (self.base.model.as_deref(), self.base.data.as_deref());
        let runs = SavedRun::open_all(folders, model, data, progress)?;
        SavedRun::combine(&runs, &weights, &combination, &self.target)?;
        println!("{}", shown(&self.target));
        Ok(())
    }

    fn combination(&self) -> Result<Combination> {
        let how: How = self.how.parse()?;
        let name = how.name();
        let density = match (how.prunes(), self.density) {
            (true, Some(density)) => Ok(density),
            (false, None) => Ok(1.0),
            (true, None) => {
                Err(format!("{name} needs to know how much to keep: --density 0.5, say"))
            }
            (false, Some(_)) => {
                Err(format!("--density has no say with {name}, which keeps everything"))
            }
        };
        let density = density.map_err(UsageError)?;
        let majority = match self.majority {
            Sign::Total => Majority::Total,
            Sign::Frequency => Majority::Frequency,
        };
        if self.rank.is_some() && !how.is_of_a_rank() {
            let problem = format!("--rank has no say with {name}; svd and …_svd are of a rank");
            return Err(UsageError(problem).into());
        }
        let combination = Combination { how, density, majority, rank: self.rank, seed: self.seed };
        combination.validate().map_err(|error| UsageError(error.to_string()))?;
        Ok(combination)
    }
}

/// The folder and the weight behind its last colon, if there is one.
fn weighted(adapter: &str) -> (&str, f64) {
    let parts = adapter.rsplit_once(':');
    let parsed = parts.and_then(|(run, weight)| Some((run, weight.parse().ok()?)));
    parsed.unwrap_or((adapter, 1.0))
}

//! `aflora predict`: a finished run's answers to the rows of a file.

use super::output::write_to;
use super::saved::Saved;
use aflora_run::predict::{self, Settings};
use aflora_run::ui::Progress;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// What the command takes.
#[derive(Args)]
pub struct Predict {
    #[command(flatten)]
    saved: Saved,
    /// A .csv file with a header, or JSON objects, one a line.
    input: PathBuf,
    /// Where to write; standard output if not given.
    #[arg(long)]
    output: Option<PathBuf>,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Of the frozen weights: auto (as the run trained), fp32, tf32, bf16.
    #[arg(long, default_value = "auto")]
    precision: String,
    /// Rows at once.
    #[arg(long, default_value_t = 32)]
    batch_size: usize,
}

/// Words for `--help`.
pub const HELP: &str = "\
Rows hold `text`, or `text_a` and `text_b` for tasks on pairs. Each comes back as a line of JSON with
`label` and `scores` added, `score` for a regression, or `prediction` where the task asks for text.

Example:
  aflora predict runs/reviews-minilm-aflora-seed42 new.csv --output judged.jsonl";

impl Predict {
    /// Predicts.
    ///
    /// # Errors
    /// The run cannot be opened, a row is not as it should be, or the output cannot be written.
    pub fn run(self, progress: &mut dyn Progress) -> Result<()> {
        let run = self.saved.open(progress)?;
        let settings = Settings {
            device: &self.device,
            precision: &self.precision,
            batch_size: self.batch_size,
        };
        write_to(self.output.as_deref(), |to| {
            let rows = predict::predict(&run, &self.input, to, &settings, progress)?;
            tracing::info!("{rows} rows");
            Ok(())
        })
    }
}

//! `aflora predict`: a finished run's answers to the rows of a file.

use super::output::Output;
use super::saved::Saved;
use aflora_run::config::{DeviceChoice, Precision};
use aflora_run::feed::table::Format;
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
    /// A .csv or .tsv file with a header, JSON objects, one a line, or `-` for standard input.
    input: PathBuf,
    /// The input's form, where its name does not tell it: csv, tsv or jsonl.
    #[arg(long, value_name = "FORM", value_parser = form)]
    format: Option<Format>,
    /// The file to write; standard output if not given, or `-`.
    #[arg(long)]
    output: Option<PathBuf>,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
    /// Of the frozen weights: auto (as the run trained), fp32, tf32, bf16.
    #[arg(long, value_enum, default_value_t = Precision::Auto)]
    precision: Precision,
    /// Rows at once.
    #[arg(long, default_value_t = 32)]
    batch_size: usize,
}

/// Words for `--help`.
pub const HELP: &str = "\
Rows have their texts under the names of the task's own columns (`sentence1`, `#1 String`); where a
row has none of these, under `text`, or `text_a` and `text_b` for tasks on pairs. Each comes back as a line of JSON, its values as they stood,
with `label` and `scores` added, `score` for a regression, or `prediction` where the task asks for
text. Classes go by the names that `aflora merge` writes (`equivalent`, not `1`). 
Where the first row has such a name itself, ours are `predicted_label`, `predicted_scores`,
`predicted_score` or `predicted_text`, and `predicted_label_2` and so on where it has these too; a
later row that has one of ours is told, and only its answers go by the next free name.

A .csv file is read by RFC 4180; in a .tsv file, as in GLUE's, a quote is a character like any
other. NaN and Infinity, which Python writes into JSON, are read as null. Standard input, pipes and other endings are JSON objects, one a line, unless --format says
otherwise. Texts that are empty, or longer than the run reads, are told by their lines.

--output takes a device or a pipe as it stands and writes through a link; a file appears whole or
not at all, and one whose folder takes no new file is written where it stands once all is ready.

Examples:
  aflora predict runs/reviews-minilm-aflora-seed42 new.csv --output judged.jsonl
  zcat new.tsv.gz | aflora predict runs/reviews-minilm-aflora-seed42 - --format tsv > judged.jsonl";

fn form(text: &str) -> Result<Format, String> {
    match text {
        "csv" => Ok(Format::Csv),
        "tsv" => Ok(Format::Tsv),
        "jsonl" => Ok(Format::Jsonl),
        _ => Err("it must be csv, tsv or jsonl".into()),
    }
}

impl Predict {
    /// Whether it writes to standard output.
    pub fn prints(&self) -> bool {
        Output::is_stdout(self.output.as_deref())
    }

    /// Predicts.
    ///
    /// # Errors
    /// The run cannot be opened, a row is not as it should be, or the output cannot be written.
    pub fn run(self, progress: &mut dyn Progress) -> Result<()> {
        let output = Output::open(self.output.as_deref())?;
        let run = self.saved.open(progress)?;
        let settings = Settings {
            device: self.device,
            precision: self.precision,
            batch_size: self.batch_size,
            format: self.format,
        };
        output.write(|to| {
            let rows = predict::predict(&run, &self.input, to, &settings, progress)?;
            tracing::info!("{rows} rows");
            Ok(())
        })
    }
}

//! What `predict` and `evaluate` take alike: how a finished run computes, and what it reads.

use aflora_run::config::{DeviceChoice, Precision};
use aflora_run::feed::table::Format;
use aflora_run::predict::PredictSettings;
use clap::Args;

/// How to compute, and the input's form.
#[derive(Args)]
pub struct Computing {
    /// The input's form, where its name does not tell it: csv, tsv, jsonl, or lines of plain text.
    #[arg(long, value_name = "FORM", value_parser = form)]
    format: Option<Format>,
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

impl Computing {
    /// The same for the library.
    pub fn settings(&self) -> PredictSettings {
        PredictSettings {
            device: self.device,
            precision: self.precision,
            batch_size: self.batch_size,
            format: self.format,
        }
    }
}

fn form(text: &str) -> Result<Format, String> {
    match text {
        "csv" => Ok(Format::Csv),
        "tsv" => Ok(Format::Tsv),
        "jsonl" => Ok(Format::Jsonl),
        "lines" => Ok(Format::Lines),
        "conll" => Ok(Format::Conll),
        _ => Err("it must be csv, tsv, jsonl, lines or conll".into()),
    }
}

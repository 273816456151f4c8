//! `aflora doctor`: what this machine has for runs.

use aflora_report::list;
use aflora_run::doctor::{examine, Report, State};
use anyhow::{bail, Result};
use clap::Args;
use std::path::PathBuf;

/// What the command takes.
#[derive(Args)]
pub struct Doctor {
    /// The folder that runs are to be written to.
    #[arg(default_value = list::RUNS)]
    runs: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Words for `--help`.
pub const HELP: &str = "\
A line for each thing: `ok`, `less` where runs work without it but not all of them or slower, `missing`
where a run with default settings cannot work; the line below says what to do. Nothing is asked of a
network, and a token is never shown.

Exit codes: 0 a run can work, 1 it cannot.";

impl Doctor {
    /// Looks, and prints what was found.
    ///
    /// # Errors
    /// A run cannot work here.
    pub fn run(self) -> Result<()> {
        let report = examine(&self.runs);
        match self.json {
            true => println!("{}", serde_json::to_string_pretty(&report)?),
            false => print!("{}", words(&report)),
        }
        if !report.works {
            bail!("a run with default settings cannot work here: something is missing");
        }
        Ok(())
    }
}

fn words(report: &Report) -> String {
    let lines = report.findings.iter().map(|finding| {
        let state = match finding.state {
            State::Good => "ok",
            State::Less => "less",
            State::Missing => "missing",
        };
        let remedy = finding.remedy.as_ref().map(|remedy| format!("{:22}{remedy}\n", ""));
        let remedy = remedy.unwrap_or_default();
        format!("{state:<8}  {:<10}  {}\n{remedy}", finding.of, finding.found)
    });
    lines.collect()
}

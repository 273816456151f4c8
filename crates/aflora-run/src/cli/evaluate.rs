//! `aflora evaluate`: a finished run judged on labelled rows.

use super::finished::Computing;
use super::output::Output;
use super::saved::Saved;
use aflora_files::printable_line;
use aflora_record::json;
use aflora_record::ByClass;
use aflora_run::evaluate::{self, FileEvaluation};
use aflora_run::ui::Progress;
use anyhow::{Context, Result};
use clap::Args;
use std::path::PathBuf;

/// What the command takes.
#[derive(Args)]
pub struct Evaluate {
    #[command(flatten)]
    saved: Saved,
    /// A .csv or .tsv file with a header, JSON objects, one a line, or a .parquet file; `-` for
    /// standard input.
    input: PathBuf,
    #[command(flatten)]
    computing: Computing,
    /// A file for the result as JSON, beside what is printed; `-` for that in place of it.
    #[arg(long)]
    output: Option<PathBuf>,
}

/// Words for `--help`.
pub const HELP: &str = "\
Rows have their texts where `aflora predict` finds them, and what is right for them under the name of
the task's own column, or under `label` (`target` where texts are to be written). Classes go by their
values in the task's files, or by the names that predictions have.

Printed are the task's metrics, precision, recall and F1 of each class, and the confusion matrix. A
file's result is no part of the run: nothing in its folder changes.

Example:
  aflora evaluate runs/reviews-minilm-aflora-seed42 checked.csv --output judged.json";

impl Evaluate {
    /// Judges the run.
    ///
    /// # Errors
    /// The run cannot be opened, a row is not as it should be, or the output cannot be written.
    pub fn run(self, progress: &mut dyn Progress) -> Result<()> {
        let output = match &self.output {
            Some(path) => Some(Output::beside(Some(path), &self.input)?),
            None => None,
        };
        let run = self.saved.open(progress)?;
        let settings = self.computing.settings();
        let found = evaluate::evaluate(&run, &self.input, &settings, progress)?;
        for doubt in &found.doubts {
            tracing::warn!("the result is no better than a guess: {doubt}");
        }
        let print = output.as_ref().is_none_or(|output| !output.is_standard());
        if let Some(output) = output {
            output.write(|to| {
                to.write_all(&json::indented(&found)?).context("the result cannot be written")
            })?;
        }
        if print {
            print!("{}", words(&found));
        }
        Ok(())
    }
}

/// The most classes of a confusion matrix that a terminal has room for.
const MOST: usize = 20;

/// The result as people read it.
fn words(found: &FileEvaluation) -> String {
    let number = |value: f64| format!("{value:.4}");
    let mut lines = vec![["rows".to_string(), found.rows.to_string()].to_vec()];
    lines.extend(
        found
            .metrics
            .iter()
            .map(|(name, value)| vec![name.clone(), value.map_or("undefined".into(), number)]),
    );
    lines.push(vec!["loss".into(), number(found.loss)]);
    let mut out = table(&lines);
    let Some(by_class) = &found.by_class else { return out };
    let mut lines = vec![["class", "rows", "precision", "recall", "F1"].map(String::from).to_vec()];
    lines.extend(by_class.classes.iter().map(|class| {
        let counts = class.counts;
        let shares = [counts.precision(), counts.recall(), counts.f1()].map(number);
        [vec![class.label.clone(), counts.right.to_string()], shares.to_vec()].concat()
    }));
    out += &format!("\n{}", table(&lines));
    if by_class.confusion.is_empty() {
        return out;
    }
    match by_class.matrix(MOST) {
        Some(matrix) => out += &format!("\n{}", confusion(by_class, &matrix)),
        None => {
            let classes = by_class.classes.len();
            out += &format!("\nthe confusion matrix of {classes} classes is told by --output\n");
        }
    }
    out
}

/// What is right by rows, what was answered by columns.
fn confusion(by_class: &ByClass, matrix: &[Vec<u64>]) -> String {
    let labels = by_class.classes.iter().map(|class| class.label.clone());
    let mut lines: Vec<Vec<String>> = vec![["right \\ answered".to_string()].into()];
    lines[0].extend(labels.clone());
    for (label, row) in labels.zip(matrix) {
        lines.push([label].into_iter().chain(row.iter().map(u64::to_string)).collect());
    }
    table(&lines)
}

/// Columns beside one another, the first to the left and numbers to the right.
fn table(lines: &[Vec<String>]) -> String {
    let lines: Vec<Vec<String>> = lines
        .iter()
        .map(|line| line.iter().map(|cell| printable_line(cell).into_owned()).collect())
        .collect();
    let columns = lines.first().map_or(0, Vec::len);
    let width = |i: usize| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let cell = |(i, text): (usize, &String)| match i {
        0 => format!("{text:width$}", width = widths[i]),
        _ => format!("{text:>width$}", width = widths[i]),
    };
    let line = |line: &Vec<String>| {
        let cells: Vec<String> = line.iter().enumerate().map(cell).collect();
        cells.join("  ").trim_end().to_string() + "\n"
    };
    lines.iter().map(line).collect()
}

//! `aflora evaluate`: a finished run judged on labelled rows.

use super::finished::Computing;
use super::output::Output;
use super::saved::Saved;
use aflora_files::printable_line;
use aflora_record::by_class::Class;
use aflora_record::json;
use aflora_record::ByClass;
use aflora_run::evaluate::{self, FileEvaluation};
use aflora_run::ui::Progress;
use anyhow::{Context, Result};
use clap::Args;
use std::cmp::Reverse;
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

/// The most classes that are listed; of more, those with the most rows.
const LISTED: usize = 40;

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
    let mut classes: Vec<&Class> = by_class.classes.iter().collect();
    if classes.len() > LISTED {
        classes.sort_by_key(|class| Reverse(class.counts.right));
    }
    lines.extend(classes.iter().take(LISTED).map(|class| {
        let counts = class.counts;
        let shares = [counts.precision(), counts.recall(), counts.f1()].map(number);
        [vec![class.label.clone(), counts.right.to_string()], shares.to_vec()].concat()
    }));
    out += &format!("\n{}", table(&lines));
    if let Some(more @ 1..) = classes.len().checked_sub(LISTED) {
        out += &format!("and {more} rarer classes, told by --output\n");
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use aflora_record::evaluation::Metrics;

    #[test]
    fn of_many_classes_the_most_frequent_are_listed_and_the_others_counted() {
        let listed = |classes: i64| {
            let labels: Vec<String> = (0..classes).map(|class| format!("c{class}")).collect();
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            // Of class n, n rows.
            let right: Vec<i64> = (0..classes).flat_map(|c| (0..c).map(move |_| c)).collect();
            let by_class = Some(ByClass::of_classes("dev", &labels, &right, &right));
            let (metrics, doubts) = (Metrics::new(), Vec::new());
            words(&FileEvaluation { rows: right.len(), metrics, loss: 0.0, by_class, doubts })
        };
        let many = listed(2000);
        let first = |line: &&str| line.starts_with('c') && !line.starts_with("class");
        let shown: Vec<&str> = many.lines().filter(first).collect();
        assert_eq!(shown.len(), 40, "{many}");
        assert!(shown[0].starts_with("c1999 ") && shown[39].starts_with("c1960 "), "{many}");
        assert!(many.contains("\nand 1960 rarer classes, told by --output\n"), "{many}");
        // Few stand in their own order, all of them.
        let few = listed(40);
        let shown: Vec<&str> = few.lines().filter(first).collect();
        assert!(shown.len() == 40 && shown[1].starts_with("c1 "), "{few}");
        assert!(!few.contains("rarer"), "{few}");
    }
}

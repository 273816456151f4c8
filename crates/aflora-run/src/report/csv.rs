//! Results as CSV, a row a run: for those who want to compute something else.

use super::grid::metric;
use crate::experiment::results::{Cell, Finding, Outcome, Results, TaskColumn};
use aflora_files::printable;
use anyhow::{Context, Result};
use std::collections::HashMap;

const HEAD: [&str; 23] = [
    "model",
    "task",
    "method",
    "seed",
    "status",
    "error",
    "metric",
    "points",
    "best_epoch",
    "steps",
    "parameters_start",
    "parameters_end",
    "parameters_time_average",
    "head",
    "flops_per_token_start",
    "flops_per_token_end",
    "training_seconds",
    "evaluation_seconds",
    "median_step_seconds",
    "tokens_per_second",
    "peak_memory_bytes",
    "device",
    "digest",
];

/// All cells, in the results' order. What is not there, or not finite, is empty.
pub fn render(results: &Results) -> Result<String> {
    let failed = "the CSV cannot be made";
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(HEAD).context(failed)?;
    let tasks = results.layout.tasks.iter().rev();
    let tasks: HashMap<&str, &TaskColumn> = tasks.map(|t| (t.name.as_str(), t)).collect();
    for cell in &results.cells {
        writer.write_record(row(cell, tasks.get(cell.task.as_str()).copied())).context(failed)?;
    }
    let bytes = writer.into_inner().context(failed)?;
    String::from_utf8(bytes).context(failed)
}

fn row(cell: &Cell, task: Option<&TaskColumn>) -> Vec<String> {
    let mut row =
        vec![cell.model.clone(), cell.task.clone(), cell.method.clone(), cell.seed.to_string()];
    match &cell.outcome {
        Outcome::Missing => row.push("missing".into()),
        Outcome::Failed { error } => row.extend(["failed".into(), error.clone()]),
        Outcome::Done(finding) => {
            row.extend(["done".into(), String::new()]);
            row.extend(found(finding, task));
        }
    }
    row.resize(HEAD.len() - 1, String::new());
    row.push(cell.digest.clone());
    row.iter().map(|cell| harmless(cell)).collect()
}

fn found(finding: &Finding, task: Option<&TaskColumn>) -> [String; 16] {
    let metric = task.map_or(finding.selection.as_str(), |task| metric(finding, task));
    let value = finding.best.metrics.get(metric).copied().flatten();
    let number = |v: f64| if v.is_finite() { v.to_string() } else { String::new() };
    let flops = &finding.flops_per_token;
    let frozen = flops.frozen_weights.total();
    [
        metric.to_string(),
        value.map_or(String::new(), |v| number(100.0 * v)),
        number(finding.best.epoch),
        finding.steps.to_string(),
        finding.parameters.at_start.to_string(),
        finding.parameters.at_end.to_string(),
        number(finding.parameters.time_average),
        finding.parameters.head.to_string(),
        (frozen + flops.paths_at_start.total()).to_string(),
        (frozen + flops.paths_at_end.total()).to_string(),
        number(finding.seconds.training),
        number(finding.seconds.evaluation),
        number(finding.seconds.median_step),
        number(finding.tokens_per_second),
        finding.peak_memory.map_or(String::new(), |bytes| bytes.to_string()),
        finding.device.clone(),
    ]
}

/// A cell that does nothing to a terminal, and that no spreadsheet takes for a formula: one that
/// begins like a formula, and is no number, gets an apostrophe before it.
pub(crate) fn harmless(cell: &str) -> String {
    let cell = printable(cell);
    let digits = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
    let number = cell.chars().all(digits) && cell.parse::<f64>().is_ok();
    match cell.starts_with(['=', '+', '-', '@', '\t']) && !number {
        true => format!("'{cell}"),
        false => cell.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_no_formula_and_a_number_stays_one() {
        for cell in ["=1+1", "+1+1", "-2+cmd|'/c calc'!A0", "@SUM(A1)", "\t=1", "-", "-inf"] {
            assert_eq!(harmless(cell), format!("'{cell}"));
        }
        // What a spreadsheet passes over before a formula is written out, so that none begins.
        for (cell, written) in [("\r=1", "\\r=1"), ("\u{feff}=1", "\\u{feff}=1")] {
            assert_eq!(harmless(cell), written);
        }
        for plain in ["", "-1", "+0.5", "-1.5e-7", "a=b", "mrpc", "–"] {
            assert_eq!(harmless(plain), plain);
        }
    }
}

//! Results as CSV, a row a run: for those who want to compute something else.

use super::grid::{metric, scale};
use aflora_record::freezes::harmless;
use aflora_record::results::{Cell, Finding, Outcome, Results, TaskColumn};
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
///
/// # Errors
/// A row is refused by the format.
pub fn render(results: &Results) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(HEAD)?;
    let tasks = results.layout.tasks.iter().rev();
    let tasks: HashMap<&str, &TaskColumn> = tasks.map(|t| (t.name.as_str(), t)).collect();
    for cell in &results.cells {
        writer.write_record(row(cell, tasks.get(cell.task.as_str()).copied()))?;
    }
    let bytes = writer.into_inner().map_err(|error| error.into_error())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
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
    let metric = task.map_or(finding.selection.metric.as_str(), |task| metric(finding, task));
    let value = finding.best.metrics.get(metric).copied().flatten();
    let number = |v: f64| if v.is_finite() { v.to_string() } else { String::new() };
    let flops = &finding.flops_per_token;
    [
        metric.to_string(),
        value.map_or(String::new(), |v| number(scale(finding, metric) * v)),
        number(finding.best.epoch),
        finding.steps.to_string(),
        finding.parameters.at_start.to_string(),
        finding.parameters.at_end.to_string(),
        number(finding.parameters.time_average),
        finding.parameters.head.to_string(),
        flops.at_start().to_string(),
        flops.at_end().to_string(),
        number(finding.seconds.training),
        number(finding.seconds.evaluation),
        number(finding.seconds.median_step),
        number(finding.tokens_per_second),
        finding.peak_memory.map_or(String::new(), |bytes| bytes.to_string()),
        finding.device.clone(),
    ]
}

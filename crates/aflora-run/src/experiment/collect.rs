//! From a run's folder to what a report needs of it.

use super::grid::{Plan, Planned};
use super::results::{Cell, Check, Finding, Matrix, Outcome, Point, Results};
use super::runner::Failure;
use crate::config;
use crate::run::folder::{read_json, CONFIG, METRICS, PROVENANCE};
use crate::run::place;
use crate::run::summary::Summary;
use aflora_files::lines::whole_lines;
use anyhow::{Context, Result};
use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

/// The most bytes of `freeze.csv`: a hundred times those of the largest model here.
const MOST_TABLE: u64 = 16 << 20;

/// Points of a curve that are kept.
const POINTS: usize = 80;

/// Whether the run in `folder` ended well with just these settings.
pub fn is_done(cell: &Planned, folder: &Path) -> bool {
    summary(folder).is_ok() && same_settings(cell, folder)
}

/// Whether the run in `folder` has the cell's settings, as a run that would go on there asks.
fn same_settings(cell: &Planned, folder: &Path) -> bool {
    place::differences(folder, &mut cell.resolved.clone()).is_ok_and(|d| d.is_empty())
}

fn summary(folder: &Path) -> Result<Summary> {
    Ok(read_json(&folder.join(METRICS))?)
}

/// Everything that the plan's cells found, where they lie in `runs`. `failures` are those that
/// failed, by their names.
pub fn collect(plan: &Plan, runs: &Path, failures: &BTreeMap<String, Failure>) -> Results {
    let cell = |planned: &Planned| {
        let folder = runs.join(planned.folder());
        let outcome = match failures.get(&planned.name()) {
            Some(failure) => Outcome::Failed { error: failure.why.clone() },
            None if !is_done(planned, &folder) => Outcome::Missing,
            None => match finding(&folder) {
                Ok(finding) => Outcome::Done(Box::new(finding)),
                Err(error) => Outcome::Failed { error: format!("{error:#}") },
            },
        };
        Cell {
            model: planned.resolved.model.model.clone(),
            task: planned.resolved.task.name().to_string(),
            method: planned.method.clone(),
            seed: planned.resolved.run.seed,
            digest: planned.digest.clone(),
            outcome,
        }
    };
    Results {
        experiment: plan.experiment.clone(),
        profile: plan.profile.clone(),
        layout: plan.layout.clone(),
        cells: plan.cells.iter().map(cell).collect(),
    }
}

fn finding(folder: &Path) -> Result<Finding> {
    let summary = summary(folder)?;
    let events = aflora_files::open(&folder.join("events.jsonl"));
    let (curve, checks) =
        events.and_then(|file| events_of(BufReader::new(file))).context("events.jsonl")?;
    let table = aflora_files::read_text_at_most(&folder.join("freeze.csv"), MOST_TABLE);
    let table = table.context("freeze.csv")?;
    let provenance: Value = read_json(&folder.join(PROVENANCE)).context(PROVENANCE)?;
    Ok(Finding {
        selection: summary.selection,
        best: summary.best,
        evaluations: summary.evaluations,
        parameters: summary.parameters,
        steps: summary.steps,
        flops_per_token: summary.flops_per_token,
        seconds: summary.seconds,
        tokens_per_second: summary.tokens_per_second,
        peak_memory: summary.peak_memory,
        device: summary.device,
        curve: thinned(curve, |_| false),
        checks: thinned(checks, |check| check.frozen > 0),
        matrices: matrices(&table)?,
        // The run's own: what `batch_size: auto` found stands there.
        settings: config::load(&folder.join(CONFIG), &[])?.settings(),
        provenance: portable(&provenance),
    })
}

/// Recorded steps and freeze tests.
fn events_of(events: impl BufRead) -> io::Result<(Vec<Point>, Vec<Check>)> {
    let (mut curve, mut checks) = (Vec::new(), Vec::new());
    whole_lines(events, |line| {
        let Ok(event) = serde_json::from_slice::<Value>(line) else { return };
        let whole = |key: &str| event[key].as_u64().unwrap_or_default();
        match event["event"].as_str() {
            Some("step") => curve.push(Point {
                step: whole("step"),
                loss: event["loss"].as_f64().unwrap_or(f64::NAN),
                trainable: event["trainable"].as_i64().unwrap_or_default(),
            }),
            Some("freeze") => {
                let matrices = event["matrices"].as_array().cloned().unwrap_or_default();
                let mut scores: Vec<f64> =
                    matrices.iter().filter_map(|m| m["score"].as_f64()).collect();
                scores.sort_by(f64::total_cmp);
                let at = |i: usize| scores.get(i).copied().unwrap_or(f64::NAN);
                checks.push(Check {
                    step: whole("step"),
                    ratio: event["ratio"].as_f64().unwrap_or(f64::NAN),
                    threshold: event["threshold"].as_f64(),
                    trained: matrices.len(),
                    frozen: matrices.iter().filter(|m| m["frozen"] == true).count(),
                    scores: [at(0), at(scores.len() / 2), at(scores.len().saturating_sub(1))],
                });
            }
            _ => {}
        }
    })?;
    // What is no number has no place in JSON, nor in a picture.
    curve.retain(|point| point.loss.is_finite());
    checks.retain(|check| check.ratio.is_finite() && check.scores.iter().all(|s| s.is_finite()));
    Ok((curve, checks))
}

/// At most [`POINTS`] of them, evenly, and all that `keep` wants.
fn thinned<T>(points: Vec<T>, keep: impl Fn(&T) -> bool) -> Vec<T> {
    let every = points.len().div_ceil(POINTS).max(1);
    let last = points.len().saturating_sub(1);
    let kept = points.into_iter().enumerate();
    kept.filter(|(i, point)| i % every == 0 || *i == last || keep(point)).map(|(_, p)| p).collect()
}

/// The rows of `freeze.csv`.
fn matrices(table: &str) -> Result<Vec<Matrix>> {
    let row = |line: &str| -> Option<Matrix> {
        let mut fields = line.split(',');
        Some(Matrix {
            name: fields.next()?.to_string(),
            block: fields.next()?.to_string(),
            elements: fields.next()?.parse().ok()?,
            frozen_at: match fields.next()? {
                "" => None,
                step => Some(step.parse().ok()?),
            },
        })
    };
    let rows = table.lines().skip(1).map(|line| row(line).with_context(|| format!("`{line}`")));
    rows.collect::<Result<_>>().context("freeze.csv")
}

/// Provenance without the command line and with files by their names alone: where they lay says
/// nothing on another machine.
fn portable(provenance: &Value) -> Value {
    let files = |key: &str| -> Vec<Value> {
        let files = provenance[key].as_array().cloned().unwrap_or_default();
        let short = |file: Value| {
            let path = file["path"].as_str().unwrap_or_default().to_string();
            let name = Path::new(&path).file_name().unwrap_or_default().to_string_lossy();
            let mut short = file.clone();
            short["path"] = json!(name);
            short
        };
        files.into_iter().map(short).collect()
    };
    let mut environment = provenance["environment"].clone();
    if let Some(keys) = environment.as_object_mut() {
        keys.remove("command");
    }
    json!({
        "environment": environment,
        "device": provenance["device"],
        "data": files("data"),
        "weights": files("weights"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thinned_curve_keeps_its_ends_and_what_matters() {
        let kept = thinned((0..1000).collect(), |i| *i == 501);
        assert!(kept.len() <= POINTS + 2, "{}", kept.len());
        assert_eq!((kept[0], kept[kept.len() - 1]), (0, 999));
        assert!(kept.contains(&501));
        assert_eq!(thinned(vec![1, 2, 3], |_| false), [1, 2, 3]);
    }

    #[test]
    fn a_half_written_line_of_events_is_passed_over() {
        let events =
            "{\"event\":\"step\",\"step\":10,\"loss\":0.5,\"trainable\":7}\n{\"event\":\"st";
        let (curve, checks) = events_of(events.as_bytes()).unwrap();
        assert_eq!((curve.len(), curve[0].step, checks.len()), (1, 10, 0));
    }

    #[test]
    fn provenance_names_no_folder() {
        let provenance = json!({
            "environment": {"aflora": "0.1.0", "command": ["/home/me/aflora"]},
            "device": "cpu",
            "data": [{"split": "train", "path": "/home/me/train.tsv", "sha256": "00"}],
            "weights": [],
        });
        let text = portable(&provenance).to_string();
        assert!(!text.contains("/home") && text.contains("train.tsv"), "{text}");
    }
}

//! What decided which matrices froze: r(t), the threshold and the scores, by step.

use super::steps::data;
use crate::report::charts::lines::{draw, Axes, Sample, Series};
use crate::report::document::{Chart, DocumentBlock, Section};
use crate::report::grid::Grid;
use crate::report::numbers::{fixed, significant};
use aflora_record::history::FreezePoint;
use aflora_record::results::{Finding, MethodRow, TaskColumn};

/// The section of thresholds and scores.
pub fn section(grid: &Grid) -> Section {
    let mut charts = Vec::new();
    for task in grid.tasks() {
        for method in grid.methods() {
            // Thresholds of different seeds lie at different heights; a mean of them decides nothing.
            let findings = grid.findings(&method.name, &task.name);
            let Some(&(seed, finding)) = findings.iter().find(|(_, f)| !f.checks.is_empty()) else {
                continue;
            };
            charts
                .extend([share(task, method, seed, finding), scores(task, method, seed, finding)]);
        }
    }
    let text =
        "At each test, r(t) is the share that should freeze; matrices whose mean score lies \
                below the threshold do. One seed's tests, not a mean.";
    Section {
        title: "Threshold and scores".into(),
        blocks: match charts.is_empty() {
            true => Vec::new(),
            false => vec![DocumentBlock::Text(text.into()), DocumentBlock::Charts(charts)],
        },
    }
}

fn line(label: &str, style: usize, finding: &Finding, of: impl Fn(&FreezePoint) -> f64) -> Series {
    let points = finding.checks.iter().map(|c| Sample::single(c.step as f64, of(c)));
    let points = points.filter(|p| p.mean.is_finite()).collect();
    Series { label: label.into(), style, points, steps: false }
}

fn share(task: &TaskColumn, method: &MethodRow, seed: u64, finding: &Finding) -> Chart {
    let most = finding.checks.iter().map(|c| c.trained).max().unwrap_or(0).max(1) as f64;
    let left = |c: &FreezePoint| c.left() as f64;
    let mut training = line("still train", 0, finding, |c| left(c) / most);
    training.steps = true;
    let series = [training, line("r(t)", 1, finding, |c| c.ratio)];
    let end = finding.checks.last().map_or(0.0, left);
    let done = finding.checks.iter().find(|c| left(c) == 0.0).map(|c| c.step);
    let name = format!("{}, {}, seed {seed}", task.label, method.label);
    Chart {
        title: format!("{name}: r(t) and the matrices that train"),
        finding: match done {
            Some(step) => format!("Of {} matrices the last froze at step {step}.", fixed(most, 0)),
            None => format!("{} of {} matrices train to the end.", fixed(end, 0), fixed(most, 0)),
        },
        drawing: draw(&series, Axes { x: "step", y: "share of matrices", log: false, zero: true }),
        data: data(format!("{name}: share that trains, and r(t)"), "step", &series),
        file: None,
    }
}

fn scores(task: &TaskColumn, method: &MethodRow, seed: u64, finding: &Finding) -> Chart {
    let series = [
        line("highest", 2, finding, |c| c.scores[2]),
        line("median", 0, finding, |c| c.scores[1]),
        line("lowest", 3, finding, |c| c.scores[0]),
        line("threshold", 1, finding, |c| c.threshold.unwrap_or(f64::NAN)),
    ];
    let crossed = finding
        .checks
        .iter()
        .find(|c| c.threshold.is_some_and(|threshold| threshold > c.scores[1]))
        .map(|c| (c.step, c.threshold.unwrap_or(f64::NAN)));
    let name = format!("{}, {}, seed {seed}", task.label, method.label);
    Chart {
        title: format!("{name}: threshold and mean scores of the matrices"),
        finding: match crossed {
            Some((step, threshold)) => format!(
                "The threshold passes the median score at step {step}, at {}.",
                significant(threshold)
            ),
            None => "The threshold stays below the median score.".into(),
        },
        drawing: draw(
            &series,
            Axes { x: "step", y: "score, scale of powers", log: true, zero: false },
        ),
        data: data(format!("{name}: threshold and scores"), "step", &series),
        file: None,
    }
}

//! Adapter parameters that train, by step.

use super::steps::{by_method, data, over_seeds};
use crate::report::charts::lines::{draw, Axes, Series};
use crate::report::document::{Chart, DocumentBlock, Section};
use crate::report::grid::Grid;
use crate::report::numbers::count;
use aflora_record::results::TaskColumn;

/// Counts that differ by more than this factor are drawn on a scale of powers.
const WIDE: f64 = 20.0;

/// The section on how many parameters train.
pub fn section(grid: &Grid) -> Section {
    let charts = grid.tasks().iter().filter_map(|task| chart(grid, task)).collect();
    Section { title: "Trainable parameters".into(), blocks: vec![DocumentBlock::Charts(charts)] }
}

fn chart(grid: &Grid, task: &TaskColumn) -> Option<Chart> {
    let mut series = by_method(grid, |method| {
        let findings = grid.findings(method, &task.name);
        over_seeds(findings.iter().flat_map(|(_, f)| {
            // Steps are recorded when they are done; before the first, all that trains trains.
            let start = (0.0, f.parameters.at_start as f64);
            let steps = f.curve.iter().map(|p| (p.step as f64, p.trainable as f64));
            std::iter::once(start).chain(steps)
        }))
    });
    if series.is_empty() {
        return None;
    }
    for line in &mut series {
        line.steps = true;
    }
    let finding = changes(&series);
    let data = data(format!("{}: mean trainable parameters", task.label), "step", &series);
    let all = || series.iter().flat_map(|s| &s.points).map(|p| p.mean).filter(|v| *v > 0.0);
    let log = all().fold(f64::MAX, f64::min) * WIDE < all().fold(0.0, f64::max);
    let mut y = "trainable parameters".to_string();
    let mut drawn = series;
    if log {
        y += ", scale of powers";
        // Nothing that trains has no place among powers.
        drawn.retain(|s| s.points.iter().any(|p| p.mean > 0.0));
    }
    Some(Chart {
        title: format!("{}: trainable adapter parameters by step", task.label),
        finding,
        drawing: draw(&drawn, Axes { x: "step", y: &y, log, zero: !log }),
        data,
        file: None,
    })
}

fn changes(series: &[Series]) -> String {
    let mut words = Vec::new();
    for s in series {
        let (Some(first), Some(last)) = (s.points.first(), s.points.last()) else { continue };
        if first.mean == last.mean {
            continue;
        }
        let since = s.points.iter().rev().take_while(|p| p.mean == last.mean).last();
        let since = since.map_or(last.x, |p| p.x);
        let (first, last) = (count(first.mean), count(last.mean));
        words.push(format!("{} goes from {first} to {last} by step {since}", s.label));
    }
    match words.is_empty() {
        true => "No method changes how many train.".into(),
        false if words.len() == series.len() => format!("{}.", words.join("; ")),
        false => format!("{}; the others stay as they are.", words.join("; ")),
    }
}

//! The dev metric by epoch, and the training loss by step.

use super::steps::{by_method, data, over_seeds};
use crate::report::charts::lines::{draw, Axes, Series};
use crate::report::document::{Chart, DocumentBlock, Section};
use crate::report::grid::{metric, scale, Grid};
use crate::report::numbers::{fixed, significant};
use aflora_record::results::TaskColumn;

/// The section of metrics by epoch and losses by step.
pub fn section(grid: &Grid) -> Section {
    let mut charts = Vec::new();
    for task in grid.tasks() {
        charts.extend(dev(grid, task));
        charts.extend(loss(grid, task));
    }
    let mut blocks = vec![DocumentBlock::Charts(charts)];
    if grid.seeds.len() > 1 {
        let text = "Lines are means over seeds, bands go from the least seed to the greatest.";
        blocks.insert(0, DocumentBlock::Text(text.into()));
    }
    Section { title: "Curves".into(), blocks }
}

fn dev(grid: &Grid, task: &TaskColumn) -> Option<Chart> {
    let mut name = None;
    let series = by_method(grid, |method| {
        let findings = grid.findings(method, &task.name);
        over_seeds(findings.iter().flat_map(|(_, f)| {
            let metric = metric(f, task);
            name.get_or_insert_with(|| metric.replace('_', " "));
            let scale = scale(f, metric);
            f.evaluations.iter().filter_map(move |e| Some((e.epoch, scale * e.metric(metric)?)))
        }))
    });
    let name = name?;
    let (best, worst) = extremes(&series)?;
    let y = match grid.is_lower_better(task) {
        true => name.clone(),
        false => format!("{name}, points"),
    };
    Some(Chart {
        title: format!("{}: {name} by epoch", task.label),
        finding: format!("{}.", ranking(&best, &worst)),
        drawing: draw(&series, Axes { x: "epoch", y: &y, log: false, zero: false }),
        data: data(format!("{}: mean {y}", task.label), "epoch", &series),
        file: None,
    })
}

type End = (String, f64);

/// The lines that end highest and lowest.
fn extremes(series: &[Series]) -> Option<(End, End)> {
    let mut ends: Vec<End> =
        series.iter().filter_map(|s| Some((s.label.clone(), s.points.last()?.mean))).collect();
    ends.sort_by(|a, b| b.1.total_cmp(&a.1));
    Some((ends.first()?.clone(), ends.last()?.clone()))
}

fn ranking(best: &End, worst: &End) -> String {
    match best.0 == worst.0 {
        true => format!("{} ends at {}", best.0, fixed(best.1, 2)),
        false => format!(
            "{} ends highest at {}, {} lowest at {}",
            best.0,
            fixed(best.1, 2),
            worst.0,
            fixed(worst.1, 2)
        ),
    }
}

fn loss(grid: &Grid, task: &TaskColumn) -> Option<Chart> {
    let series = by_method(grid, |method| {
        let findings = grid.findings(method, &task.name);
        over_seeds(
            findings.iter().flat_map(|(_, f)| f.curve.iter().map(|p| (p.step as f64, p.loss))),
        )
    });
    let (highest, lowest) = extremes(&series)?;
    let finding = match highest.0 == lowest.0 {
        true => format!("{} ends at {}.", lowest.0, significant(lowest.1)),
        false => format!(
            "{} ends lowest at {}, {} highest at {}.",
            lowest.0,
            significant(lowest.1),
            highest.0,
            significant(highest.1)
        ),
    };
    Some(Chart {
        title: format!("{}: training loss by step", task.label),
        finding,
        drawing: draw(&series, Axes { x: "step", y: "training loss", log: false, zero: true }),
        data: data(format!("{}: mean training loss", task.label), "step", &series),
        file: None,
    })
}

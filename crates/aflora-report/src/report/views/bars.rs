//! Cost as shares of the largest method's, averaged over tasks, as the paper's Figure 3.

use crate::report::charts::bars::{draw, Bar};
use crate::report::document::{Chart, DocumentBlock, Section, Table, TableEntry};
use crate::report::grid::Grid;
use crate::report::numbers::{count, fixed, significant, Mean};
use aflora_record::results::{Finding, MethodRow, TaskColumn};
use std::collections::BTreeSet;

/// A quantity: its name, its value, how that is written.
type Quantity = (&'static str, fn(&Finding) -> Option<f64>, fn(f64) -> String);

const QUANTITIES: [Quantity; 5] = [
    ("Training time, s", |f| Some(f.seconds.training), significant),
    (
        "Operations a token at the first step",
        |f| operations(f, true),
        |v| format!("{} M", fixed(v / 1e6, 1)),
    ),
    (
        "Operations a token at the last step",
        |f| operations(f, false),
        |v| format!("{} M", fixed(v / 1e6, 1)),
    ),
    ("Trainable parameters, average over steps", |f| Some(f.parameters.time_average), count),
    (
        "Peak memory",
        |f| f.peak_memory.map(|bytes| bytes as f64),
        |v| format!("{} GB", fixed(v / 1e9, 2)),
    ),
];

fn operations(f: &Finding, start: bool) -> Option<f64> {
    let flops = &f.flops_per_token;
    Some(if start { flops.at_start() } else { flops.at_end() } as f64)
}

/// The section of what each method costs.
pub fn section(grid: &Grid) -> Section {
    let charts: Vec<Chart> = QUANTITIES.iter().filter_map(|q| chart(grid, q)).collect();
    let mut text =
        "Each as a share of the largest method's, averaged over the tasks that all methods \
                have. Training time is that of all steps by the clock, evaluations not counted. \
                Operations are those of the adapted layers, frozen weights included, \
                forward and backward."
            .to_string();
    if devices(grid) > 1 {
        text += " These runs are of several devices: times and memory compare within one only.";
    }
    Section {
        title: "Cost".into(),
        blocks: match charts.is_empty() {
            true => Vec::new(),
            false => vec![DocumentBlock::Text(text), DocumentBlock::Charts(charts)],
        },
    }
}

fn devices(grid: &Grid) -> usize {
    let tasks = grid.tasks().iter();
    let findings =
        tasks.flat_map(|t| grid.methods().iter().flat_map(|m| grid.findings(&m.name, &t.name)));
    findings.map(|(_, f)| f.device.as_str()).collect::<BTreeSet<_>>().len()
}

fn value(grid: &Grid, (_, value, _): &Quantity, m: &MethodRow, t: &TaskColumn) -> Option<f64> {
    let findings = grid.findings(&m.name, &t.name);
    Mean::of(findings.iter().filter_map(|(_, f)| value(f))).map(|mean| mean.mean)
}

fn chart(grid: &Grid, quantity: &Quantity) -> Option<Chart> {
    let has = |m: &MethodRow| grid.tasks().iter().any(|t| value(grid, quantity, m, t).is_some());
    let methods: Vec<(usize, &MethodRow)> =
        grid.methods().iter().enumerate().filter(|(_, m)| has(m)).collect();
    // Per task the methods' values; only of tasks where none is missing, so shares compare.
    let tasks: Vec<Vec<f64>> = grid
        .tasks()
        .iter()
        .filter_map(|t| methods.iter().map(|(_, m)| value(grid, quantity, m, t)).collect())
        .collect();
    let largest = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    if methods.is_empty() || tasks.iter().all(|values| largest(values) <= 0.0) {
        return None;
    }
    let (name, _, written) = quantity;
    let mut rows = Vec::new();
    let mut bars: Vec<Bar> = Vec::new();
    for (i, (style, method)) in methods.iter().enumerate() {
        let shares = tasks.iter().filter(|v| largest(v) > 0.0).map(|v| v[i] / largest(v));
        let share = Mean::of(shares)?.mean;
        let mean = Mean::of(tasks.iter().map(|v| v[i]))?.mean;
        bars.push((method.label.clone(), *style, share));
        rows.push(vec![
            TableEntry::new(&method.label),
            written(mean).into(),
            fixed(share, 3).into(),
        ]);
    }
    let least = bars.iter().min_by(|a, b| a.2.total_cmp(&b.2))?;
    let most = bars.iter().max_by(|a, b| a.2.total_cmp(&b.2))?;
    let finding = match least.0 == most.0 {
        true => format!("{} alone.", most.0),
        false => format!("{} has the most, {} the least: {}.", most.0, least.0, fixed(least.2, 2)),
    };
    Some(Chart {
        title: (*name).to_string(),
        finding: format!("{finding} Over {} of {} tasks.", tasks.len(), grid.tasks().len()),
        drawing: draw(&bars),
        data: Table {
            caption: (*name).to_string(),
            words: false,
            head: ["Method", "Mean over tasks", "Share"].map(String::from).to_vec(),
            rows,
        },
        file: None,
    })
}

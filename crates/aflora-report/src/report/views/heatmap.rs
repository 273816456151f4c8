//! When each matrix froze: layers by matrices, as the paper's Figure 5.

use super::super::matrices::MatrixPlace;
use crate::report::charts::heat::{draw, HeatCell};
use crate::report::document::{Chart, DocumentBlock, Section, Table};
use crate::report::grid::Grid;
use crate::report::numbers::{fixed, Mean};
use aflora_record::results::{Finding, MethodRow, TaskColumn};
use std::collections::BTreeMap;

/// The most cells of a map: a hundred times those of the largest model here.
const MOST: u64 = 100_000;

/// The section of heat maps, one a task and method.
pub fn section(grid: &Grid) -> Section {
    let freezing: Vec<&MethodRow> = grid.methods().iter().filter(|m| freezes(grid, m)).collect();
    let mut charts = Vec::new();
    for task in grid.tasks() {
        for method in &freezing {
            charts.extend(chart(grid, method, task, freezing.len() > 1));
        }
    }
    let text =
        "The step at which each matrix froze, as the mean over seeds. A projects down, B up; \
                out and inter are the feed-forward layers. \"never\": it trained to the end; *: in \
                some runs only, of which this is the mean.";
    Section {
        title: "When matrices froze".into(),
        blocks: match charts.is_empty() {
            true => Vec::new(),
            false => vec![DocumentBlock::Text(text.into()), DocumentBlock::Charts(charts)],
        },
    }
}

fn freezes(grid: &Grid, method: &MethodRow) -> bool {
    let findings = grid.tasks().iter().flat_map(|t| grid.findings(&method.name, &t.name));
    findings.into_iter().any(|(_, f)| f.matrices.iter().any(|m| m.frozen_at.is_some()))
}

/// At each row and layer: the steps of those that froze, and how many did not.
type Steps = BTreeMap<(usize, u64), (Vec<f64>, usize)>;

fn chart(grid: &Grid, method: &MethodRow, task: &TaskColumn, several: bool) -> Option<Chart> {
    let findings: Vec<&Finding> =
        grid.findings(&method.name, &task.name).iter().map(|(_, f)| *f).collect();
    let names = findings.iter().flat_map(|f| f.matrices.iter().map(|m| m.name.as_str()));
    let (rows, places) = MatrixPlace::rows(names);
    if rows.is_empty() {
        return None;
    }
    let mut steps = Steps::new();
    for matrix in findings.iter().flat_map(|f| &f.matrices) {
        let Some((row, layer)) = places.get(matrix.name.as_str()) else { continue };
        let (frozen, never) = steps.entry((*row, *layer)).or_default();
        match matrix.frozen_at {
            Some(step) => frozen.push(step as f64),
            None => *never += 1,
        }
    }
    let last = places.values().map(|(_, layer)| *layer).max().unwrap_or(0);
    // No model's map: whoever made the file up does not get a drawing of any size.
    let size = rows.len() as u64 * (last + 1);
    if size > MOST {
        let (task, method) = (&task.label, &method.label);
        tracing::warn!("{task}, {method}: a heat map of {size} places is left out");
        return None;
    }
    let layers: Vec<String> = (0..=last).map(|layer| layer.to_string()).collect();
    let grid_rows: Vec<(String, Vec<HeatCell>)> = rows
        .iter()
        .enumerate()
        .map(|(r, name)| {
            let cells = (0..=last).map(|layer| cell(steps.get(&(r, layer)))).collect();
            (name.clone(), cells)
        })
        .collect();

    let mut title = format!("{}: when matrices froze", task.label);
    let mut file = format!("heatmap-{}", task.name);
    if several {
        title += &format!(" ({})", method.label);
        file += &format!("-{}", method.name);
    }
    let runs = findings.len();
    let below =
        format!("step at which it froze, mean of {runs} run{}", if runs == 1 { "" } else { "s" });
    let mut head = vec!["matrix".to_string()];
    head.extend(layers.iter().cloned());
    let data = Table {
        caption: title.clone(),
        words: false,
        head,
        rows: grid_rows
            .iter()
            .map(|(name, cells)| {
                let mut row = vec![name.as_str().into()];
                row.extend(cells.iter().map(|c| c.text.as_str().into()));
                row
            })
            .collect(),
    };
    Some(Chart {
        title,
        finding: finding(&grid_rows),
        drawing: draw(&grid_rows, &layers, "layer", &below),
        data,
        file: Some(file),
    })
}

fn cell(steps: Option<&(Vec<f64>, usize)>) -> HeatCell {
    let Some((frozen, never)) = steps else {
        return HeatCell { text: String::new(), value: None }; // no such matrix in this layer
    };
    match Mean::of(frozen.iter().copied()) {
        None => HeatCell { text: "never".into(), value: None },
        Some(Mean { mean, .. }) => {
            let mark = if *never > 0 { "*" } else { "" };
            HeatCell { text: format!("{}{mark}", fixed(mean, 0)), value: Some(mean) }
        }
    }
}

fn finding(rows: &[(String, Vec<HeatCell>)]) -> String {
    let mut all: Vec<(f64, String)> = Vec::new();
    let mut means = Vec::new();
    for (name, cells) in rows {
        let values = cells.iter().enumerate().filter_map(|(layer, c)| Some((layer, c.value?)));
        all.extend(values.map(|(layer, v)| (v, format!("{name} of layer {layer}"))));
        if let Some(mean) = Mean::of(cells.iter().filter_map(|c| c.value)) {
            means.push(format!("{name} {}", fixed(mean.mean, 0)));
        }
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let never = rows.iter().flat_map(|(_, c)| c).filter(|c| c.text == "never").count();
    let (Some(first), Some(last)) = (all.first(), all.last()) else {
        return "No matrix froze.".into();
    };
    let mut text = format!(
        "First {} (step {}), last {} (step {}). Means by row: {}.",
        first.1,
        fixed(first.0, 0),
        last.1,
        fixed(last.0, 0),
        means.join(", ")
    );
    if never > 0 {
        text += &format!(" {never} never froze.");
    }
    text
}

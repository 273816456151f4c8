//! How far each method is from the reference, seed by seed, and what the paper says should hold.

use super::claims;
use crate::report::charts::forest;
use crate::report::document::{Chart, DocumentBlock, Section, Table, TableEntry, Tone};
use crate::report::grid::Grid;
use crate::report::numbers::{fixed, signed, Difference, Verdict};

/// The section of differences from the reference.
pub fn section(grid: &Grid) -> Section {
    let mut blocks = Vec::new();
    if let Some(reference) = &grid.results.layout.reference {
        let table = table(grid, reference);
        blocks.push(DocumentBlock::Text(format!(
            "Points above or below {}, as the mean over the seeds that both have, with a 95 % \
             interval (Student t on paired differences, not corrected for the number of \
             comparisons). A difference counts as higher or lower only where its interval leaves \
             0 out. n is {} where it is not given.",
            grid.label(reference),
            grid.seeds.len()
        )));
        blocks.push(DocumentBlock::Charts(chart(grid, reference).into_iter().collect()));
        blocks.push(DocumentBlock::table(table));
    }
    blocks.extend(claims::blocks(grid));
    Section { title: "Differences".into(), blocks }
}

fn others<'a>(grid: &'a Grid, reference: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let names = grid.methods().iter().map(|m| m.name.as_str()).enumerate();
    names.filter(move |(_, name)| *name != reference)
}

fn table(grid: &Grid, reference: &str) -> Table {
    let mut head = vec!["Method".to_string()];
    head.extend(grid.tasks().iter().map(|t| t.label.clone()));
    let several = grid.tasks().len() > 1 && grid.has_average();
    let seeds = grid.seeds.len();
    if several {
        head.push("All tasks".into());
    }
    let rows =
        others(grid, reference)
            .map(|(_, method)| {
                let mut row = vec![TableEntry::new(grid.label(method))];
                row.extend(grid.tasks().iter().map(|t| {
                    entry(grid.paired(method, reference, t), seeds, grid.is_lower_better(t))
                }));
                if several {
                    let lower = grid.has_errors();
                    row.push(entry(grid.paired_average(method, reference), seeds, lower));
                }
                row
            })
            .collect();
    Table {
        caption: format!("Differences from {}, in {}", grid.label(reference), grid.unit()),
        words: false,
        head,
        rows,
    }
}

/// A difference as an entry: the mean, the interval below, the verdict in words; set by whether
/// lower is better.
fn entry(differences: Vec<f64>, seeds: usize, lower_is_better: bool) -> TableEntry {
    let Some(d) = Difference::of(differences) else {
        return TableEntry::none("no seed has both");
    };
    let verdict = d.verdict();
    let note = match d.interval {
        Some((low, high)) => {
            let n = if d.n < seeds { format!(", n = {}", d.n) } else { String::new() };
            format!("{} to {}{n}\n{}", signed(low, 2), signed(high, 2), verdict.words())
        }
        None => verdict.words().to_string(),
    };
    TableEntry::new(signed(d.mean, 2)).noted(note).toned(match (verdict, lower_is_better) {
        (Verdict::Higher, false) | (Verdict::Lower, true) => Tone::Good,
        (Verdict::Lower, false) | (Verdict::Higher, true) => Tone::Bad,
        (Verdict::Noise | Verdict::OneSeed | Verdict::Alike, _) => Tone::Plain,
    })
}

/// The averages against the reference's, as a chart.
pub fn chart(grid: &Grid, reference: &str) -> Option<Chart> {
    let rows: Vec<forest::ForestRow> = others(grid, reference)
        .filter_map(|(i, method)| {
            let d = Difference::of(grid.paired_average(method, reference))?;
            Some((grid.label(method), i, d))
        })
        .collect();
    if rows.is_empty() {
        return None;
    }
    let said = |verdict: Verdict| -> Vec<String> {
        let these = rows.iter().filter(|(_, _, d)| d.verdict() == verdict);
        these.map(|(label, _, d)| format!("{label} ({})", signed(d.mean, 2))).collect()
    };
    let mut finding = Vec::new();
    let verdicts =
        [Verdict::Higher, Verdict::Lower, Verdict::Noise, Verdict::OneSeed, Verdict::Alike];
    for verdict in verdicts {
        let these = said(verdict);
        if !these.is_empty() {
            finding.push(format!("{}: {}", verdict.words(), these.join(", ")));
        }
    }
    let reference = grid.label(reference);
    let unit =
        format!("{} above {reference}, average over tasks, with 95 % intervals", grid.unit());
    let data = Table {
        caption: unit.clone(),
        words: false,
        head: ["Method", "Mean", "Low", "High", "n"].map(String::from).to_vec(),
        rows: rows
            .iter()
            .map(|(label, _, d)| {
                let (low, high) = d.interval.unwrap_or((f64::NAN, f64::NAN));
                vec![
                    label.as_str().into(),
                    fixed(d.mean, 2).into(),
                    fixed(low, 2).into(),
                    fixed(high, 2).into(),
                    d.n.to_string().into(),
                ]
            })
            .collect(),
    };
    Some(Chart {
        title: format!("Average over all tasks, against {reference}"),
        finding: format!("{}.", finding.join("; ")),
        drawing: forest::draw(&rows, &unit),
        data,
        file: None,
    })
}

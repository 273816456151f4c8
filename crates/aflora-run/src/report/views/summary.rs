//! The first lines of a report: how much was run, who is ahead, what became of the paper's claims.

use super::{claims, settings, table};
use crate::experiment::results::Outcome;
use crate::report::document::{Block, Section};
use crate::report::grid::Grid;
use crate::report::numbers::{count, fixed};

/// The section.
pub fn section(grid: &Grid) -> Section {
    let mut lines = vec![how_much(grid)];
    lines.extend(settings::cut(grid.results));
    lines.extend(ahead(grid));
    for claim in &grid.results.layout.claims {
        let standing = claims::whole(&claims::pairs(grid, claim));
        let says = claim.says.trim_end_matches('.');
        lines.push(format!("The paper says: {says}. Our result {}.", standing.words()));
    }
    Section { title: "In short".into(), blocks: vec![Block::List(lines)] }
}

fn how_much(grid: &Grid) -> String {
    let cells = || grid.results.cells.iter().filter(|c| c.model == grid.model);
    let done = cells().filter(|c| matches!(c.outcome, Outcome::Done(_))).count();
    let failed = cells().filter(|c| matches!(c.outcome, Outcome::Failed { .. })).count();
    let missing = cells().count() - done - failed;
    let mut text = format!(
        "{} by {} by {} on {}: {done} of {} runs are done",
        plural(grid.methods().len(), "method"),
        plural(grid.tasks().len(), "task"),
        plural(grid.seeds().len(), "seed"),
        grid.model,
        cells().count(),
    );
    for (n, what) in [(failed, "failed"), (missing, "missing")] {
        if n > 0 {
            text += &format!(", {n} {what}");
        }
    }
    text + "."
}

fn plural(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn ahead(grid: &Grid) -> Option<String> {
    let methods = grid.methods().iter();
    let means = methods.filter_map(|m| Some((m, table::average(grid, m)?.mean)));
    let mut means: Vec<_> = means.collect();
    means.sort_by(|a, b| b.1.total_cmp(&a.1));
    let (method, mean) = *means.first()?;
    if means.get(1).is_some_and(|(_, second)| *second == mean) {
        return Some(format!("Several methods share the highest average, {}.", fixed(mean, 2)));
    }
    let parameters: Vec<f64> = grid
        .tasks()
        .iter()
        .flat_map(|t| grid.findings(&method.name, &t.name))
        .map(|(_, f)| f.parameters.time_average)
        .collect();
    let average = parameters.iter().sum::<f64>() / parameters.len() as f64;
    Some(format!(
        "Highest average: {}, {} points, with {} trainable adapter parameters (averaged over its \
         steps).",
        method.label,
        fixed(mean, 2),
        count(average)
    ))
}

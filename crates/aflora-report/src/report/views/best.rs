//! Of each method whose settings were swept, the best variant, by how much it is ahead, and whether it
//! lies at the end of what was tried.

use crate::report::document::{DocumentBlock, Section, Table, TableEntry, Tone};
use crate::report::grid::Grid;
use crate::report::numbers::{fixed, signed, Mean};
use aflora_record::results::MethodRow;

/// The section with a row for each method that was swept.
pub fn section(grid: &Grid) -> Section {
    let rows: Vec<Vec<TableEntry>> =
        families(grid).iter().filter_map(|(name, tried)| row(grid, name, tried)).collect();
    let head = ["Method", "Best", "Points", "Tried", "Ahead of the next", "At an end"];
    let text =
        "By the average over tasks and seeds, of variants that have them all. A best that is \
                the first or the last of what was tried may not be the best there is: widen the \
                range. One that is hardly ahead of the next was chosen by chance.";
    let blocks = match rows.is_empty() {
        true => Vec::new(),
        false => {
            let head = head.map(String::from).to_vec();
            let caption = format!("The best of each sweep, on {}", grid.model);
            let table = Table { caption, words: true, head, rows };
            vec![DocumentBlock::table(table), DocumentBlock::Text(text.into())]
        }
    };
    Section { title: "Best of each sweep".into(), blocks }
}

/// Methods by what stands before the settings in their variants' names, in the order of the layout.
fn families<'a>(grid: &Grid<'a>) -> Vec<(&'a str, Vec<&'a MethodRow>)> {
    let mut families: Vec<(&str, Vec<&MethodRow>)> = Vec::new();
    for method in grid.methods() {
        let Some((name, settings)) = method.name.split_once(' ') else { continue };
        if !settings.contains('=') {
            continue;
        }
        match families.iter_mut().find(|(family, _)| *family == name) {
            Some((_, tried)) => tried.push(method),
            None => families.push((name, vec![method])),
        }
    }
    families
}

fn row(grid: &Grid, family: &str, tried: &[&MethodRow]) -> Option<Vec<TableEntry>> {
    let lower = grid.tasks().first().is_some_and(|task| grid.is_lower_better(task));
    let goodness = |value: f64| if lower { -value } else { value };
    let mut found: Vec<(usize, f64)> = Vec::new();
    for (i, method) in tried.iter().enumerate() {
        found.extend(value(grid, method).map(|value| (i, value)));
    }
    found.sort_by(|(_, a), (_, b)| goodness(*b).total_cmp(&goodness(*a)));
    let &(best, points) = found.first()?;
    let settings = tried[best].name.split_once(' ').map_or("", |(_, settings)| settings);
    let ahead = found.get(1).map(|(_, next)| goodness(points) - goodness(*next));
    let at_an_end = tried.len() > 1 && (best == 0 || best + 1 == tried.len());
    let end = match at_an_end {
        true => TableEntry::new("yes").toned(Tone::Bad),
        false => TableEntry::new("no"),
    };
    let count = match found.len() == tried.len() {
        true => tried.len().to_string(),
        false => format!("{} of {}", found.len(), tried.len()),
    };
    Some(vec![
        TableEntry::new(family),
        TableEntry::new(settings),
        TableEntry::new(fixed(points, 2)),
        TableEntry::new(count),
        ahead.map_or_else(
            || TableEntry::none("nothing else has a result"),
            |ahead| TableEntry::new(signed(ahead, 2)),
        ),
        end,
    ])
}

/// The mean over seeds of the average over tasks, or of the only task.
fn value(grid: &Grid, method: &MethodRow) -> Option<f64> {
    let of = |seed: u64| match grid.tasks() {
        [task] => grid.score(&method.name, task, seed),
        _ => grid.average(&method.name, seed),
    };
    let values: Option<Vec<f64>> = grid.seeds.iter().map(|&seed| of(seed)).collect();
    Mean::of(values?).map(|mean| mean.mean)
}

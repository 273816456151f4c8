//! What trained parameters buy: their average over the steps against the score, method by method.

use crate::report::charts::scatter::{draw, Point};
use crate::report::document::{Chart, DocumentBlock, Section, Table, TableEntry};
use crate::report::grid::Grid;
use crate::report::numbers::{count, fixed, signed, Difference, Mean};
use aflora_record::results::MethodRow;

/// A method, by what it trained and how high it came.
struct Place<'a> {
    style: usize,
    method: &'a MethodRow,
    parameters: f64,
    score: Difference,
    /// The score with an interval that holds together with all others'.
    corrected: Option<Difference>,
}

/// The section of the front.
pub fn section(grid: &Grid) -> Section {
    let charts: Vec<Chart> = chart(grid).into_iter().collect();
    let mut blocks = Vec::new();
    if !charts.is_empty() {
        blocks.push(DocumentBlock::Text(words(grid)));
        blocks.push(DocumentBlock::Charts(charts));
        blocks.push(DocumentBlock::table(table(grid, &places(grid))));
    }
    Section { title: "Parameters against score".into(), blocks }
}

fn words(grid: &Grid) -> String {
    let what = match &grid.results.layout.reference {
        Some(reference) => format!(
            "the difference from {}, paired over seeds and averaged over the tasks",
            grid.label(reference)
        ),
        None => "the score averaged over the tasks, its mean over seeds".into(),
    };
    format!(
        "Adapter parameters that were updated, averaged over the steps and then over tasks and seeds, \
         against {what}. Intervals are of 95 % (Student t); the corrected ones hold together for all \
         methods with that confidence (Bonferroni). A method is on the front where none trains fewer \
         parameters and comes as high."
    )
}

/// Every method that has finished runs on all tasks, in the order of the layout.
fn places<'a>(grid: &'a Grid) -> Vec<Place<'a>> {
    let reference = grid.results.layout.reference.as_deref();
    let scores = |method: &MethodRow| match reference {
        Some(reference) => grid.paired_average(&method.name, reference),
        None => grid.seeds.iter().filter_map(|&seed| grid.average(&method.name, seed)).collect(),
    };
    let methods = grid.methods().iter().enumerate();
    let found: Vec<(usize, &MethodRow, f64, Vec<f64>)> = methods
        .filter_map(|(style, method)| {
            Some((style, method, parameters(grid, method)?, scores(method)))
        })
        .filter(|(_, _, _, scores)| !scores.is_empty())
        .collect();
    let is_reference = |method: &MethodRow| reference == Some(method.name.as_str());
    let comparisons = found.iter().filter(|(_, method, ..)| !is_reference(method)).count();
    let place = |(style, method, parameters, scores): (usize, &'a MethodRow, f64, Vec<f64>)| {
        if is_reference(method) {
            // It is what it is measured by.
            let score = Difference { mean: 0.0, interval: None, n: scores.len() };
            return Some(Place { style, method, parameters, score, corrected: None });
        }
        let score = Difference::of(scores.iter().copied())?;
        let corrected = Difference::among(scores, comparisons);
        Some(Place { style, method, parameters, score, corrected })
    };
    found.into_iter().filter_map(place).collect()
}

/// What a method updated on average, of each task the mean over its runs.
fn parameters(grid: &Grid, method: &MethodRow) -> Option<f64> {
    let of_task = |task: &aflora_record::results::TaskColumn| {
        let findings = grid.findings(&method.name, &task.name).iter();
        Mean::of(findings.map(|(_, f)| f.parameters.time_average)).map(|mean| mean.mean)
    };
    let means: Option<Vec<f64>> = grid.tasks().iter().map(of_task).collect();
    Mean::of(means?).map(|mean| mean.mean)
}

/// Whether no other method trains as few parameters and comes as high, and better in one of both.
fn is_on_front(place: &Place, places: &[Place], lower: bool) -> bool {
    let height = |p: &Place| if lower { -p.score.mean } else { p.score.mean };
    !places.iter().any(|other| {
        let (fewer, higher) =
            (other.parameters <= place.parameters, height(other) >= height(place));
        let better = other.parameters < place.parameters || height(other) > height(place);
        fewer && higher && better
    })
}

fn chart(grid: &Grid) -> Option<Chart> {
    let places = places(grid);
    if places.is_empty() {
        return None;
    }
    let mut front: Vec<&Place> =
        places.iter().filter(|p| is_on_front(p, &places, grid.has_errors())).collect();
    front.sort_by(|a, b| a.parameters.total_cmp(&b.parameters));
    let said = front.iter().map(|p| {
        format!("{} ({}, {})", p.method.label, count(p.parameters), written(grid, p.score.mean))
    });
    let points: Vec<Point> =
        places.iter().map(|p| (p.method.label.clone(), p.style, p.parameters, p.score)).collect();
    let y = match &grid.results.layout.reference {
        Some(reference) => format!("{} above {}", grid.unit(), grid.label(reference)),
        None => grid.unit().into(),
    };
    Some(Chart {
        title: "Trained parameters against score".into(),
        finding: format!(
            "On the front, from few parameters to many: {}.",
            said.collect::<Vec<_>>().join(", ")
        ),
        drawing: draw(&points, "trained parameters, average over steps", &y),
        data: table(grid, &places),
        file: Some("front".into()),
    })
}

/// A score, with its sign where it is a difference.
fn written(grid: &Grid, value: f64) -> String {
    match grid.results.layout.reference {
        Some(_) => signed(value, 2),
        None => fixed(value, 2),
    }
}

fn table(grid: &Grid, places: &[Place]) -> Table {
    let reference = grid.results.layout.reference.as_deref();
    let whole = places.iter().find(|p| reference == Some(p.method.name.as_str()));
    let interval = |d: Option<&Difference>| match d.and_then(|d| d.interval) {
        Some((low, high)) => {
            TableEntry::new(format!("{} to {}", written(grid, low), written(grid, high)))
        }
        None => TableEntry::none("no interval"),
    };
    let row = |p: &Place| {
        let share = whole.map(|whole| p.parameters / whole.parameters);
        let on_front = if is_on_front(p, places, grid.has_errors()) { "yes" } else { "no" };
        vec![
            TableEntry::new(&p.method.label),
            count(p.parameters).into(),
            share.map_or_else(|| TableEntry::none("no reference"), |s| fixed(s, 2).into()),
            written(grid, p.score.mean).into(),
            interval(Some(&p.score)),
            interval(p.corrected.as_ref()),
            p.score.n.to_string().into(),
            on_front.into(),
        ]
    };
    Table {
        caption: "Trained parameters, average over steps, against score".into(),
        words: false,
        head: ["Method", "Parameters", "Share", "Score", "95 %", "Corrected", "n", "On the front"]
            .map(String::from)
            .to_vec(),
        rows: places.iter().map(row).collect(),
    }
}

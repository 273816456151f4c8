//! What curves share: means over seeds at each step, colours by method, data as a table.

use crate::report::charts::lines::{Sample, Series};
use crate::report::document::Table;
use crate::report::grid::Grid;
use crate::report::numbers::significant;
use std::collections::BTreeMap;

/// Rows of a data table; beyond that, points are left out evenly.
const MOST_ROWS: usize = 40;

/// The mean and range over seeds at each place; what is not finite counts for nothing.
pub fn over_seeds(points: impl IntoIterator<Item = (f64, f64)>) -> Vec<Sample> {
    // Places are steps or epochs; a thousandth of one tells them apart.
    let mut at: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
    for (x, value) in points {
        if x.is_finite() && value.is_finite() {
            at.entry((x * 1e3).round() as i64).or_default().push(value);
        }
    }
    at.into_iter()
        .map(|(x, values)| Sample {
            x: x as f64 / 1e3,
            mean: values.iter().sum::<f64>() / values.len() as f64,
            range: (
                values.iter().copied().fold(f64::INFINITY, f64::min),
                values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            ),
        })
        .collect()
}

/// A line for each method that has points on a task.
pub fn by_method(grid: &Grid, mut samples: impl FnMut(&str) -> Vec<Sample>) -> Vec<Series> {
    let methods = grid.methods().iter().enumerate();
    methods
        .map(|(style, m)| Series {
            label: m.label.clone(),
            style,
            points: samples(&m.name),
            steps: false,
        })
        .filter(|series| !series.points.is_empty())
        .collect()
}

/// The points as a table, a column for each line.
pub fn data(caption: String, x: &str, series: &[Series]) -> Table {
    let key = |s: &Sample| (s.x * 1e3).round() as i64;
    let mut places: Vec<i64> = series.iter().flat_map(|s| s.points.iter().map(key)).collect();
    places.sort_unstable();
    places.dedup();
    let every = places.len().div_ceil(MOST_ROWS).max(1);
    let mut head = vec![x.to_string()];
    head.extend(series.iter().map(|s| s.label.clone()));
    let rows = places
        .iter()
        .enumerate()
        .filter(|(i, _)| i % every == 0 || i + 1 == places.len())
        .map(|(_, place)| {
            let mut row = vec![format!("{}", *place as f64 / 1e3).into()];
            row.extend(series.iter().map(|s| {
                let found = s.points.iter().find(|p| key(p) == *place);
                found.map_or("".into(), |p| significant(p.mean).into())
            }));
            row
        })
        .collect();
    let caption = match every {
        1 => caption,
        n => format!("{caption}; one row in {n}"),
    };
    Table { caption, words: false, head, rows }
}

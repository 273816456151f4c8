//! Differences with their intervals, a row each, around a line at 0.

use super::axis::Scale;
use super::canvas::{shortened, Canvas};
use crate::report::document::Drawing;
use crate::report::numbers::{signed, Difference};

const WIDTH: f64 = 446.0;
const ROW: f64 = 26.0;
const TOP: f64 = 8.0;

/// A row: what it is, how it looks, the difference.
pub type ForestRow = (String, usize, Difference);

/// Draws differences; `unit` says what of.
pub fn draw(rows: &[ForestRow], unit: &str) -> Drawing {
    let name = rows.iter().map(|r| r.0.chars().count()).max().unwrap_or(0).min(22);
    let left = name as f64 * 6.4 + 14.0;
    let ends = |d: &Difference| d.interval.unwrap_or((d.mean, d.mean));
    let values = rows.iter().flat_map(|(_, _, d)| [ends(d).0, d.mean, ends(d).1]);
    let x = Scale::linear(values.chain([0.0]), false, (left, WIDTH - 46.0));
    let bottom = TOP + rows.len() as f64 * ROW;
    let mut canvas = Canvas::default();
    for (value, text) in x.ticks(5) {
        if let Some(at) = x.at(value) {
            let class = if value.abs() < 1e-9 { "zero" } else { "rule" };
            canvas.line(class, (at, TOP - 4.0), (at, bottom + 4.0));
            canvas.text("soft small mid", (at, bottom + 18.0), &text);
        }
    }
    canvas.text("soft small mid", ((left + WIDTH - 46.0) / 2.0, bottom + 36.0), unit);
    for (i, (label, style, d)) in rows.iter().enumerate() {
        let y = TOP + i as f64 * ROW + ROW / 2.0;
        canvas.text("end", (left - 10.0, y + 4.0), &shortened(label, 22));
        let (low, high) = ends(d);
        if let (Some(low), Some(mean), Some(high)) = (x.at(low), x.at(d.mean), x.at(high)) {
            let class = format!("c{} line", style % 8);
            canvas.line(&class, (low, y), (high, y));
            if d.interval.is_some() {
                for end in [low, high] {
                    canvas.line(&class, (end, y - 4.0), (end, y + 4.0));
                }
            }
            canvas.marker(*style, (mean, y));
        }
        canvas.text("small end", (WIDTH, y + 4.0), &signed(d.mean, 2));
    }
    Drawing { width: WIDTH, height: bottom + 42.0, svg: canvas.finish(), rigid: false }
}

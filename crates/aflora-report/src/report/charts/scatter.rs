//! Points with intervals over two quantities, each named beside the picture.

use super::axis::Scale;
use super::canvas::{shortened, width, Canvas};
use crate::report::document::Drawing;
use crate::report::numbers::Difference;

const WIDTH: f64 = 460.0;
const LEAST_HEIGHT: f64 = 262.0;
const TOP: f64 = 24.0;
const LEFT: f64 = 46.0;
/// Between two names.
const ROW: f64 = 18.0;

/// A point: what it is, how it looks, where it lies along the x axis, and how high.
pub type Point = (String, usize, f64, Difference);

/// Draws points; `x` and `y` say what the axes show.
pub fn draw(points: &[Point], x_axis: &str, y_axis: &str) -> Drawing {
    let names: Vec<String> = points.iter().map(|p| shortened(&p.0, 22)).collect();
    let longest = names.iter().map(|name| width(name)).fold(0.0, f64::max);
    let right = WIDTH - longest - 34.0;
    let height = LEAST_HEIGHT.max(TOP + points.len() as f64 * ROW + 48.0);
    let bottom = height - 38.0;
    let ends = |d: &Difference| d.interval.unwrap_or((d.mean, d.mean));
    let values = points.iter().flat_map(|p| [ends(&p.3).0, p.3.mean, ends(&p.3).1]);
    let x = Scale::linear(points.iter().map(|p| p.2), true, (LEFT, right));
    let y = Scale::linear(values, false, (bottom, TOP));

    let mut canvas = Canvas::default();
    canvas.text("soft small", (0.0, 11.0), y_axis);
    canvas.text("soft small mid", ((LEFT + right) / 2.0, height - 6.0), x_axis);
    for (value, text) in y.ticks(5) {
        if let Some(at) = y.at(value) {
            let class = if value.abs() < 1e-9 { "zero" } else { "rule" };
            canvas.line(class, (LEFT, at), (right, at));
            canvas.text("soft small end", (LEFT - 6.0, at + 4.0), &text);
        }
    }
    for (value, text) in x.ticks(4) {
        if let Some(at) = x.at(value) {
            canvas.line("zero", (at, bottom), (at, bottom + 4.0));
            canvas.text("soft small mid", (at, bottom + 16.0), &text);
        }
    }
    canvas.line("zero", (LEFT, bottom), (right, bottom));
    for (row, ((_, style, along, d), name)) in points.iter().zip(&names).enumerate() {
        if let (Some(px), Some(low), Some(py), Some(high)) =
            (x.at(*along), y.at(ends(d).0), y.at(d.mean), y.at(ends(d).1))
        {
            if d.interval.is_some() {
                let class = format!("c{} line", style % 8);
                canvas.line(&class, (px, low), (px, high));
                for end in [low, high] {
                    canvas.line(&class, (px - 4.0, end), (px + 4.0, end));
                }
            }
            canvas.marker(*style, (px, py));
        }
        let level = TOP + row as f64 * ROW + 4.0;
        canvas.marker(*style, (right + 16.0, level - 4.0));
        canvas.text("small", (right + 26.0, level), name);
    }
    Drawing { width: WIDTH, height, svg: canvas.finish(), rigid: false }
}

//! Lines over steps or epochs, each labelled where it ends.

use super::axis::Scale;
use super::canvas::{shortened, width, Canvas};
use crate::report::document::Drawing;

/// A line.
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// What people read of it.
    pub label: String,
    /// Decides how it looks: the same method looks the same everywhere.
    pub style: usize,
    /// Its points.
    pub points: Vec<Sample>,
    /// Whether values hold until the next one instead of leading to it.
    pub steps: bool,
}

/// A point of a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Where it lies along the x axis.
    pub x: f64,
    /// The mean.
    pub mean: f64,
    /// The least and the greatest of what it is the mean of.
    pub range: (f64, f64),
}

impl Sample {
    /// A single value.
    pub fn single(x: f64, value: f64) -> Self {
        Sample { x, mean: value, range: (value, value) }
    }
}

/// What stands on the axes.
#[derive(Debug, Clone, Copy)]
pub struct Axes<'a> {
    /// What the x axis shows.
    pub x: &'a str,
    /// What the y axis shows.
    pub y: &'a str,
    /// Whether values go up by powers.
    pub log: bool,
    /// Whether 0 is shown.
    pub zero: bool,
}

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 262.0;
const TOP: f64 = 24.0;
const LEFT: f64 = 46.0;
const BOTTOM: f64 = HEIGHT - 38.0;
/// Between two labels.
const LABEL: f64 = 14.0;

/// Draws lines.
pub fn draw(series: &[Series], axes: Axes) -> Drawing {
    let longest = series.iter().map(|s| width(&shortened(&s.label, 18))).fold(0.0, f64::max);
    let right = WIDTH - longest - 26.0;
    let all = || series.iter().flat_map(|s| &s.points);
    let x = Scale::tight(all().map(|p| p.x), (LEFT, right));
    let values = || all().flat_map(|p| [p.range.0, p.mean, p.range.1]);
    let y = match axes.log {
        true => Scale::log(values(), (BOTTOM, TOP)),
        false => Scale::linear(values(), axes.zero, (BOTTOM, TOP)),
    };

    let mut canvas = Canvas::default();
    canvas.text("soft small", (0.0, 11.0), axes.y);
    canvas.text("soft small mid", ((LEFT + right) / 2.0, HEIGHT - 6.0), axes.x);
    for (value, text) in y.ticks(4) {
        if let Some(at) = y.at(value) {
            canvas.line("rule", (LEFT, at), (right, at));
            canvas.text("soft small end", (LEFT - 6.0, at + 4.0), &text);
        }
    }
    for (value, text) in x.ticks(4) {
        if let Some(at) = x.at(value) {
            canvas.line("zero", (at, BOTTOM), (at, BOTTOM + 4.0));
            canvas.text("soft small mid", (at, BOTTOM + 16.0), &text);
        }
    }
    canvas.line("zero", (LEFT, BOTTOM), (right, BOTTOM));

    let placed: Vec<(usize, Vec<(f64, f64)>)> =
        series.iter().map(|s| (s.style, place(s, x, y, |p| p.mean))).collect();
    for s in series.iter().filter(|s| s.points.iter().any(|p| p.range.0 < p.range.1)) {
        let mut outline = place(s, x, y, |p| p.range.1);
        outline.extend(place(s, x, y, |p| p.range.0).into_iter().rev());
        canvas.band(s.style, &outline);
    }
    for (style, points) in &placed {
        canvas.path(*style, points);
    }
    for (k, ((style, _), s)) in placed.iter().zip(series).enumerate() {
        mark(&mut canvas, *style, s, x, y, k);
    }
    label(&mut canvas, series, &placed, right);
    Drawing { width: WIDTH, height: HEIGHT, svg: canvas.finish(), rigid: false }
}

fn place(s: &Series, x: Scale, y: Scale, value: impl Fn(&Sample) -> f64) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    for p in &s.points {
        let (Some(px), Some(py)) = (x.at(p.x), y.at(value(p))) else { continue };
        if let (true, Some(&(_, before))) = (s.steps, points.last()) {
            if before != py {
                points.push((px, before));
            }
        }
        points.push((px, py));
    }
    points
}

/// About six markers a line, those of different lines beside each other.
fn mark(canvas: &mut Canvas, style: usize, s: &Series, x: Scale, y: Scale, k: usize) {
    let every = s.points.len().div_ceil(6).max(1);
    for (i, p) in s.points.iter().enumerate() {
        if (i + k).is_multiple_of(every) {
            if let (Some(px), Some(py)) = (x.at(p.x), y.at(p.mean)) {
                canvas.marker(style, (px, py));
            }
        }
    }
}

/// Labels at the lines' ends, moved apart where they would meet.
fn label(canvas: &mut Canvas, series: &[Series], placed: &[(usize, Vec<(f64, f64)>)], right: f64) {
    let mut ends: Vec<(usize, (f64, f64))> = placed
        .iter()
        .enumerate()
        .filter_map(|(i, (_, points))| points.last().map(|end| (i, *end)))
        .collect();
    ends.sort_by(|(_, a), (_, b)| a.1.total_cmp(&b.1));
    let mut heights: Vec<f64> = ends.iter().map(|(_, end)| end.1).collect();
    for i in 1..heights.len() {
        heights[i] = heights[i].max(heights[i - 1] + LABEL);
    }
    // Pushed beyond the bottom, they move up together.
    let mut limit = BOTTOM + 6.0;
    for height in heights.iter_mut().rev() {
        *height = height.min(limit);
        limit = *height - LABEL;
    }
    for ((i, end), height) in ends.iter().zip(heights) {
        let s = &series[*i];
        canvas.line(&format!("c{} lead", s.style % 8), *end, (right + 8.0, height));
        canvas.marker(s.style, (right + 13.0, height));
        canvas.text("small", (right + 21.0, height + 4.0), &shortened(&s.label, 18));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_lines_that_end_together_stand_apart() {
        let line = |label: &str, value| Series {
            label: label.into(),
            points: vec![Sample::single(0.0, 0.0), Sample::single(1.0, value)],
            ..Series::default()
        };
        let series: Vec<Series> = (0..8).map(|i| line(&format!("m{i}"), 0.5)).collect();
        let axes = Axes { x: "step", y: "loss", log: false, zero: true };
        let svg = draw(&series, axes).svg;
        let mut heights: Vec<f64> = (0..8)
            .map(|i| {
                let before = svg.split(&format!(">m{i}</text>")).next().unwrap();
                let y = before.rsplit("y=\"").next().unwrap();
                y.split('"').next().unwrap().parse().unwrap()
            })
            .collect();
        heights.sort_by(f64::total_cmp);
        assert!(heights.windows(2).all(|pair| pair[1] - pair[0] >= LABEL - 0.2), "{heights:?}");
        assert!(heights[0] > 0.0 && heights[7] < HEIGHT);
    }

    #[test]
    fn what_is_not_finite_is_left_out() {
        let series = [Series {
            points: vec![
                Sample::single(0.0, f64::NAN),
                Sample::single(1.0, 2.0),
                Sample::single(2.0, f64::INFINITY),
                Sample::single(3.0, 1.0),
            ],
            ..Series::default()
        }];
        for log in [true, false] {
            let svg = draw(&series, Axes { x: "", y: "", log, zero: false }).svg;
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert!(svg.contains("polyline"));
        }
    }
}

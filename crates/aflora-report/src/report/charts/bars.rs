//! Horizontal bars from 0 to 1, each with its name and number.

use super::canvas::{shortened, Canvas};
use crate::report::document::Drawing;
use crate::report::numbers::fixed;

const WIDTH: f64 = 360.0;
const ROW: f64 = 24.0;

/// A bar: what it is, how it looks, its share of the longest.
pub type Bar = (String, usize, f64);

/// Draws bars.
pub fn draw(bars: &[Bar]) -> Drawing {
    let name = bars.iter().map(|b| b.0.chars().count()).max().unwrap_or(0).min(20);
    let left = name as f64 * 6.4 + 10.0;
    let room = WIDTH - left - 40.0;
    let mut canvas = Canvas::default();
    for (i, (label, style, share)) in bars.iter().enumerate() {
        let top = i as f64 * ROW + 4.0;
        canvas.text("end", (left - 8.0, top + 13.0), &shortened(label, 20));
        let length = share.clamp(0.0, 1.0) * room;
        canvas.rect(&format!("c{} bar", style % 8), (left, top), (length, 17.0), "");
        canvas.text("small", (left + length + 6.0, top + 13.0), &fixed(*share, 2));
    }
    let height = bars.len() as f64 * ROW + 4.0;
    canvas.line("zero", (left, 0.0), (left, height));
    Drawing { width: WIDTH, height, svg: canvas.finish(), rigid: false }
}

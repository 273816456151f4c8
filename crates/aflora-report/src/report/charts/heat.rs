//! A grid of numbers with shades: layers by matrices, as the paper's Figure 5; classes by classes.

use super::canvas::Canvas;
use crate::report::document::Drawing;

/// A field of a heat map.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatCell {
    /// What is printed.
    pub text: String,
    /// What decides the shade, if the cell has one.
    pub value: Option<f64>,
}

const ROW: f64 = 30.0;
const TOP: f64 = 22.0;
/// Dark to light in equal steps of lightness: viridis at 0, 0.2, … 1.
const SHADES: [[f64; 3]; 6] = [
    [68.0, 1.0, 84.0],
    [65.0, 68.0, 135.0],
    [42.0, 120.0, 142.0],
    [34.0, 168.0, 132.0],
    [122.0, 209.0, 81.0],
    [253.0, 231.0, 37.0],
];

/// Draws a grid; `across` says what the columns are, `below` stands under them.
pub fn draw(
    rows: &[(String, Vec<HeatCell>)],
    columns: &[String],
    across: &str,
    below: &str,
) -> Drawing {
    let values = || rows.iter().flat_map(|(_, cells)| cells.iter().filter_map(|c| c.value));
    let (low, high) = (values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max));
    let name = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let left = name.max(across.chars().count()) as f64 * 6.8 + 12.0;
    let longest = rows.iter().flat_map(|(_, cells)| cells).map(|c| c.text.chars().count()).max();
    let cell = (longest.unwrap_or(0) as f64 * 6.8 + 10.0).max(38.0);
    let mut canvas = Canvas::default();
    for (i, column) in columns.iter().enumerate() {
        let x = left + (i as f64 + 0.5) * cell;
        canvas.text("soft small mid", (x, TOP - 7.0), column);
    }
    canvas.text("soft small end", (left - 8.0, TOP - 7.0), across);
    for (r, (name, cells)) in rows.iter().enumerate() {
        let y = TOP + r as f64 * ROW;
        canvas.text("end", (left - 8.0, y + ROW / 2.0 + 4.0), name);
        for (i, c) in cells.iter().enumerate() {
            let x = left + i as f64 * cell;
            let size = (cell - 1.5, ROW - 1.5);
            let at = (x + (cell - 1.5) / 2.0, y + ROW / 2.0 + 3.5);
            match c.value {
                Some(value) => {
                    let (fill, ink) = shade(share(value, low, high));
                    canvas.rect("", (x, y), size, &format!(r#" rx="2" fill="{fill}""#));
                    canvas.text(ink, at, &c.text);
                }
                None => {
                    canvas.rect("never", (x + 0.5, y + 0.5), size, r#" rx="2""#);
                    canvas.text("soft small mid", at, &c.text);
                }
            }
        }
    }
    let bottom = TOP + rows.len() as f64 * ROW;
    canvas.text("soft small", (left, bottom + 15.0), below);
    let width = left + (columns.len() as f64 * cell).max(below.chars().count() as f64 * 5.8);
    Drawing { width, height: bottom + 22.0, svg: canvas.finish(), rigid: true }
}

fn share(value: f64, low: f64, high: f64) -> f64 {
    match high > low {
        true => (value - low) / (high - low),
        false => 0.5,
    }
}

/// A fill, and the class of text that can be read on it.
fn shade(share: f64) -> (String, &'static str) {
    let at = share.clamp(0.0, 1.0) * (SHADES.len() - 1) as f64;
    let i = (at.floor() as usize).min(SHADES.len() - 2);
    let rgb: Vec<f64> = (0..3)
        .map(|c| SHADES[i][c] + (SHADES[i + 1][c] - SHADES[i][c]) * (at - i as f64))
        .map(f64::round)
        .collect();
    let fill = format!("#{:02x}{:02x}{:02x}", rgb[0] as u8, rgb[1] as u8, rgb[2] as u8);
    (fill, if luminance(&rgb) > 0.18 { "on-light mid" } else { "on-dark mid" })
}

/// Relative luminance (WCAG): above 0.18, black has more contrast than white.
fn luminance(rgb: &[f64]) -> f64 {
    let linear = |c: f64| match c / 255.0 {
        c if c <= 0.04045 => c / 12.92,
        c => ((c + 0.055) / 1.055).powf(2.4),
    };
    0.2126 * linear(rgb[0]) + 0.7152 * linear(rgb[1]) + 0.0722 * linear(rgb[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_can_be_read_on_every_shade() {
        for i in 0..=100 {
            let (fill, ink) = shade(f64::from(i) / 100.0);
            let part = |at: usize| f64::from(u8::from_str_radix(&fill[at..at + 2], 16).unwrap());
            let l = luminance(&[part(1), part(3), part(5)]);
            let ink = if ink.starts_with("on-dark") { 1.0 } else { 0.0 };
            let contrast = (f64::max(l, ink) + 0.05) / (f64::min(l, ink) + 0.05);
            assert!(contrast >= 4.5, "{fill}: {contrast}");
        }
    }
}

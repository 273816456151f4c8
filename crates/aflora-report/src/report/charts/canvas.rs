//! SVG elements one after the other.

use aflora_files::printable;
use std::fmt::Write;

/// Elements of a drawing.
#[derive(Debug, Default)]
pub struct Canvas {
    svg: String,
}

/// Text for SVG, HTML and XML attributes, which shows in the order that it has.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // No characters of XML, not even escaped.
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// At most `most` characters, the last an ellipsis where some are missing.
pub fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_string();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    kept.trim_end().to_string() + "…"
}

/// About how wide text of 11 pixels is: enough to leave room for it.
pub fn width(text: &str) -> f64 {
    text.chars().count() as f64 * 6.1
}

/// A series' dash pattern, by its number; colours, dashes and markers have periods without a
/// common factor, so it is long until two series look alike.
fn dash(series: usize) -> &'static str {
    ["", "7 3", "2 2", "9 3 2 3", "5 2 1 2 1 2"][series % 5]
}

impl Canvas {
    /// The elements.
    pub fn finish(self) -> String {
        self.svg
    }

    /// A straight line.
    pub fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = write!(
            self.svg,
            r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#
        );
    }

    /// Text at its baseline.
    pub fn text(&mut self, class: &str, at: (f64, f64), text: &str) {
        let (x, y) = at;
        let text = escape(text);
        let _ = write!(self.svg, r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{text}</text>"#);
    }

    /// A rectangle, with `more` attributes.
    pub fn rect(&mut self, class: &str, at: (f64, f64), size: (f64, f64), more: &str) {
        let ((x, y), (w, h)) = (at, size);
        let _ = write!(
            self.svg,
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{w:.1}" height="{h:.1}"{more}/>"#
        );
    }

    /// A series' line through points.
    pub fn path(&mut self, series: usize, points: &[(f64, f64)]) {
        if points.len() < 2 {
            return;
        }
        let dash = match dash(series) {
            "" => String::new(),
            dash => format!(r#" stroke-dasharray="{dash}""#),
        };
        let _ = write!(
            self.svg,
            r#"<polyline class="c{} line" points="{}"{dash}/>"#,
            series % 8,
            joined(points)
        );
    }

    /// A filled area.
    pub fn band(&mut self, series: usize, outline: &[(f64, f64)]) {
        let _ = write!(
            self.svg,
            r#"<polygon class="c{} band" points="{}"/>"#,
            series % 8,
            joined(outline)
        );
    }

    /// A series' marker.
    pub fn marker(&mut self, series: usize, at: (f64, f64)) {
        let (x, y) = at;
        let class = format!("c{} mark", series % 8);
        let shape = |points: &[(f64, f64)]| {
            let moved: Vec<_> = points.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
            format!(r#"<polygon class="{class}" points="{}"/>"#, joined(&moved))
        };
        self.svg += &match series % 7 {
            0 => format!(r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="3"/>"#),
            1 => shape(&[(-2.8, -2.8), (2.8, -2.8), (2.8, 2.8), (-2.8, 2.8)]),
            2 => shape(&[(0.0, -3.6), (3.4, 2.6), (-3.4, 2.6)]),
            3 => shape(&[(0.0, -4.0), (4.0, 0.0), (0.0, 4.0), (-4.0, 0.0)]),
            4 => shape(&[(0.0, 3.6), (3.4, -2.6), (-3.4, -2.6)]),
            5 => format!(r#"<circle class="{class} full" cx="{x:.1}" cy="{y:.1}" r="2.6"/>"#),
            _ => shape(&[(-1.2, -3.6), (1.2, -3.6), (1.2, 3.6), (-1.2, 3.6)]),
        };
    }
}

fn joined(points: &[(f64, f64)]) -> String {
    let pairs: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    pairs.join(" ")
}

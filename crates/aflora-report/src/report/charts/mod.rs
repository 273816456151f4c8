//! Charts as SVG, by hand: a page of ours sets their colours, so one drawing serves light and dark.
//!
//! Elements carry classes instead of colours (`chart.css`). Series differ by colour, dash and
//! marker at once and are labelled where they end; nothing is told by colour alone. Coordinates are
//! written with one decimal, so the same numbers make the same bytes.
//!
//! * [`canvas`]: elements, text, escaping
//! * [`axis`]: scales and round ticks
//! * [`lines`], [`forest`], [`bars`], [`heat`], [`scatter`]: the charts

pub mod axis;
pub mod bars;
pub mod canvas;
pub mod forest;
pub mod heat;
pub mod lines;
pub mod scatter;

/// Colours and strokes of charts, for a page or a file of its own.
pub const STYLE: &str = include_str!("chart.css");

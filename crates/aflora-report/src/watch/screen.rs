//! A run at one moment, drawn.

use super::snapshot::Snapshot;
use super::text;
use crate::report::charts::axis::short;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, Gauge, GraphType, Paragraph};
use ratatui::Frame;

/// Charts need this many lines; where there are fewer, words alone are shown.
const CHART: u16 = 8;

/// Draws the whole screen.
pub fn draw(frame: &mut Frame, snapshot: &Snapshot) {
    let facts: Vec<Line> = text::facts(snapshot)
        .into_iter()
        .filter(|(label, _)| *label != "progress")
        .map(|(label, value)| {
            let label = Span::styled(format!("{label:<11}"), Style::new().fg(Color::DarkGray));
            Line::from(vec![label, Span::raw(value)])
        })
        .collect();
    let area = frame.area();
    let below = 2 + facts.len() as u16 + 1;
    let evaluations = (area.height.saturating_sub(below + CHART + 3)).min(8);
    let [head, gauge, facts_area, charts, judged, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(facts.len() as u16 + 1),
        Constraint::Min(0),
        Constraint::Length(evaluations),
        Constraint::Length(1),
    ])
    .areas(area);
    let title = Line::from(vec![
        Span::styled(snapshot.name.clone(), Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!(": {}", text::phase(snapshot))),
    ]);
    frame.render_widget(Paragraph::new(title), head);
    frame.render_widget(bar(snapshot), gauge);
    frame.render_widget(Paragraph::new(facts), facts_area);
    if charts.height >= CHART {
        let halves = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]);
        let [left, right] = halves.areas(charts);
        let losses = snapshot.history.losses().map(|(step, loss)| (step as f64, loss));
        let points = snapshot.history.points.iter();
        let trainable = points.map(|point| (point.step as f64, point.trainable as f64));
        curve(frame, left, "training loss", &losses.collect::<Vec<_>>(), false);
        curve(frame, right, "trainable parameters", &trainable.collect::<Vec<_>>(), true);
    }
    let lines = text::evaluations(snapshot, usize::from(evaluations.saturating_sub(1)).max(1));
    frame.render_widget(Paragraph::new(lines.join("\n")), judged);
    let help = Span::styled("q leaves; the run goes on", Style::new().fg(Color::DarkGray));
    frame.render_widget(Paragraph::new(Line::from(help)), foot);
}

fn bar(snapshot: &Snapshot) -> Gauge<'static> {
    Gauge::default()
        .gauge_style(Style::new().fg(Color::Cyan))
        .use_unicode(true)
        .ratio(snapshot.history.share().unwrap_or(0.0))
        .label(text::progress(snapshot))
}

fn curve(frame: &mut Frame, area: Rect, title: &str, points: &[(f64, f64)], zero: bool) {
    let block = Block::new().title(title.to_string());
    if points.len() < 2 {
        frame.render_widget(Paragraph::new("  nothing yet").block(block), area);
        return;
    }
    let (first, last) = (points[0].0, points[points.len() - 1].0);
    let least = points.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let most = points.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
    let low = if zero { 0.0 } else { least };
    // A flat line lies below the top.
    let high = if most > low { most } else { low + 1.0 };
    let line = Dataset::default()
        .marker(Marker::Braille)
        .graph_type(GraphType::Line)
        .style(Style::new().fg(Color::Cyan))
        .data(points);
    let quiet = Style::new().fg(Color::DarkGray);
    let number = |v: f64| if zero { short(v) } else { format!("{v:.2}") };
    let chart = Chart::new(vec![line])
        .block(block)
        .x_axis(
            Axis::default()
                .style(quiet)
                .bounds([first, last])
                .labels([format!("{first:.0}"), format!("step {last:.0}")]),
        )
        .y_axis(
            Axis::default().style(quiet).bounds([low, high]).labels([number(low), number(high)]),
        );
    frame.render_widget(chart, area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::snapshot::Phase;
    use aflora_record::History;
    use ratatui::backend::TestBackend;
    use ratatui::Terminal;

    fn snapshot() -> Snapshot {
        let mut history = History::default();
        history.read_line(
            r#"{"event":"begin","total_steps":80,"steps_per_epoch":40,"selection":"f1"}"#,
        );
        for step in [10, 20, 30, 40] {
            history.read_line(&format!(
                r#"{{"event":"step","step":{step},"loss":{},"lr":0.01,"grad_norm":1.5,
                "trainable":{}}}"#,
                2.0 / f64::from(step),
                500_000 - 10_000 * step
            ));
        }
        history.read_line(
            r#"{"event":"freeze","step":39,"ratio":0.3,"threshold":1e-6,
            "matrices":[{"frozen":true},{"frozen":false}]}"#,
        );
        history.read_line(
            r#"{"event":"evaluation","step":40,"epoch":1.0,"metrics":{"f1":0.75},"loss":0.4,
            "seconds":1.0}"#,
        );
        let name = "mrpc-minilm-aflora-seed42".into();
        let (pace, silence, seconds) = (Some(4.0), None, None);
        Snapshot { name, phase: Phase::Running, history, pace, silence, seconds }
    }

    fn drawn(snapshot: &Snapshot, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, snapshot)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn the_screen_shows_what_there_is() {
        let screen = drawn(&snapshot(), 100, 30);
        for words in [
            "mrpc-minilm-aflora-seed42: running",
            "40 of 80 steps (50 %), epoch 1.0 of 2",
            "4.00 steps/s, about 10 s left",
            "0.0500 at step 40, 0.2000 at first",
            "0.0100, gradient norm 1.50",
            "100,000, 400,000 at first",
            "1 of 2 matrices are frozen; r(t) 0.300, threshold 1.00e−6",
            "training loss",
            "trainable parameters",
            "400k",
            "step 40",
            "epoch 1: f1 0.7500, dev loss 0.4000  (best so far)",
            "q leaves",
        ] {
            assert!(screen.contains(words), "{words}:\n{screen}");
        }
        assert!(screen.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "no curve");
    }

    #[test]
    fn every_size_and_every_phase_can_be_drawn() {
        let empty = Snapshot { history: History::default(), phase: Phase::Waiting, ..snapshot() };
        for (width, height) in [(1, 1), (20, 5), (40, 12), (80, 24), (200, 60)] {
            drawn(&snapshot(), width, height);
            drawn(&empty, width, height);
        }
        let failed = Snapshot { phase: Phase::Failed("the loss is NaN".into()), ..snapshot() };
        assert!(drawn(&failed, 80, 24).contains("failed: the loss is NaN"));
        assert!(drawn(&empty, 80, 24).contains("waiting for its first steps"));
    }
}

//! `aflora watch`: a run under way, on the terminal, read from its folder.
//!
//! Watching only reads: the run neither knows of it nor ends with it.
//!
//! * [`snapshot`]: the folder at one moment; [`text`]: that in words; `screen`: that drawn
//! * `pace`: how fast it goes

mod pace;
mod screen;
pub mod snapshot;
pub mod text;

use crate::error::{Context, Result};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use snapshot::Watched;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

/// Between two looks at the folder.
const EVERY: Duration = Duration::from_millis(500);

/// Shows a run until it ends or the user leaves; without a terminal, prints one summary.
///
/// # Errors
/// The folder is no run's, or cannot be read.
pub fn watch(folder: &Path) -> Result<()> {
    let mut watched = Watched::open(folder)?;
    watched.look()?;
    if std::io::stdout().is_terminal() && std::io::stdin().is_terminal() && !watched.ended() {
        let mut terminal = ratatui::try_init().context("the terminal cannot be set up")?;
        let result = live(&mut terminal, &mut watched);
        // What went wrong while watching is told first; the terminal is put back in any case.
        let restored = ratatui::try_restore().context("the terminal cannot be put back");
        result.and(restored)?;
    }
    // Stays on the terminal when the screen is gone.
    print!("{}", text::summary(&watched.snapshot()));
    Ok(())
}

fn live(terminal: &mut ratatui::DefaultTerminal, watched: &mut Watched) -> Result<()> {
    while !watched.ended() {
        let snapshot = watched.snapshot();
        terminal
            .draw(|frame| screen::draw(frame, &snapshot))
            .context("the terminal cannot be written to")?;
        if event::poll(EVERY).context("the keyboard cannot be read")? {
            if let Event::Key(key) = event::read().context("the keyboard cannot be read")? {
                let interrupt =
                    key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                let quit = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc);
                if key.kind == KeyEventKind::Press && (interrupt || quit) {
                    return Ok(());
                }
            }
        }
        watched.look()?;
    }
    Ok(())
}

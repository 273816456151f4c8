//! How fast a run goes, from what was seen of it.

use std::collections::VecDeque;

/// Seconds that a pace looks back.
const MEMORY: f64 = 180.0;
/// Seconds below which what was seen says nothing.
const LEAST: f64 = 3.0;

/// Steps at times, while watching.
#[derive(Debug, Default)]
pub struct Pace {
    seen: VecDeque<(f64, u64)>,
}

impl Pace {
    /// `step` steps are done at `seconds` of any clock that goes forward.
    pub fn see(&mut self, seconds: f64, step: u64) {
        match self.seen.back() {
            Some((_, last)) if step < *last => self.seen.clear(), // resumed
            Some((_, last)) if step == *last => return,
            _ => {}
        }
        self.seen.push_back((seconds, step));
        while self.seen.front().is_some_and(|(at, _)| seconds - at > MEMORY) {
            self.seen.pop_front();
        }
    }

    /// Steps a second.
    pub fn per_second(&self) -> Option<f64> {
        let ((from, first), (to, last)) = (self.seen.front()?, self.seen.back()?);
        (to - from >= LEAST).then(|| (last - first) as f64 / (to - from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_that_of_the_last_minutes_and_starts_anew_with_a_resumed_run() {
        let mut pace = Pace::default();
        assert_eq!(pace.per_second(), None);
        for i in 0..=10 {
            pace.see(f64::from(i), 5 * i as u64);
        }
        assert_eq!(pace.per_second(), Some(5.0));
        pace.see(300.0, 60);
        pace.see(310.0, 80);
        assert_eq!(pace.per_second(), Some(2.0));
        pace.see(311.0, 10);
        assert_eq!(pace.per_second(), None);
    }
}

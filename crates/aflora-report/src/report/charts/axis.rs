//! Scales from values to pixels, and the round numbers that stand on axes.

use crate::report::numbers;

/// A scale.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    log: bool,
}

impl Scale {
    /// A linear scale over `values`, a little wider than they are; with 0 on it if asked for.
    pub fn linear(values: impl Iterator<Item = f64>, zero: bool, pixels: (f64, f64)) -> Self {
        let (mut low, mut high) = bounds(values).unwrap_or((0.0, 1.0));
        if zero {
            (low, high) = (low.min(0.0), high.max(0.0));
        }
        // A flat line lies in the middle.
        let room = if high > low { (high - low) * 0.04 } else { high.abs().max(1.0) * 0.05 };
        let low = if zero && low == 0.0 { 0.0 } else { low - room };
        Scale { low, high: high + room, from: pixels.0, to: pixels.1, log: false }
    }

    /// A linear scale that ends at the ends of `values`.
    pub fn tight(values: impl Iterator<Item = f64>, pixels: (f64, f64)) -> Self {
        let (low, high) = bounds(values).unwrap_or((0.0, 1.0));
        let high = if high > low { high } else { low + 1.0 };
        Scale { low, high, from: pixels.0, to: pixels.1, log: false }
    }

    /// A logarithmic scale over the positive ones of `values`.
    pub fn log(values: impl Iterator<Item = f64>, pixels: (f64, f64)) -> Self {
        let (low, high) = bounds(values.filter(|v| *v > 0.0)).unwrap_or((1.0, 10.0));
        let (low, high) = (low.log10(), high.log10());
        let room = ((high - low) * 0.05).max(0.05);
        Scale { low: low - room, high: high + room, from: pixels.0, to: pixels.1, log: true }
    }

    /// The pixel of a value; none for what has no place.
    pub fn at(&self, value: f64) -> Option<f64> {
        let value = if self.log { value.log10() } else { value };
        let share = (value - self.low) / (self.high - self.low);
        share.is_finite().then_some(self.from + share * (self.to - self.from))
    }

    /// Round values, about `wanted` of them, with how they are written.
    pub fn ticks(&self, wanted: usize) -> Vec<(f64, String)> {
        if self.log {
            return self.powers(wanted);
        }
        let step = round_step((self.high - self.low) / wanted.max(1) as f64);
        // Below the step that an f64 has at 1, it is the scale that is odd.
        let digits = (-step.log10().floor()).clamp(0.0, 15.0) as usize;
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        // Where a range is too small or too large for an f64 to divide, nothing is round.
        if last.saturating_sub(first) > 2 * wanted.max(1) as i64 {
            return Vec::new();
        }
        (first..=last)
            .map(|i| i as f64 * step)
            .map(|v| (v, if step >= 1000.0 { short(v) } else { numbers::fixed(v, digits) }))
            .collect()
    }

    fn powers(&self, wanted: usize) -> Vec<(f64, String)> {
        let decades = self.high - self.low;
        let within = |v: f64| (self.low..=self.high).contains(&v.log10());
        let factors: &[f64] = if decades < 2.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let every = ((decades / wanted.max(1) as f64).ceil() as i32).max(1);
        let (first, last) = (self.low.floor() as i32, self.high.ceil() as i32);
        (first..=last)
            .filter(|e| e.rem_euclid(every) == 0)
            .flat_map(|e| factors.iter().map(move |f| f * 10f64.powi(e)))
            .filter(|v| within(*v))
            .map(|v| (v, short(v)))
            .collect()
    }
}

fn bounds(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|v| v.is_finite()).fold(None, |bounds, v| match bounds {
        None => Some((v, v)),
        Some((low, high)) => Some((f64::min(low, v), f64::max(high, v))),
    })
}

/// 1, 2 or 5 times a power of ten, at least `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= step * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// A number in the little room that an axis has: 1.3M, 450k, 1e−7.
pub fn short(value: f64) -> String {
    let size = value.abs();
    let cut = |v: f64, unit: &str| {
        let text = numbers::fixed(v, if v.abs() < 10.0 { 1 } else { 0 });
        format!("{}{unit}", text.strip_suffix(".0").unwrap_or(&text))
    };
    match size {
        0.0 => "0".into(),
        s if s >= 1e9 => cut(value / 1e9, "G"),
        s if s >= 1e6 => cut(value / 1e6, "M"),
        s if s >= 1e3 => cut(value / 1e3, "k"),
        s if s >= 0.01 => {
            let text = numbers::fixed(value, if s < 0.1 { 2 } else { 1 });
            text.strip_suffix(".0").unwrap_or(&text).to_string()
        }
        _ => format!("{value:.0e}").replace('-', "−"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_no_run_has_make_no_endless_axis() {
        let pixels = (0.0, 100.0);
        for values in [[1e300, -1e300], [f64::MAX, f64::MIN], [1.8e19, 1.8e19], [5e-324, 1e-323]] {
            for scale in [
                Scale::linear(values.into_iter(), true, pixels),
                Scale::linear(values.into_iter(), false, pixels),
                Scale::tight(values.into_iter(), pixels),
                Scale::log(values.into_iter(), pixels),
            ] {
                let ticks = scale.ticks(5);
                assert!(ticks.len() <= 20, "{values:?}: {ticks:?}");
                assert!(ticks.iter().all(|(_, words)| words.len() < 400), "{values:?}: {ticks:?}");
            }
        }
    }

    #[test]
    fn ticks_are_round_and_within() {
        let scale = Scale::tight([0.0, 780.0].into_iter(), (0.0, 100.0));
        let ticks: Vec<String> = scale.ticks(4).into_iter().map(|t| t.1).collect();
        assert_eq!(ticks, ["0", "200", "400", "600"]);
        let scale = Scale::linear([0.81, 0.93].into_iter(), false, (0.0, 100.0));
        let ticks: Vec<String> = scale.ticks(3).into_iter().map(|t| t.1).collect();
        assert_eq!(ticks, ["0.85", "0.90"]);
        let scale = Scale::log([1e-7, 3e-4].into_iter(), (0.0, 100.0));
        assert_eq!(scale.ticks(4)[0].1, "1e−7");
        assert_eq!(scale.at(0.0), None);
        assert_eq!(scale.at(f64::NAN), None);
    }

    #[test]
    fn a_flat_or_empty_series_has_a_scale() {
        for values in [vec![], vec![3.0, 3.0], vec![f64::NAN], vec![0.0]] {
            for zero in [true, false] {
                let scale = Scale::linear(values.iter().copied(), zero, (100.0, 0.0));
                assert!(scale.at(1.0).is_some() && !scale.ticks(4).is_empty(), "{values:?}");
            }
            assert!(Scale::log(values.into_iter(), (0.0, 1.0)).at(1.0).is_some());
        }
    }

    #[test]
    fn axes_say_thousands_and_millions() {
        for (value, text) in [
            (1_327_104.0, "1.3M"),
            (450_000.0, "450k"),
            (0.2, "0.2"),
            (2000.0, "2k"),
            (1e-5, "1e−5"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}

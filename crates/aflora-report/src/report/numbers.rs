//! The statistics of a report: means, sample deviations, paired differences with an interval.
//!
//! Two methods are compared seed by seed: both saw the same data order and initial values, so the
//! differences spread less than the values. The interval is Student's t on these differences. It is
//! not corrected for the number of comparisons, which reports say, but where one is asked for.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// A mean with what it stands on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mean {
    /// The arithmetic mean.
    pub mean: f64,
    /// The sample standard deviation (n − 1), where there are two values at least.
    pub std: Option<f64>,
    /// How many values the mean is of.
    pub n: usize,
}

impl Mean {
    /// Of the finite values; none where there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Mean> {
        let values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let std = (n > 1).then(|| (squares / (n - 1) as f64).sqrt());
        Some(Mean { mean, std, n })
    }
}

/// A mean paired difference and, from two pairs on, its 95 % interval. Pairs that differ alike have none:
/// accuracies of few rows do so by chance, and the interval of no spread would be a point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// The mean difference.
    pub mean: f64,
    /// The ends of the interval.
    pub interval: Option<(f64, f64)>,
    /// How many pairs the mean difference is of.
    pub n: usize,
}

/// What an interval allows to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The interval lies above 0.
    Higher,
    /// The interval lies below 0.
    Lower,
    /// The interval holds 0.
    Noise,
    /// A single pair has no interval.
    OneSeed,
    /// Nor have pairs that differ by the same.
    Alike,
}

impl Verdict {
    /// The verdict as a report states it.
    pub fn words(self) -> &'static str {
        match self {
            Verdict::Higher => "higher",
            Verdict::Lower => "lower",
            Verdict::Noise => "within the noise",
            Verdict::OneSeed => "one seed: no interval",
            Verdict::Alike => "the same in every seed: no interval",
        }
    }
}

impl Difference {
    /// Of paired differences; none where there are none.
    pub fn of(differences: impl IntoIterator<Item = f64>) -> Option<Difference> {
        Difference::among(differences, 1)
    }

    /// The same with an interval so wide that those of all `comparisons` hold together with 95 %
    /// (Bonferroni).
    pub fn among(
        differences: impl IntoIterator<Item = f64>,
        comparisons: usize,
    ) -> Option<Difference> {
        let Mean { mean, std, n } = Mean::of(differences)?;
        let outside = 0.05 / comparisons.max(1) as f64;
        // Of differences that are the same but for rounding; where all are 0, that is the interval.
        let spread = std.filter(|std| mean == 0.0 || *std > 1e-9 * mean.abs());
        let half =
            spread.and_then(|std| Some(t_quantile(n - 1, outside)? * std / (n as f64).sqrt()));
        Some(Difference { mean, interval: half.map(|half| (mean - half, mean + half)), n })
    }

    /// Whether the interval leaves 0 out, and on which side.
    pub fn verdict(&self) -> Verdict {
        match self.interval {
            None if self.n == 1 => Verdict::OneSeed,
            None => Verdict::Alike,
            Some((low, _)) if low > 0.0 => Verdict::Higher,
            Some((_, high)) if high < 0.0 => Verdict::Lower,
            Some(_) => Verdict::Noise,
        }
    }
}

/// The quantile of Student's t of which a two-sided interval is made that leaves the share `outside`
/// out: 0.05 for one of 95 %.
fn t_quantile(freedom: usize, outside: f64) -> Option<f64> {
    Some(StudentsT::new(0.0, 1.0, freedom as f64).ok()?.inverse_cdf(1.0 - outside / 2.0))
}

/// `value` with `digits` decimals, a true minus sign, and no negative zero; `–` where not finite.
pub fn fixed(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let text = format!("{:.digits$}", value.abs());
    let zero = text.chars().all(|c| matches!(c, '0' | '.'));
    if value < 0.0 && !zero {
        format!("−{text}")
    } else {
        text
    }
}

/// [`fixed`] with a sign in front of all but zero.
pub fn signed(value: f64, digits: usize) -> String {
    let text = fixed(value, digits);
    let plain = text.starts_with(['−', '–']) || text.chars().all(|c| matches!(c, '0' | '.'));
    if plain {
        text
    } else {
        format!("+{text}")
    }
}

/// A count as people read it: thousands apart, or `–` where it is none.
pub fn count(value: f64) -> String {
    match value.is_finite() && value.abs() < 1e15 {
        true => crate::words::thousands(value.round() as i64),
        false => "–".into(),
    }
}

/// Three significant digits, in powers of ten where it is very small or large.
pub fn significant(value: f64) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    if value == 0.0 {
        return "0".into();
    }
    let exponent = value.abs().log10().floor() as i32;
    match exponent {
        -3..=2 => fixed(value, (2 - exponent) as usize),
        3..=5 => count(value),
        _ => format!("{value:.2e}").replace('-', "−"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-9 * b.abs().max(1e-3), "{a} is not {b}");
    }

    #[test]
    fn differences_without_a_spread_have_no_interval() {
        // 277 rows, one more right in either seed: an interval of no width would call it higher.
        let alike = Difference::of([(201.0 - 200.0) / 2.77, (212.0 - 211.0) / 2.77]).unwrap();
        assert_eq!((alike.interval, alike.verdict()), (None, Verdict::Alike));
        let same = Difference::of([0.0, 0.0, 0.0]).unwrap();
        assert_eq!((same.interval, same.verdict()), (Some((0.0, 0.0)), Verdict::Noise));
    }

    #[test]
    fn the_quantiles_are_scipy_s() {
        // scipy 1.17.1: stats.t.ppf(0.975, df)
        for (freedom, expected) in [
            (1, 12.706204736174694),
            (2, 4.302652729749462),
            (3, 3.1824463052837078),
            (4, 2.7764451051977934),
            (9, 2.262157162798205),
            (30, 2.0422724563012378),
        ] {
            close(t_quantile(freedom, 0.05).unwrap(), expected);
        }
    }

    #[test]
    fn paired_differences_are_scipy_s() {
        // scipy 1.17.1: r = stats.ttest_rel(a, b); (a - b).mean(); r.confidence_interval(0.95);
        // numpy: a.mean(), a.std(ddof=1), (a - b).std(ddof=1)
        let a = [0.9191, 0.9142, 0.9240, 0.9093, 0.9167];
        let b = [0.9020, 0.9118, 0.9069, 0.9167, 0.8995];
        let mean = Mean::of(a).unwrap();
        close(mean.mean, 0.9166599999999999);
        close(mean.std.unwrap(), 0.005478412178724798);
        let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        close(Mean::of(differences.clone()).unwrap().std.unwrap(), 0.011298097184924541);
        let d = Difference::of(differences.clone()).unwrap();
        close(d.mean, 0.00928);
        close(d.interval.unwrap().0, -0.004748440522728098);
        close(d.interval.unwrap().1, 0.023308440522728097);
        assert_eq!((d.n, d.verdict()), (5, Verdict::Noise));
        // One of four comparisons: r.confidence_interval(1 - 0.05 / 4).
        let wider = Difference::among(differences.clone(), 4).unwrap();
        close(wider.interval.unwrap().0, -0.012520501527842991);
        close(wider.interval.unwrap().1, 0.03108050152784299);
        let two = Difference::of(differences[..2].to_vec()).unwrap();
        close(two.interval.unwrap().0, -0.08364060481088431);
        close(two.interval.unwrap().1, 0.10314060481088427);
    }

    #[test]
    fn verdicts_need_an_interval_that_leaves_zero_out() {
        let verdict = |d: &[f64]| Difference::of(d.iter().copied()).unwrap().verdict();
        assert_eq!(verdict(&[1.0, 1.1, 0.9]), Verdict::Higher);
        assert_eq!(verdict(&[-1.0, -1.1, -0.9]), Verdict::Lower);
        assert_eq!(verdict(&[1.0, -0.9, 0.2]), Verdict::Noise);
        assert_eq!(verdict(&[0.0, 0.0]), Verdict::Noise);
        assert_eq!(verdict(&[3.0]), Verdict::OneSeed);
        assert_eq!(Difference::of([]), None);
    }

    #[test]
    fn what_is_not_finite_counts_for_nothing() {
        assert_eq!(Mean::of([f64::NAN, 2.0, f64::INFINITY]).map(|m| (m.mean, m.n)), Some((2.0, 1)));
        assert_eq!(Mean::of([f64::NAN]), None);
        assert_eq!(fixed(f64::NAN, 2), "–");
        assert_eq!(count(f64::INFINITY), "–");
        assert_eq!(significant(f64::NAN), "–");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(fixed(-0.001, 2), "0.00");
        assert_eq!(fixed(-1.5, 2), "−1.50");
        assert_eq!(signed(0.42, 2), "+0.42");
        assert_eq!(signed(-0.42, 2), "−0.42");
        assert_eq!(signed(0.001, 2), "0.00");
        assert_eq!(count(1327104.2), "1,327,104");
        assert_eq!(significant(0.01234), "0.0123");
        assert_eq!(significant(123.4), "123");
        assert_eq!(significant(1.5e-7), "1.50e−7");
    }
}

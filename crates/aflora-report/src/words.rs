//! Numbers, durations, paths and errors as people read them.

use aflora_files::printable_line;
use std::error::Error;
use std::io::IsTerminal;
use std::path::Path;

/// A duration as people say it.
pub fn seconds(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s {
        0..=99 => format!("{s} s"),
        100..=5999 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s % 3600 / 60),
    }
}

/// A count with thousands apart.
pub fn thousands(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if n < 0 {
        out.insert(0, '-');
    }
    out
}

/// How many there are of `what`: `1 cell`, `2 cells`.
pub fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// A path for standard output: safe to look at on a terminal, and as it is for a program.
pub fn shown(path: &Path) -> String {
    let path = path.display().to_string();
    match std::io::stdout().is_terminal() {
        true => printable_line(&path).into_owned(),
        false => path,
    }
}

/// An error with its causes.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut chain = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        chain.push(cause.to_string());
        next = cause.source();
    }
    each_once(chain.into_iter())
}

/// An error's words and its causes', each told once: many an error's own hold those of its cause.
pub fn each_once(chain: impl Iterator<Item = String>) -> String {
    let mut words = String::new();
    for cause in chain {
        if words.is_empty() {
            words = cause;
        } else if !words.contains(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_durations_read_well() {
        assert_eq!(thousands(1_327_104), "1,327,104");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(-1000), "-1,000");
        assert_eq!(thousands(i64::MIN), "-9,223,372,036,854,775,808");
        assert_eq!(seconds(42.4), "42 s");
        assert_eq!(seconds(327.0), "5 min 27 s");
        assert_eq!(seconds(7500.0), "2 h 05 min");
    }
}

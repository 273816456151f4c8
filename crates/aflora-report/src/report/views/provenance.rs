//! Where results come from: code, machine, seeds, dates, what failed, settings.

use super::settings;
use crate::report::document::{DocumentBlock, Section, Table, TableEntry};
use aflora_record::provenance::Environment;
use aflora_record::results::{Finding, Outcome, Results};
use std::collections::BTreeSet;

/// Failures that are listed; the rest is counted.
const MOST_FAILURES: usize = 20;

/// The section on where results come from.
pub fn section(results: &Results) -> Section {
    let findings: Vec<&Finding> = results
        .cells
        .iter()
        .filter_map(|cell| match &cell.outcome {
            Outcome::Done(finding) => Some(finding.as_ref()),
            _ => None,
        })
        .collect();
    let mut blocks = vec![DocumentBlock::table(origin(results, &findings))];
    blocks.extend(failures(results).map(|table| DocumentBlock::Table { table, folded: false }));
    for table in [settings::shared(results), settings::table(results)] {
        blocks.extend(table.map(|table| DocumentBlock::Table { table, folded: true }));
    }
    Section { title: "Where it comes from".into(), blocks }
}

fn origin(results: &Results, findings: &[&Finding]) -> Table {
    let texts = |of: fn(&Environment) -> Option<&String>| {
        listed(findings.iter().filter_map(|f| of(&f.provenance.environment)).cloned())
    };
    let seeds: BTreeSet<u64> = results.cells.iter().map(|c| c.seed).collect();
    let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
    let devices = listed(findings.iter().map(|f| f.device.clone()));
    let rows = [
        ("Experiment", format!("{}, profile {}", results.experiment, results.profile)),
        ("Commit", texts(|e| e.commit.as_ref())),
        ("aflora", texts(|e| Some(&e.aflora))),
        ("libtorch", texts(|e| Some(&e.libtorch))),
        ("Device", devices),
        ("Processor", texts(|e| e.processor.as_ref())),
        ("Platform", texts(|e| Some(&e.platform))),
        ("Seeds", seeds.join(", ")),
        ("Runs of", dates(findings)),
    ];
    let known = rows.into_iter().filter(|(_, value)| !value.is_empty());
    Table {
        caption: "Code, machine and runs".into(),
        words: true,
        head: ["", "Value"].map(String::from).to_vec(),
        rows: known.map(|(name, value)| vec![name.into(), value.into()]).collect(),
    }
}

fn listed(values: impl Iterator<Item = String>) -> String {
    let different: BTreeSet<String> = values.filter(|value| !value.is_empty()).collect();
    different.into_iter().collect::<Vec<_>>().join("; ")
}

fn dates(findings: &[&Finding]) -> String {
    let days: BTreeSet<u64> = findings
        .iter()
        .map(|f| f.provenance.environment.started_unix)
        .filter(|seconds| *seconds > 0)
        .map(|seconds| seconds / 86_400)
        .collect();
    match (days.first(), days.last()) {
        (Some(first), Some(last)) if first == last => date(*first),
        (Some(first), Some(last)) => format!("{} to {}", date(*first), date(*last)),
        _ => String::new(),
    }
}

/// The date, in UTC, so many days after the first of 1970 (H. Hinnant's `civil_from_days`).
fn date(days: u64) -> String {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

fn failures(results: &Results) -> Option<Table> {
    let failed: Vec<_> = results
        .cells
        .iter()
        .filter_map(|cell| match &cell.outcome {
            Outcome::Failed { error } => Some((cell, error)),
            _ => None,
        })
        .collect();
    if failed.is_empty() {
        return None;
    }
    let caption = match failed.len() {
        n if n > MOST_FAILURES => format!("The first {MOST_FAILURES} of {n} failures"),
        _ => "Failures".into(),
    };
    let rows = failed.iter().take(MOST_FAILURES).map(|(cell, error)| {
        vec![
            TableEntry::new(&cell.model),
            TableEntry::new(&cell.task),
            TableEntry::new(&cell.method),
            TableEntry::new(cell.seed.to_string()),
            TableEntry::new(error.as_str()),
        ]
    });
    Some(Table {
        caption,
        words: true,
        head: ["Model", "Task", "Method", "Seed", "Error"].map(String::from).to_vec(),
        rows: rows.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates_are_the_calendar_s() {
        // date -u -d @$((86400 * N)) +%F
        for (days, expected) in [
            (0, "1970-01-01"),
            (11_016, "2000-02-29"),
            (19_782, "2024-02-29"),
            (20_453, "2025-12-31"),
        ] {
            assert_eq!(date(days), expected);
        }
    }
}

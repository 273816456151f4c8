//! The rows that a run would read: how many, of which labels, how long, and the first as tokens.

use crate::config::Resolved;
use crate::feed::{DataError, Dataset};
use crate::kinds::Splits;
use crate::metrics::{Answer, Sort};
use crate::run::model::processor;
use crate::run::model_files::{locator, ModelFiles};
use crate::run::objective::Objective;
use crate::run::passes::Passes;
use crate::run::prepare::load_examples;
use crate::task::{Example, TaskSpec};
use crate::ui::{thousands, Progress};
use aflora_models::{Backbone, TextEncoder};
use anyhow::Result;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt::Write;
use tch::Device;

/// Labels that are listed, the most frequent first.
const LABELS: usize = 20;

/// Training rows that are shown as tokens, and how many tokens of each.
const SHOWN: (usize, usize) = (3, 24);

/// Longer than any text is cut to.
const WHOLE: usize = 1 << 30;

/// Describes the rows; says so where they are not at hand, for nothing is fetched.
///
/// # Errors
/// The rows or the tokenizer are damaged, or a row cannot be learned from.
pub(super) fn describe(
    out: &mut String,
    resolved: &Resolved,
    files: &ModelFiles,
    backbone: &dyn Backbone,
    progress: &mut dyn Progress,
) -> Result<()> {
    let mut locator = locator(resolved);
    locator.hub = locator.hub.without_network();
    let dataset = match load_examples(&resolved.task, &locator, &resolved.run, progress) {
        Ok(dataset) => dataset,
        Err(error) => match error.downcast_ref() {
            Some(DataError::NotFound { .. }) => {
                writeln!(out, "\nrows: not at hand; `aflora validate` tells where they may lie")?;
                return Ok(());
            }
            _ => return Err(error),
        },
    };
    writeln!(out, "\nrows:")?;
    let evals = dataset.evals.iter().map(|(name, rows)| (name.as_str(), &rows[..]));
    let test = dataset.test.iter().map(|(name, rows)| (name.as_str(), &rows[..]));
    for (split, rows) in std::iter::once(("train", &dataset.train[..])).chain(evals).chain(test) {
        let n = thousands(rows.len() as i64);
        writeln!(out, "  {split:12} {n:>9}{}", answers(&resolved.task, rows))?;
    }
    if !files.have_tokenizer() {
        writeln!(out, "  the tokenizer is not at hand: no lengths in tokens")?;
        return Ok(());
    }
    let Dataset { train, mut evals, .. } = dataset;
    // They are only there because an objective has some.
    evals.iter_mut().for_each(|(_, rows)| rows.truncate(1));
    let mut objective = |of: &Resolved| {
        let processor = processor(of, files, backbone, Device::Cpu)?;
        let splits = Splits { train: train.clone(), evals: evals.clone(), test: None };
        processor.objective(splits, &Passes::new(1), None, progress)
    };
    let mut uncut = resolved.clone();
    uncut.run.max_length = WHOLE;
    let whole = objective(&uncut)?;
    let lengths: Vec<usize> = whole.read().map(|ids| ids.len()).collect();
    show_lengths(out, lengths, resolved)?;
    if whole.packs().is_some() {
        let packs = thousands(objective(resolved)?.training_rows() as i64);
        writeln!(out, "  packs of at most max_length tokens: {packs}")?;
    }
    first_rows(out, whole.as_ref(), &TextEncoder::from_folder(&files.tokenizer, WHOLE)?)
}

/// What the rows of a split answer, behind their number.
fn answers(task: &TaskSpec, rows: &[Example]) -> String {
    let names = task.class_names();
    let mut counts: Vec<i64> = vec![0; names.len()];
    let mut scores: Vec<Vec<f64>> = Vec::new();
    // Rows with none of the labels.
    let mut without = 0;
    let numbers: HashMap<&str, usize> = names.iter().copied().zip(0..).collect();
    let mut count = |label: usize| counts.get_mut(label).into_iter().for_each(|n| *n += 1);
    for row in rows {
        match &row.right {
            Answer::Class(class) => usize::try_from(*class).into_iter().for_each(&mut count),
            Answer::Set(set) => {
                without += i64::from(!set.contains(&true));
                let labels = set.iter().zip(0..).filter(|(has, _)| **has);
                labels.for_each(|(_, label)| count(label));
            }
            Answer::Tags(tags) => {
                let known = tags.iter().filter_map(|tag| numbers.get(tag.as_str()));
                known.for_each(|&label| count(label));
            }
            Answer::Score(score) => scores.push(vec![*score]),
            Answer::Scores(of_row) => scores.push(of_row.clone()),
            Answer::Text(_) => return String::new(),
        }
    }
    match (task.rules().answers(), rows.first().map(|row| &row.right)) {
        (Sort::Score, Some(Answer::Score(_))) => format!("  scores {}", range(&scores, 0)),
        (Sort::Score, _) => {
            let of = |(number, name): (usize, &&str)| format!("{name} {}", range(&scores, number));
            format!("  {}", names.iter().enumerate().map(of).collect::<Vec<_>>().join("; "))
        }
        (Sort::Tags, _) => format!("  words: {}", listed(counts, &names)),
        (Sort::Set, _) if without > 0 => {
            format!("  {}; none of them {}", listed(counts, &names), thousands(without))
        }
        _ => format!("  {}", listed(counts, &names)),
    }
}

/// The least, the most and the mean of one of the scores of these rows.
fn range(rows: &[Vec<f64>], number: usize) -> String {
    let scores: Vec<f64> = rows.iter().filter_map(|row| row.get(number)).copied().collect();
    let least = scores.iter().copied().fold(f64::INFINITY, f64::min);
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mean = scores.iter().sum::<f64>() / scores.len() as f64;
    format!("{least} to {most}, {mean:.3} on average")
}

/// Labels with their counts, the most frequent first.
fn listed(counts: Vec<i64>, names: &[&str]) -> String {
    let mut labels: Vec<(i64, &str)> = counts.into_iter().zip(names.iter().copied()).collect();
    labels.sort_by_key(|(count, _)| Reverse(*count));
    let all = labels.len();
    let shown = labels.iter().take(LABELS).map(|(n, label)| format!("{label} {}", thousands(*n)));
    let more = match all.saturating_sub(LABELS) {
        0 => String::new(),
        more => format!(" and {more} more labels"),
    };
    format!("{}{more}", shown.collect::<Vec<_>>().join(", "))
}

/// The lengths of the training rows, and what becomes of those that are too long.
fn show_lengths(out: &mut String, mut lengths: Vec<usize>, of: &Resolved) -> Result<()> {
    lengths.sort_unstable();
    let Some(last) = lengths.len().checked_sub(1) else { return Ok(()) };
    let at = |percent: usize| lengths[last * percent / 100];
    writeln!(
        out,
        "  tokens of a training row: {} at least, {} of the shortest quarter, {} of half, {} of 95 \
         in 100, {} at most",
        at(0),
        at(25),
        at(50),
        at(95),
        at(100)
    )?;
    let max_length = of.run.max_length;
    let long = lengths.iter().filter(|&&length| length > max_length).count();
    let share = 100.0 * long as f64 / lengths.len() as f64;
    let what = match of.task.rules().cuts_long_rows() {
        true => "cut to",
        false => "cut in pieces of",
    };
    writeln!(
        out,
        "  {what} max_length={max_length}: {} rows ({share:.1} %)",
        thousands(long as i64)
    )?;
    Ok(())
}

/// The first training rows as the model reads them.
fn first_rows(out: &mut String, objective: &dyn Objective, encoder: &TextEncoder) -> Result<()> {
    let (rows, most) = SHOWN;
    for (row, ids) in objective.read().take(rows).enumerate() {
        let mut tokens = encoder.tokens(&ids[..ids.len().min(most)]);
        if ids.len() > most {
            tokens.push("…".into());
        }
        writeln!(out, "  row {}: {}", row + 1, tokens.join(" "))?;
    }
    Ok(())
}

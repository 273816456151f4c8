//! The rows that a run would read: how many, of which labels, how long, and the first as tokens.

use crate::config::Resolved;
use crate::feed::{DataError, Dataset};
use crate::kinds::Splits;
use crate::metrics::Answer;
use crate::run::model::processor;
use crate::run::model_files::{locator, ModelFiles};
use crate::run::objective::Objective;
use crate::run::prepare::load_examples;
use crate::task::{Example, TaskSpec};
use crate::ui::{thousands, Progress};
use aflora_models::{Backbone, TextEncoder};
use anyhow::Result;
use std::fmt::Write;
use tch::Device;

/// Labels that are listed, the most frequent first.
const LABELS: usize = 20;

/// Training rows that are shown as tokens, and how many tokens of each.
const SHOWN: (usize, usize) = (3, 24);

/// Rows that are looked at at once.
const CHUNK: usize = 64;

/// Longer than any text is cut to.
const WHOLE: usize = 1 << 20;

/// Describes the rows; says so where they are damaged or not at hand, for nothing is fetched.
///
/// # Errors
/// The tokenizer is damaged.
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
        Err(error) => {
            match error.downcast_ref() {
                Some(DataError::NotFound { .. }) => {
                    writeln!(
                        out,
                        "\nrows: not at hand; `aflora validate` tells where they may lie"
                    )?;
                }
                _ => writeln!(out, "\nrows: {error:#}")?,
            }
            return Ok(());
        }
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
    let mut whole = resolved.clone();
    whole.run.max_length = WHOLE;
    let processor = processor(&whole, files, backbone, Device::Cpu)?;
    let Dataset { train, mut evals, .. } = dataset;
    // They are only there because an objective has some.
    evals.iter_mut().for_each(|(_, rows)| rows.truncate(1));
    let objective = processor.objective(Splits { train, evals, test: None }, 1, None, progress)?;
    let encoder = TextEncoder::from_folder(&files.folder, WHOLE)?;
    lengths(out, objective.as_ref(), resolved.run.max_length)?;
    first_rows(out, objective.as_ref(), &encoder)
}

/// What the rows of a split answer, behind their number.
fn answers(task: &TaskSpec, rows: &[Example]) -> String {
    let mut counts = vec![0; task.labels.len()];
    let mut scores = Vec::new();
    for row in rows {
        match &row.right {
            Answer::Class(class) => {
                if let Some(count) =
                    usize::try_from(*class).ok().and_then(|class| counts.get_mut(class))
                {
                    *count += 1;
                }
            }
            Answer::Score(score) => scores.push(*score),
            _ => return String::new(),
        }
    }
    if let (Some(least), Some(most)) =
        (scores.iter().copied().reduce(f64::min), scores.iter().copied().reduce(f64::max))
    {
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        return format!("  scores {least} to {most}, {mean:.3} on average");
    }
    let mut labels: Vec<(i64, &str)> = counts.into_iter().zip(task.class_names()).collect();
    labels.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let all = labels.len();
    let shown = labels.iter().take(LABELS).map(|(n, label)| format!("{label} {}", thousands(*n)));
    let more = match all.saturating_sub(LABELS) {
        0 => String::new(),
        more => format!(" and {more} more labels"),
    };
    format!("  {}{more}", shown.collect::<Vec<_>>().join(", "))
}

/// The lengths of the training rows, and what would be cut.
fn lengths(out: &mut String, objective: &dyn Objective, max_length: usize) -> Result<()> {
    let rows: Vec<usize> = (0..objective.training_rows()).collect();
    let mut lengths = Vec::new();
    for chunk in rows.chunks(CHUNK) {
        let mask = objective.batch(chunk).batch.attention_mask;
        let of_rows = mask.f_sum_dim_intlist(1, false, tch::Kind::Int64)?;
        lengths.extend(Vec::<i64>::try_from(of_rows)?);
    }
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
    let cut = lengths.iter().filter(|&&length| length > max_length as i64).count();
    let share = 100.0 * cut as f64 / lengths.len() as f64;
    writeln!(
        out,
        "  cut to max_length={max_length}: {} rows ({share:.1} %)",
        thousands(cut as i64)
    )?;
    Ok(())
}

/// The first training rows as the model reads them.
fn first_rows(out: &mut String, objective: &dyn Objective, encoder: &TextEncoder) -> Result<()> {
    let (rows, most) = SHOWN;
    for row in 0..rows.min(objective.training_rows()) {
        let batch = objective.batch(&[row]).batch;
        let ids = Vec::<i64>::try_from(batch.input_ids.view(-1))?;
        let mask = Vec::<i64>::try_from(batch.attention_mask.view(-1))?;
        let ids: Vec<i64> =
            ids.into_iter().zip(mask).filter(|(_, m)| *m != 0).map(|i| i.0).collect();
        let mut tokens = encoder.tokens(&ids[..ids.len().min(most)]);
        if ids.len() > most {
            tokens.push("…".into());
        }
        writeln!(out, "  row {}: {}", row + 1, tokens.join(" "))?;
    }
    Ok(())
}

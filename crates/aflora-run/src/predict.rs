//! Predictions for texts in a file, a line each: JSONL or CSV in, JSONL out.
//!
//! Rows stream through in windows, so a file may be larger than memory. Within a window rows
//! are batched by length; the output keeps the input's order.

use crate::data::Task;
use crate::run::batches::EncodedSet;
use crate::saved::SavedRun;
use crate::ui::Progress;
use crate::usage;
use aflora_models::{AdaptedModel, TextEncoder};
use anyhow::{bail, Context, Result};
use serde_json::{json, Map, Value};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use tch::{Device, Kind};

/// Rows that are held and sorted by length at once, in batches.
const WINDOW: usize = 32;

/// Of the progress bar, in bytes.
const UNIT: u64 = 1000;

/// How to predict.
#[derive(Debug)]
pub struct Settings<'a> {
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: &'a str,
    /// `auto`, `fp32` or `bf16`.
    pub precision: &'a str,
    /// Rows at once.
    pub batch_size: usize,
}

/// Predicts for every row of `input` and writes a line of JSON for each to `output`; gives how
/// many there were.
///
/// A row is a JSON object or a line of CSV under a header, with `text` (or `text_a` and
/// `text_b`, or the task's own column names). Its line is the row with `label` and `scores` (the
/// probability of each class by name) added, or `score` for a regression.
pub fn predict(
    run: &SavedRun,
    input: &Path,
    output: &mut dyn Write,
    settings: &Settings,
    progress: &mut dyn Progress,
) -> Result<u64> {
    if settings.batch_size == 0 {
        usage!("--batch-size is 0, but must be at least 1");
    }
    let file = File::open(input).with_context(|| format!("{} cannot be read", input.display()))?;
    let bytes = file.metadata().map_or(0, |m| m.len());
    let (device, base) = run.place(settings.device, settings.precision)?;
    let predictor = Predictor {
        model: run.model(device, base)?,
        encoder: run.encoder()?,
        task: run.task(),
        labels: run.labels(),
        device,
        batch_size: settings.batch_size,
    };
    progress.begin("predict (kB)", bytes / UNIT);
    let counted = Counted { from: file, done: 0 };
    let done = match input.extension().and_then(|e| e.to_str()) {
        Some("csv") => predictor.csv(counted, input, output, progress),
        _ => predictor.jsonl(counted, input, output, progress),
    };
    progress.end();
    done
}

struct Predictor {
    model: AdaptedModel,
    encoder: TextEncoder,
    task: Task,
    labels: &'static [&'static str],
    device: Device,
    batch_size: usize,
}

type Row = Map<String, Value>;

/// A row with its text or texts.
type Read = ((String, Option<String>), Row);

impl Predictor {
    fn jsonl(
        &self,
        from: Counted,
        path: &Path,
        output: &mut dyn Write,
        progress: &mut dyn Progress,
    ) -> Result<u64> {
        let mut lines = BufReader::new(from);
        let (mut window, mut number, mut done) = (Vec::new(), 0, 0);
        loop {
            let mut line = String::new();
            number += 1;
            let place = || format!("{}, line {number}", path.display());
            if lines.read_line(&mut line).with_context(place)? == 0 {
                break;
            }
            if line.trim().is_empty() {
                continue;
            }
            let row: Row = serde_json::from_str(&line)
                .with_context(|| format!("{}: no JSON object", place()))?;
            window.push((self.texts(&row).with_context(place)?, row));
            if window.len() == WINDOW * self.batch_size {
                done += self.flush(&mut window, output)?;
                progress.update(lines.get_ref().done / UNIT, &format!("{done} rows"));
            }
        }
        Ok(done + self.flush(&mut window, output)?)
    }

    fn csv(
        &self,
        from: Counted,
        path: &Path,
        output: &mut dyn Write,
        progress: &mut dyn Progress,
    ) -> Result<u64> {
        let mut reader = csv::Reader::from_reader(from);
        let place = |line: u64| format!("{}, line {line}", path.display());
        let header = reader.headers().with_context(|| place(1))?.clone();
        let (mut window, mut done) = (Vec::new(), 0);
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record).with_context(|| path.display().to_string())? {
            let line = record.position().map_or(0, |p| p.line());
            let row: Row =
                header.iter().zip(&record).map(|(k, v)| (k.to_string(), v.into())).collect();
            window.push((self.texts(&row).with_context(|| place(line))?, row));
            if window.len() == WINDOW * self.batch_size {
                done += self.flush(&mut window, output)?;
                progress.update(reader.get_ref().done / UNIT, &format!("{done} rows"));
            }
        }
        Ok(done + self.flush(&mut window, output)?)
    }

    /// The text or texts of a row.
    fn texts(&self, row: &Row) -> Result<(String, Option<String>)> {
        let spec = self.task.spec();
        let find = |names: &[&str]| {
            names.iter().find_map(|name| row.get(*name).and_then(Value::as_str)).map(String::from)
        };
        let pair = spec.hub.text_b.is_some();
        let first = find(&["text_a", "text", spec.hub.text_a, spec.tsv.text_a]);
        let second = find(&["text_b", spec.hub.text_b.unwrap_or("text_b")]);
        match (first, second) {
            (Some(first), None) if !pair => Ok((first, None)),
            (Some(first), Some(second)) if pair => Ok((first, Some(second))),
            _ => {
                let wanted = match spec.hub.text_b {
                    Some(b) => {
                        format!("`text_a` and `text_b` (or `{}` and `{b}`)", spec.hub.text_a)
                    }
                    None => format!("`text` (or `{}`)", spec.hub.text_a),
                };
                let keys: Vec<&str> = row.keys().map(String::as_str).collect();
                bail!("the row has {keys:?}; `{}` wants {wanted}", spec.name)
            }
        }
    }

    /// Predicts for the rows that were gathered, and writes them.
    fn flush(&self, window: &mut Vec<Read>, output: &mut dyn Write) -> Result<u64> {
        let rows = std::mem::take(window);
        let texts: Vec<(&str, Option<&str>)> =
            rows.iter().map(|((a, b), _)| (a.as_str(), b.as_deref())).collect();
        let set = EncodedSet { texts: self.encoder.encode(&texts)?, labels: vec![0.0; rows.len()] };
        let mut answers = vec![Vec::new(); rows.len()];
        let _no_grad = tch::no_grad_guard();
        for batch_rows in set.evaluation_batches(self.batch_size) {
            let (batch, _) = set.collate(&batch_rows, self.encoder.pad_id(), false, self.device);
            let logits = self.model.forward(&batch, false)?;
            let scores =
                if self.labels.is_empty() { logits } else { logits.softmax(1, Kind::Float) };
            let scores = Vec::<Vec<f64>>::try_from(scores.to_kind(Kind::Double))?;
            for (row, scores) in batch_rows.into_iter().zip(scores) {
                answers[row] = scores;
            }
        }
        let count = rows.len() as u64;
        for ((_, mut row), scores) in rows.into_iter().zip(answers) {
            if self.labels.is_empty() {
                row.insert("score".into(), json!(scores[0]));
            } else {
                let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]));
                row.insert("label".into(), json!(best.map(|i| self.labels[i])));
                let by_name: Row = self
                    .labels
                    .iter()
                    .zip(scores)
                    .map(|(n, s)| (n.to_string(), s.into()))
                    .collect();
                row.insert("scores".into(), by_name.into());
            }
            serde_json::to_writer(&mut *output, &row)?;
            output.write_all(b"\n").context("the predictions cannot be written")?;
        }
        Ok(count)
    }
}

/// A file that knows how much of it was read.
struct Counted {
    from: File,
    done: u64,
}

impl io::Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buffer)?;
        self.done += n as u64;
        Ok(n)
    }
}

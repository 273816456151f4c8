//! Predictions for texts in a file, a line each: JSONL or CSV in, JSONL out.
//!
//! Rows stream through in windows, so a file may be larger than memory. Within a window rows
//! are batched by length; the output keeps the input's order.

use crate::data::bounded::Bounded;
use crate::data::{Labels, Task, TaskSpec, TextSpec};
use crate::run::batches::{width_for, EncodedSet};
use crate::run::objective::write::Texts;
use crate::run::passes::Passes;
use crate::saved::SavedRun;
use crate::ui::Progress;
use crate::usage;
use aflora_models::{AdaptedModel, Batch, TextEncoder};
use anyhow::{Context, Result};
use serde_json::{json, Map, Value};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
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
/// probability of each class by name) added, `score` for a regression, or `prediction` for a task
/// that asks for text.
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
    let model = run.model(device, base)?;
    let answer = match run.task() {
        Task::Labels(spec) => Answer::Labels(Box::new(run.encoder()?), spec),
        Task::Text(spec) => Answer::Text(Box::new(run.texts(&model)?), spec),
    };
    let batch_size = settings.batch_size;
    let passes = Passes::new(batch_size);
    let predictor = Predictor { model, answer, device, batch_size, passes };
    progress.begin("predict (kB)", bytes / UNIT);
    let from = Bounded::new(file);
    let done = match input.extension().and_then(|e| e.to_str()) {
        Some("csv") => predictor.csv(from, input, output, progress),
        _ => predictor.jsonl(from, input, output, progress),
    };
    progress.end();
    done
}

/// What the model answers, with what makes tokens of the question.
enum Answer {
    Labels(Box<TextEncoder>, &'static TaskSpec),
    Text(Box<Texts>, &'static TextSpec),
}

struct Predictor {
    model: AdaptedModel,
    answer: Answer,
    device: Device,
    batch_size: usize,
    passes: Passes,
}

type Row = Map<String, Value>;

/// A row with its text or texts.
type Read = ((String, Option<String>), Row);

impl Predictor {
    fn jsonl(
        &self,
        from: Bounded<File>,
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
            lines.get_mut().next_record();
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
        from: Bounded<File>,
        path: &Path,
        output: &mut dyn Write,
        progress: &mut dyn Progress,
    ) -> Result<u64> {
        let mut reader = csv::Reader::from_reader(from);
        let place = |line: u64| format!("{}, line {line}", path.display());
        let header = reader.headers().with_context(|| place(1))?.clone();
        let (mut window, mut done) = (Vec::new(), 0);
        let mut record = csv::StringRecord::new();
        reader.get_mut().next_record();
        while reader.read_record(&mut record).with_context(|| path.display().to_string())? {
            reader.get_mut().next_record();
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
        let find = |names: &[&str]| {
            names.iter().find_map(|name| row.get(*name).and_then(Value::as_str)).map(String::from)
        };
        let (found, name, wanted) = match &self.answer {
            Answer::Text(_, spec) => {
                let found = find(&["text", spec.input]).map(|text| (text, None));
                (found, spec.name, format!("`text` (or `{}`)", spec.input))
            }
            Answer::Labels(_, spec) => {
                let first = find(&["text_a", "text", spec.hub.text_a, spec.tsv.text_a]);
                match spec.hub.text_b {
                    None => {
                        let wanted = format!("`text` (or `{}`)", spec.hub.text_a);
                        (first.map(|text| (text, None)), spec.name, wanted)
                    }
                    Some(b) => {
                        let found = first.zip(find(&["text_b", b])).map(|(a, b)| (a, Some(b)));
                        let a = spec.hub.text_a;
                        (found, spec.name, format!("`text_a` and `text_b` (or `{a}` and `{b}`)"))
                    }
                }
            }
        };
        found.with_context(|| {
            let keys: Vec<&str> = row.keys().map(String::as_str).collect();
            format!("the row has {keys:?}; `{name}` wants {wanted}")
        })
    }

    /// Predicts for the rows that were gathered, and writes them.
    fn flush(&self, window: &mut Vec<Read>, output: &mut dyn Write) -> Result<u64> {
        let (texts, mut rows): (Vec<_>, Vec<Row>) = std::mem::take(window).into_iter().unzip();
        match &self.answer {
            Answer::Labels(encoder, spec) => self.label(encoder, spec, &texts, &mut rows)?,
            Answer::Text(by, _) => {
                let inputs: Vec<&str> = texts.iter().map(|(text, _)| text.as_str()).collect();
                let written =
                    by.write(&self.model, &inputs, &self.passes, self.device, &mut |_| {})?;
                for (row, text) in rows.iter_mut().zip(written) {
                    row.insert("prediction".into(), text.into());
                }
            }
        }
        for row in &rows {
            serde_json::to_writer(&mut *output, row)?;
            output.write_all(b"\n").context("the predictions cannot be written")?;
        }
        Ok(rows.len() as u64)
    }

    /// Adds the label and the classes' probabilities, or the score, to each row.
    fn label(
        &self,
        encoder: &TextEncoder,
        spec: &TaskSpec,
        texts: &[(String, Option<String>)],
        rows: &mut [Row],
    ) -> Result<()> {
        let texts: Vec<(&str, Option<&str>)> =
            texts.iter().map(|(a, b)| (a.as_str(), b.as_deref())).collect();
        let set = EncodedSet::unlabelled(encoder, &texts)?;
        let _no_grad = tch::no_grad_guard();
        let most = usize::try_from(self.model.backbone().max_positions()).unwrap_or(usize::MAX);
        self.passes.each(&set.longest_first(), |batch_rows| {
            let width = width_for(set.longest(batch_rows), most, self.device);
            let tensors = set.collate(batch_rows, width, encoder.pad_id());
            let [ids, mask, types] = tensors.map(|t| t.to_device(self.device));
            let batch = Batch { token_type_ids: Some(types), ..Batch::new(ids, mask) };
            let logits = self.model.forward(&batch, false)?;
            let scores = match spec.labels {
                Labels::Classes(_) => logits.softmax(1, Kind::Float),
                Labels::Score(..) => logits,
            };
            let scores = scores.to_kind(Kind::Double).to_device(Device::Cpu);
            let scores = Vec::<Vec<f64>>::try_from(scores)?;
            for (&row, scores) in batch_rows.iter().zip(scores) {
                let row = &mut rows[row];
                let Labels::Classes(names) = spec.labels else {
                    row.insert("score".into(), json!(scores[0]));
                    continue;
                };
                let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]));
                row.insert("label".into(), json!(best.map(|i| names[i])));
                let by_name = names.iter().zip(scores).map(|(n, s)| (n.to_string(), s.into()));
                row.insert("scores".into(), by_name.collect::<Row>().into());
            }
            Ok(())
        })
    }
}

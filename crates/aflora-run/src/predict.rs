//! Predictions for texts in a file, a line each: CSV, TSV or JSONL in, JSONL out.
//!
//! Rows stream through in windows, so a file may be larger than memory. Within a window rows
//! are batched by length; the output keeps the input's order.

mod answers;

use crate::config::{DeviceChoice, Precision};
use crate::feed::bounded::Bounded;
use crate::feed::row::Row;
use crate::feed::table::{Format, Table};
use crate::kinds::{Prediction, Processor};
use crate::run::passes::Passes;
use crate::saved::SavedRun;
use crate::task::TaskSpec;
use crate::ui::Progress;
use crate::usage;
use aflora_models::AdaptedModel;
use answers::{Names, Output};
use anyhow::{Context, Result};
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

/// Rows that are held and sorted by length at once, in passes.
const WINDOW: usize = 32;

/// Of the progress bar, in bytes.
const UNIT: u64 = 1000;

/// What stands for standard input.
pub const STDIN: &str = "-";

/// How to predict.
#[derive(Debug)]
pub struct Settings {
    /// Where to compute.
    pub device: DeviceChoice,
    /// Of the frozen weights; `auto`: as the run trained.
    pub precision: Precision,
    /// Rows at once.
    pub batch_size: usize,
    /// The input's form; by its name's ending if not given.
    pub format: Option<Format>,
}

/// Predicts for every row of `input`, standard input if it is [`STDIN`], and writes a line of
/// JSON for each to `output`; gives how many there were.
///
/// A row is a JSON object or a line of CSV or TSV under a header, with `text` (or `text_a` and
/// `text_b`, or the task's own column names). Its line is the row, each value as it stood there,
/// with `label` and `scores` (the probability of each class) added, classes by the names that
/// they have on the hub, `score` for a regression, or `prediction` for a task that asks for text.
/// Where the first row has one of these names itself, ours begin with `predicted_`, and have a
/// number behind where it has those too, as the rows of a former prediction do. A later row that
/// has one of ours gets its answers under the next names that are free in it, and is told.
///
/// # Errors
/// The input cannot be read, a row is not as it should be, or the output cannot be written.
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
    let format = settings.format.unwrap_or_else(|| Format::of(input));
    let (from, bytes) = open(input, settings.format)?;
    let called = if input == Path::new(STDIN) { Path::new("standard input") } else { input };
    let names = run.task().input_names();
    let known = |cells: &[String]| {
        let mut names = names.iter().flatten();
        // A TSV file of the task's own may have none.
        format == Format::Csv
            || run.task().dataset.sources.iter().all(|(_, source)| source.header)
            || names.any(|name| cells.iter().any(|cell| cell.trim() == *name))
    };
    // Before the model is loaded, which takes longer.
    let mut rows = Table::new(Bounded::new(from), called, format, known)?;
    let (device, base) = run.device_and_precision(settings.device, settings.precision)?;
    let model = run.model(device, base)?;
    let processor = run.processor(&model, device)?;
    let mut predictor = Predictor {
        model,
        processor,
        task: run.task().clone(),
        window: WINDOW * settings.batch_size,
        passes: Passes::new(settings.batch_size),
        names: None,
        empty: NotedLines::default(),
        cut: NotedLines::default(),
        renamed: NotedLines::default(),
    };
    progress.begin("predict (kB)", bytes / UNIT);
    let done = predictor.all(&mut rows, output, progress);
    progress.end();
    if done.is_ok() {
        predictor.empty.tell("text is empty", "texts are empty");
        let cut = "longer than the model reads here, and cut";
        predictor.cut.tell(&format!("text is {cut}"), &format!("texts are {cut}"));
        predictor.renamed.tell(
            "row has a name itself that the answers have, and its answers the next one",
            "rows have a name themselves that the answers have, and their answers the next one",
        );
    }
    done
}

/// The input and how long it is, where that is known.
fn open(input: &Path, format: Option<Format>) -> Result<(Box<dyn Read>, u64)> {
    if input == Path::new(STDIN) {
        return Ok((Box::new(io::stdin().lock()), 0));
    }
    let shown = input.display();
    let parquet = input.extension().is_some_and(|e| e.eq_ignore_ascii_case("parquet"));
    if parquet && format.is_none() {
        usage!(
            "{shown}: predict reads .csv, .tsv and .jsonl files; write the table as one of them"
        );
    }
    if input.is_dir() {
        usage!("{shown} is a folder; name a file in it");
    }
    // Not [`aflora_files::open`]: a pipe is read as it comes.
    match File::open(input) {
        Ok(file) => {
            let bytes = file.metadata().map_or(0, |about| about.len());
            Ok((Box::new(file), bytes))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => usage!("{shown}: there is no such file"),
        Err(e) => Err(e).with_context(|| format!("{shown} cannot be read")),
    }
}

/// A row with its text or texts, and what is added to it.
struct PredictionRow {
    row: Row,
    texts: Vec<String>,
    names: Vec<String>,
    answers: Vec<Value>,
}

/// Lines of the input that a warning at the end will name.
#[derive(Debug, Default)]
struct NotedLines {
    first: Vec<usize>,
    count: usize,
}

impl NotedLines {
    /// How many lines a message names; of the others it gives the count.
    const TOLD: usize = 10;

    fn add(&mut self, line: usize) {
        self.count += 1;
        if self.count <= Self::TOLD {
            self.first.push(line);
        }
    }

    fn tell(&mut self, one: &str, several: &str) {
        self.first.sort_unstable();
        let lines: Vec<String> = self.first.iter().map(usize::to_string).collect();
        let lines = lines.join(", ");
        match (self.count, self.count - self.first.len()) {
            (0, _) => {}
            (1, _) => tracing::warn!("1 {one}: line {lines}"),
            (n, 0) => tracing::warn!("{n} {several}: lines {lines}"),
            (n, more) => tracing::warn!("{n} {several}: lines {lines} and {more} more"),
        }
    }
}

struct Predictor {
    model: AdaptedModel,
    processor: Box<dyn Processor>,
    task: Arc<TaskSpec>,
    window: usize,
    passes: Passes,
    /// Of what is added, which the first row decides.
    names: Option<Names>,
    empty: NotedLines,
    cut: NotedLines,
    /// Rows that have a name of their own which the first row had not.
    renamed: NotedLines,
}

impl Predictor {
    fn all<R: Read>(
        &mut self,
        rows: &mut Table<R>,
        output: &mut dyn Write,
        progress: &mut dyn Progress,
    ) -> Result<u64> {
        let (mut window, mut done) = (Vec::new(), 0);
        while let Some(row) = rows.read()? {
            let asked = self.ask(row).map_err(|(line, problem)| rows.problem(line, problem))?;
            window.push(asked);
            if window.len() == self.window {
                done += self.flush(&mut window, output)?;
                progress.update(rows.bytes() / UNIT, &format!("{done} rows"));
            }
        }
        Ok(done + self.flush(&mut window, output)?)
    }

    /// A row's texts; or its line and what is wrong with it.
    fn ask(&mut self, row: Row) -> std::result::Result<PredictionRow, (usize, String)> {
        let line = row.line;
        let texts = texts(&self.task, &row).map_err(|problem| (line, problem))?;
        let names = self.names.get_or_insert_with(|| Names::beside(&self.task, &row));
        let (names, renamed) = names.of(&row);
        if renamed {
            self.renamed.add(line);
        }
        if texts.iter().any(|text| text.trim().is_empty()) {
            self.empty.add(line);
        }
        Ok(PredictionRow { row, texts, names, answers: Vec::new() })
    }

    /// Predicts for the rows that were gathered, and writes them.
    fn flush(&mut self, window: &mut Vec<PredictionRow>, output: &mut dyn Write) -> Result<u64> {
        let mut rows = std::mem::take(window);
        let texts: Vec<&[String]> = rows.iter().map(|asked| &asked.texts[..]).collect();
        let predictions = self.processor.predict(&self.model, &texts, &self.passes)?;
        for (asked, Prediction { values, cut }) in rows.iter_mut().zip(predictions) {
            asked.answers = values;
            if cut {
                self.cut.add(asked.row.line);
            }
        }
        for PredictionRow { row, names, answers, .. } in &rows {
            let line = serde_json::to_string(&Output { row, names, answers })?;
            writeln!(output, "{}", aflora_files::printable_json(&line))
                .context("the predictions cannot be written")?;
        }
        Ok(rows.len() as u64)
    }
}

/// The text or texts of a row.
fn texts(task: &TaskSpec, row: &Row) -> std::result::Result<Vec<String>, String> {
    let mut found = Vec::new();
    let names = task.input_names();
    for names in &names {
        let mut text = None;
        for name in names {
            text = row.find(name)?;
            if text.is_some() {
                break;
            }
        }
        found.extend(text);
    }
    match found.len() == names.len() {
        true => Ok(found),
        false => {
            let ways = names.iter().map(Vec::len).min().unwrap_or(0);
            let way = |i: usize| {
                let texts: Vec<String> =
                    names.iter().map(|names| format!("`{}`", names[i])).collect();
                texts.join(" and ")
            };
            let wanted = (0..ways).map(way).collect::<Vec<_>>().join(", or ");
            Err(format!("the row has {}; `{}` wants {wanted}", row.shown(), task.name()))
        }
    }
}

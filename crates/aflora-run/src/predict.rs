//! Predictions for texts in a file: CSV, TSV, JSONL or plain lines in, lines of JSON or a table out.
//!
//! Rows stream through in windows, so a file may be larger than memory. Within a window rows
//! are batched by length; the output keeps the input's order. The window of a stream is what has
//! come, so that each row is answered as soon as it can be.

mod answers;
pub(crate) mod input;
mod noted;
mod output;

pub use input::STDIN;
pub use output::OutputFormat;

use crate::config::{DeviceChoice, Precision};
use crate::feed::row::Row;
use crate::feed::table::Format;
use crate::kinds::{Prediction, Processor};
use crate::metrics::Sort;
use crate::run::passes::Passes;
use crate::saved::SavedRun;
use crate::task::TaskSpec;
use crate::ui::Progress;
use crate::usage;
use aflora_models::AdaptedModel;
use answers::{keep_highest, Names};
use anyhow::Result;
use input::InputRows;
use noted::NotedLines;
use output::Writer;
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Rows that are held and sorted by length at once, in passes.
const WINDOW: usize = 32;

/// Of the progress bar, in bytes.
const UNIT: u64 = 1000;

/// What a finished run answers with, and what it reads.
#[derive(Debug)]
pub struct PredictSettings {
    /// Where to compute.
    pub device: DeviceChoice,
    /// Of the frozen weights; `auto`: as the run trained.
    pub precision: Precision,
    /// Rows at once.
    pub batch_size: usize,
    /// The input's form; by its name's ending if not given.
    pub format: Option<Format>,
}

/// How predictions are written.
#[derive(Debug)]
pub struct Shown {
    /// The form; a table where the input is one of commas if not given, else lines of JSON.
    pub format: Option<OutputFormat>,
    /// How many classes to give the probability of, the likeliest; all if not given.
    pub top_k: Option<usize>,
    /// Whether somebody looks at the output.
    pub terminal: bool,
}

/// Predicts for every row of `input`, standard input if it is [`STDIN`], and writes each with its
/// answer to `output`; gives how many there were.
///
/// A row is a JSON object, a line of CSV or TSV under a header, or a line of plain text, with `text`
/// (or `text_a` and `text_b`, or the task's own column names). It is written with each value as it
/// stood there, with `label` and `scores` (the probability of each class) added, classes by the names
/// that they have on the hub, `score` for a regression, or `prediction` for a task that asks for text.
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
    settings: &PredictSettings,
    shown: &Shown,
    progress: &mut dyn Progress,
) -> Result<u64> {
    settings.check()?;
    match shown.top_k {
        Some(0) => usage!("--top-k is 0, but must be at least 1"),
        Some(_) if run.task().rules().answers() != Sort::Class => {
            usage!(
                "--top-k is of the probabilities of classes, but the task `{}` {}",
                run.task().name(),
                run.task().rules().asks_for()
            );
        }
        _ => {}
    }
    // Before the model is loaded, which takes longer.
    let mut rows = InputRows::open(input, settings.format, run.task())?;
    let format = shown.format.unwrap_or(match rows.format {
        Format::Csv => OutputFormat::Csv,
        _ => OutputFormat::Jsonl,
    });
    let (device, base) = run.device_and_precision(settings.device, settings.precision)?;
    let model = run.model(device, base)?;
    let processor = run.processor(&model, device)?;
    let mut predictor = Predictor {
        model,
        processor,
        task: run.task().clone(),
        passes: Passes::new(settings.batch_size),
        names: None,
        top_k: shown.top_k,
        empty: NotedLines::default(),
        cut: NotedLines::default(),
        renamed: NotedLines::default(),
    };
    let window = WINDOW * settings.batch_size;
    let mut to = Writer::new(output, format, shown.terminal);
    progress.begin("predict (kB)", rows.bytes / UNIT);
    let done = predictor.all(&mut rows, window, &mut to, progress);
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

impl PredictSettings {
    /// Whether rows can be taken so many at once.
    ///
    /// # Errors
    /// They cannot.
    pub fn check(&self) -> Result<()> {
        if self.batch_size == 0 {
            usage!("--batch-size is 0, but must be at least 1");
        }
        Ok(())
    }
}

/// A row with its text or texts, and what is added to it.
struct PredictionRow {
    row: Row,
    texts: Vec<String>,
    names: Vec<String>,
    answers: Vec<Value>,
}

struct Predictor {
    model: AdaptedModel,
    processor: Box<dyn Processor>,
    task: Arc<TaskSpec>,
    passes: Passes,
    /// Of what is added, which the first row decides.
    names: Option<Names>,
    top_k: Option<usize>,
    empty: NotedLines,
    cut: NotedLines,
    /// Rows that have a name of their own which the first row had not.
    renamed: NotedLines,
}

impl Predictor {
    fn all(
        &mut self,
        rows: &mut InputRows,
        window: usize,
        to: &mut Writer,
        progress: &mut dyn Progress,
    ) -> Result<u64> {
        let mut done = 0;
        loop {
            let next = rows.next(window)?;
            if next.is_empty() {
                return Ok(done);
            }
            let asked = next.into_iter().map(|row| self.ask(row)).collect::<Result<_, _>>();
            let asked = asked.map_err(|(line, problem)| rows.problem(line, problem))?;
            done += self.answer(asked, to)?;
            progress.update(rows.done() / UNIT, &format!("{done} rows"));
        }
    }

    /// A row's texts; or its line and what is wrong with it.
    fn ask(&mut self, row: Row) -> std::result::Result<PredictionRow, (usize, String)> {
        let line = row.line;
        let texts = self.task.texts(&row).map_err(|problem| (line, problem))?;
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

    /// Predicts for rows and writes them.
    fn answer(&mut self, mut rows: Vec<PredictionRow>, to: &mut Writer) -> Result<u64> {
        let texts: Vec<&[String]> = rows.iter().map(|asked| &asked.texts[..]).collect();
        let predictions = self.processor.predict(&self.model, &texts, &self.passes)?;
        for (asked, Prediction { values, cut }) in rows.iter_mut().zip(predictions) {
            asked.answers = values;
            if let Some(most) = self.top_k {
                asked.answers.iter_mut().for_each(|value| keep_highest(value, most));
            }
            if cut {
                self.cut.add(asked.row.line);
            }
        }
        for PredictionRow { row, names, answers, .. } in &rows {
            to.row(row, names, answers)?;
        }
        to.flush()?;
        Ok(rows.len() as u64)
    }
}

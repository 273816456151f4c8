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
use crate::saved::{ModelsOnOneBase, SavedRun};
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
use tch::Device;

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

/// Whose answers are asked for.
#[derive(Debug, Clone, Copy)]
pub enum Asked<'a> {
    /// Those of one finished run.
    One(&'a SavedRun),
    /// Those of several, of [one base model](SavedRun::open_all).
    Several {
        /// The runs.
        runs: &'a [SavedRun],
        /// What each is called.
        names: &'a [String],
        /// The column that says whose answer a row gets; each row gets one of each if not given.
        column: Option<&'a str>,
    },
}

impl<'a> Asked<'a> {
    fn runs(&self) -> &'a [SavedRun] {
        match self {
            Asked::One(run) => std::slice::from_ref(run),
            Asked::Several { runs, .. } => runs,
        }
    }
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
/// Where several are asked and no column says which, a row is written once for each, with `adapter`
/// before its answers.
///
/// # Errors
/// The input cannot be read, a row is not as it should be, or the output cannot be written.
pub fn predict(
    asked: Asked<'_>,
    input: &Path,
    output: &mut dyn Write,
    settings: &PredictSettings,
    shown: &Shown,
    progress: &mut dyn Progress,
) -> Result<u64> {
    settings.check()?;
    let runs = asked.runs();
    check_top_k(shown.top_k, runs)?;
    // Before the model is loaded, which takes longer.
    let tasks: Vec<&TaskSpec> = runs.iter().map(|run| run.task().as_ref()).collect();
    let mut rows = InputRows::open(input, settings.format, &tasks)?;
    let format = shown.format.unwrap_or(match rows.format {
        Format::Csv => OutputFormat::Csv,
        _ => OutputFormat::Jsonl,
    });
    let mut predictor = Predictor {
        answerers: answerers(asked, settings)?,
        column: match asked {
            Asked::Several { column, .. } => column.map(String::from),
            Asked::One(_) => None,
        },
        passes: Passes::new(settings.batch_size),
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

/// Refuses a number of classes where there are none.
fn check_top_k(top_k: Option<usize>, runs: &[SavedRun]) -> Result<()> {
    let Some(most) = top_k else { return Ok(()) };
    if most == 0 {
        usage!("--top-k is 0, but must be at least 1");
    }
    if let Some(run) = runs.iter().find(|run| run.task().rules().answers() != Sort::Class) {
        usage!(
            "--top-k is of the probabilities of classes, but the task `{}` {}",
            run.task().name(),
            run.task().rules().asks_for()
        );
    }
    Ok(())
}

/// The models with what works for their tasks; of several, it is told what a base in common saves.
fn answerers(asked: Asked<'_>, settings: &PredictSettings) -> Result<Vec<Answerer>> {
    let (chosen, precision) = (settings.device, settings.precision);
    match asked {
        Asked::One(run) => {
            let (device, base) = run.device_and_precision(chosen, precision)?;
            Ok(vec![Answerer::new(None, run, run.model(device, base)?, device)?])
        }
        Asked::Several { runs, names, .. } => {
            let (device, base) = SavedRun::device_and_precision_of_all(runs, chosen, precision)?;
            let ModelsOnOneBase { models, base, beside } = SavedRun::models(runs, device, base)?;
            let count = models.len();
            tracing::info!(
                "{count} adapters on one base model: {:.1} ms to load it, {:.1} ms for each adapter; \
                 going from one to another copies nothing",
                1e3 * base.as_secs_f64(),
                1e3 * beside.as_secs_f64() / count as f64
            );
            let all = names.iter().zip(runs).zip(models);
            all.map(|((name, run), model)| Answerer::new(Some(name.clone()), run, model, device))
                .collect()
        }
    }
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

/// A row, and what is added to it by each whom it asks.
struct PredictionRow {
    row: Row,
    asked: Vec<Question>,
}

/// What one is asked of a row, and what comes of it.
struct Question {
    /// Whom.
    of: usize,
    texts: Vec<String>,
    names: Vec<String>,
    answers: Vec<Value>,
    cut: bool,
}

/// A model with what works for its task.
struct Answerer {
    /// What its answers are said to be of, where several answer.
    name: Option<String>,
    model: AdaptedModel,
    processor: Box<dyn Processor>,
    task: Arc<TaskSpec>,
    /// Of what is added, which the first row decides.
    names: Option<Names>,
}

impl Answerer {
    fn new(
        name: Option<String>,
        run: &SavedRun,
        model: AdaptedModel,
        device: Device,
    ) -> Result<Answerer> {
        let processor = run.processor(&model, device)?;
        Ok(Answerer { name, model, processor, task: run.task().clone(), names: None })
    }
}

struct Predictor {
    answerers: Vec<Answerer>,
    /// The column that says who answers a row.
    column: Option<String>,
    passes: Passes,
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
            let Some(first) = next.first() else { return Ok(done) };
            if done == 0 {
                self.name_answers(first, to);
            }
            let asked = next.into_iter().map(|row| self.ask(row)).collect::<Result<_, _>>();
            let asked = asked.map_err(|(line, problem)| rows.problem(line, problem))?;
            done += self.answer(asked, to)?;
            progress.update(rows.done() / UNIT, &format!("{done} rows"));
        }
    }

    /// Decides by the first row what is added to all.
    fn name_answers(&mut self, first: &Row, to: &mut Writer) {
        let tells = self.column.is_none();
        let mut columns = Vec::new();
        for answerer in &mut self.answerers {
            let tells = tells && answerer.name.is_some();
            let names = Names::beside(&answerer.task, tells, first);
            columns.extend(names.of_file());
            answerer.names = Some(names);
        }
        to.make_room(columns);
    }

    /// A row with the texts for those whom it asks; or its line and what is wrong with it.
    fn ask(&mut self, row: Row) -> std::result::Result<PredictionRow, (usize, String)> {
        let line = row.line;
        let asked = self.questions(&row).map_err(|problem| (line, problem))?;
        if asked.iter().any(|question| question.texts.iter().any(|text| text.trim().is_empty())) {
            self.empty.add(line);
        }
        Ok(PredictionRow { row, asked })
    }

    fn questions(&mut self, row: &Row) -> std::result::Result<Vec<Question>, String> {
        let whom = match &self.column {
            Some(column) => vec![self.named_in(row, column)?],
            None => (0..self.answerers.len()).collect(),
        };
        let mut any_renamed = false;
        let question = |of: usize| {
            let answerer = &self.answerers[of];
            let texts = answerer.task.texts(row)?;
            let (names, renamed) =
                answerer.names.as_ref().map(|names| names.of(row)).unwrap_or_default();
            any_renamed |= renamed;
            Ok(Question { of, texts, names, answers: Vec::new(), cut: false })
        };
        let questions = whom.into_iter().map(question).collect();
        if any_renamed {
            self.renamed.add(row.line);
        }
        questions
    }

    /// The one whose name stands in that column of the row.
    fn named_in(&self, row: &Row, column: &str) -> std::result::Result<usize, String> {
        let names = || self.answerers.iter().flat_map(|answerer| &answerer.name);
        let known = || names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let Some(named) = row.find(column)? else {
            return Err(format!(
                "it has no `{column}`, which says whose answer it gets: {}",
                known()
            ));
        };
        names().position(|name| *name == named.trim()).ok_or_else(|| {
            let named = aflora_files::printable_line(&named).into_owned();
            format!("`{column}` is {named:?}, but must be one of the adapters: {}", known())
        })
    }

    /// Predicts for rows and writes them.
    fn answer(&mut self, mut rows: Vec<PredictionRow>, to: &mut Writer) -> Result<u64> {
        for (of, answerer) in self.answerers.iter().enumerate() {
            let questions = rows.iter_mut().flat_map(|row| &mut row.asked);
            let mut questions: Vec<&mut Question> = questions.filter(|q| q.of == of).collect();
            if questions.is_empty() {
                continue;
            }
            let texts: Vec<&[String]> = questions.iter().map(|q| &q.texts[..]).collect();
            let predictions = answerer.processor.predict(&answerer.model, &texts, &self.passes)?;
            for (question, Prediction { mut values, cut }) in questions.iter_mut().zip(predictions)
            {
                if let Some(most) = self.top_k {
                    values.iter_mut().for_each(|value| keep_highest(value, most));
                }
                let whose = answerer.name.iter().filter(|_| self.column.is_none());
                let whose = whose.map(|name| Value::from(name.as_str()));
                question.answers = whose.chain(values).collect();
                question.cut = cut;
            }
        }
        for PredictionRow { row, asked } in &rows {
            if asked.iter().any(|question| question.cut) {
                self.cut.add(row.line);
            }
            for Question { names, answers, .. } in asked {
                to.row(row, names, answers)?;
            }
        }
        to.flush()?;
        Ok(rows.len() as u64)
    }
}

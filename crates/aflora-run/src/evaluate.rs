//! A finished run judged on the labelled rows of a file.

use crate::feed::row::Row;
use crate::feed::table::Format;
use crate::feed::{DataError, Source};
use crate::kinds::Splits;
use crate::predict::input::InputRows;
use crate::predict::{PredictSettings, STDIN};
use crate::run::objective::Evaluated;
use crate::run::passes::Passes;
use crate::saved::SavedRun;
use crate::task::{Example, TaskSpec};
use crate::ui::Progress;
use aflora_record::evaluation::Metrics;
use aflora_record::ByClass;
use anyhow::Result;
use serde::Serialize;
use std::path::Path;

/// What a run is worth on the rows of a file.
#[derive(Debug, Serialize)]
pub struct FileEvaluation {
    /// How many rows were judged.
    pub rows: usize,
    /// The task's metrics in its order; none where undefined.
    pub metrics: Metrics,
    /// Mean loss over the rows, each counted once whatever its class weighed in training, or over all
    /// tokens to be written.
    pub loss: f64,
    /// The answers class by class, where there are classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_class: Option<ByClass>,
    /// Why the metrics are no better than a guess, where they are not.
    pub doubts: Vec<String>,
}

/// Judges a run on every row of `input`, whose texts lie where `predict` finds them, and what is
/// right under the name that it has in the task's own files, or under `label` (`target` where texts
/// are to be written). Classes go by their names in those files, or by those of predictions.
///
/// # Errors
/// The input cannot be read, or a row is not as it should be.
pub fn evaluate(
    run: &SavedRun,
    input: &Path,
    settings: &PredictSettings,
    progress: &mut dyn Progress,
) -> Result<FileEvaluation> {
    settings.check()?;
    let split = match input.file_stem().filter(|_| input != Path::new(STDIN)) {
        Some(stem) => stem.to_string_lossy().into_owned(),
        None => "rows".to_string(),
    };
    let examples = examples(run.task(), InputRows::open(input, settings.format, &[run.task()])?)?;
    if examples.is_empty() {
        return Err(DataError::Empty { place: input.display().to_string() }.into());
    }
    let rows = examples.len();
    let (device, base) = run.device_and_precision(settings.device, settings.precision)?;
    let model = run.model(device, base)?;
    let splits = Splits { train: Vec::new(), evals: vec![(split, examples)], test: None };
    let processor = run.processor(&model, device)?;
    let objective =
        processor.objective(splits, &Passes::new(settings.batch_size), None, progress)?;
    let Evaluated { metrics, by_class, loss, doubts, .. } = objective.evaluate(&model, progress)?;
    Ok(FileEvaluation { rows, metrics, loss, by_class: by_class.into_iter().next(), doubts })
}

/// All rows with what is right for them.
fn examples(task: &TaskSpec, mut rows: InputRows) -> Result<Vec<Example>> {
    /// Rows that are read at once.
    const SOME: usize = 1024;
    let named = task.with_class_names_as_labels();
    let mut examples = Vec::new();
    loop {
        let next = rows.next(SOME)?;
        if next.is_empty() {
            return Ok(examples);
        }
        let plain = rows.format == Format::Lines;
        for row in next.into_iter().filter(|row| !(plain && row.is_blank())) {
            let example = example(task, &named, &row);
            examples.push(example.map_err(|problem| rows.problem(row.line, problem))?);
        }
    }
}

/// A row with what is right for it, by the first of the task's sources that has it so, else under
/// the names that every task's columns have. `named` is the task with its classes called as in
/// predictions.
fn example(task: &TaskSpec, named: &TaskSpec, row: &Row) -> std::result::Result<Example, String> {
    let plain = Source::default();
    let rules = task.rules();
    // What `predict` wrote is no judge of itself; where rows have such names, it writes others.
    let [predicted, _] = rules.names(task);
    if let Some(target) = rules.target(task).filter(|target| predicted.contains(target)) {
        let columns = task.dataset.sources.iter().map(|(_, source)| source.column(target));
        let is_own = columns.filter(|name| !predicted.contains(name)).any(|name| row.has(name));
        if predicted.iter().all(|name| row.has(name)) && predicted.len() > 1 && !is_own {
            let names = predicted.join("` and `");
            return Err(format!(
                "`{names}` are what predict wrote of the row: what is right stands under another \
                 name, or under `{target}` alone"
            ));
        }
    }
    let sources = task.dataset.sources.iter().map(|(_, source)| source).chain([&plain]);
    // What is told is of a column that the row has, where there is one; else of the task's own.
    let (mut wrong, mut absent) = (None, None);
    for source in sources {
        let target = task.rules().target(task).map(|role| source.column(role));
        let has_column = target.is_some_and(|column| !matches!(row.find(column), Ok(None)))
            || !matches!(task.rules().whole(row, source), Ok(None));
        for task in [task, named] {
            match task.rules().right(task, row, source) {
                Ok(right) => {
                    let example = Example { texts: task.texts(row)?, right };
                    task.rules().check_example(&example)?;
                    return Ok(example);
                }
                Err(problem) if has_column => wrong = Some(problem),
                Err(problem) => {
                    absent.get_or_insert((problem, target));
                }
            }
        }
    }
    let usual = rules.target(task);
    Err(wrong.unwrap_or_else(|| match (absent, usual) {
        (Some((problem, Some(column))), Some(usual)) if column != usual => {
            format!("{problem}: what is right stands under that name, or under `{usual}`")
        }
        (absent, _) => absent.map(|(problem, _)| problem).unwrap_or_default(),
    }))
}

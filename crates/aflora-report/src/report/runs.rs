//! Results of plain run folders, so that a report can be made of them as of an experiment.

use super::NamedResults;
use crate::error::Result;
use aflora_record::names::{holds, CONFIG, METRICS};
use aflora_record::results::{
    twice, Cell, Finding, Layout, MethodRow, Outcome, Results, TaskColumn, View,
};
use aflora_record::Settings;
use std::fs;
use std::path::{Path, PathBuf};

/// What a report on runs shows.
const VIEWS: [View; 6] =
    [View::Table, View::Classes, View::Curves, View::Trainable, View::Heatmap, View::Threshold];

/// The run folders that `folder` is or holds.
///
/// # Errors
/// Something else stands in the place of a run's file.
pub fn find(folder: &Path) -> Result<Vec<PathBuf>> {
    if holds(folder, CONFIG)? {
        return Ok(vec![folder.to_path_buf()]);
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut runs: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    runs.retain(|path| path.join(CONFIG).is_file());
    runs.sort();
    Ok(runs)
}

/// What the runs in these folders found, under the name `name`. Runs that did not finish are
/// missing; what is wrong with damaged ones is given beside it.
pub fn read(name: &str, folders: &[PathBuf]) -> (NamedResults, Vec<aflora_record::Error>) {
    let (mut cells, mut damaged) = (Vec::new(), Vec::new());
    for folder in folders {
        match cell(folder) {
            Ok(found) => cells.extend(found.map(|cell| (folder, cell))),
            Err(error) => damaged.push(error),
        }
    }
    let same = |(_, cell): &(&PathBuf, Cell)| {
        (cell.model.clone(), cell.task.clone(), cell.method.clone(), cell.seed)
    };
    // Runs that differ in a setting alone are told apart by their folders.
    if twice(cells.iter().map(same)).is_some() {
        for (folder, cell) in &mut cells {
            cell.method = file_name(folder);
        }
    }
    let cells: Vec<Cell> = cells.into_iter().map(|(_, cell)| cell).collect();
    let unique = |of: fn(&Cell) -> &String| {
        let mut names: Vec<String> = Vec::new();
        for name in cells.iter().map(of) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    };
    let method = |name: String| MethodRow { label: name.clone(), name, ..MethodRow::default() };
    let task = |name: String| TaskColumn { label: name.clone(), name, metric: None };
    let layout = Layout {
        title: name.to_string(),
        show: VIEWS.to_vec(),
        methods: unique(|cell| &cell.method).into_iter().map(method).collect(),
        tasks: unique(|cell| &cell.task).into_iter().map(task).collect(),
        // No value of the paper's is compared with.
        paper_models: Some(Vec::new()),
        ..Layout::default()
    };
    let results = Results { experiment: name.to_string(), profile: "runs".into(), layout, cells };
    (NamedResults { name: name.to_string(), results }, damaged)
}

/// What a run found; none of one whose settings do not say what it ran.
fn cell(folder: &Path) -> aflora_record::Result<Option<Cell>> {
    let settings = Settings::read(folder)?;
    let Some((subject, seed)) = settings.subject().zip(settings.seed()) else { return Ok(None) };
    let outcome = match holds(folder, METRICS)? {
        true => Outcome::Done(Box::new(Finding::read(folder)?)),
        false => Outcome::Missing,
    };
    let digest = match &outcome {
        Outcome::Done(finding) => finding.provenance.config_sha256.clone(),
        _ => None,
    };
    Ok(Some(Cell {
        model: subject.model,
        task: subject.task,
        method: subject.method,
        seed,
        digest: digest.unwrap_or_default(),
        outcome,
    }))
}

/// The last part of a path, as a name.
pub fn file_name(path: &Path) -> String {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let name = whole.file_name().map(|name| name.to_string_lossy().into_owned());
    name.filter(|name| name != "..").unwrap_or_else(|| "runs".into())
}

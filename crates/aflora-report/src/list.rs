//! The runs in a folder, one a line.

use crate::error::{usage, Context, Result};
use crate::words::{seconds as in_words, thousands};
use aflora_record::names::{CONFIG, METRICS};
use aflora_record::settings::{by_key, Subject};
use aflora_record::{Settings, Summary};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where runs lie if nobody says otherwise.
pub const RUNS: &str = "runs";

/// A table of the runs below `folder`: best metric, parameters, time, or that it did not finish;
/// and the settings in which runs of one task, model and method differ.
///
/// # Errors
/// The folder cannot be read; that nothing was run yet is none.
pub fn list(folder: &Path) -> Result<String> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        // However the folder is written.
        Err(e) if e.kind() == ErrorKind::NotFound && is_the_same(folder, RUNS.as_ref()) => {
            return Ok(format!("no runs yet: `aflora run` writes them to {RUNS}/\n"))
        }
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            usage!("{}: there is no such folder", folder.display())
        }
        Err(e) => return Err(e).with_context(|| format!("{} cannot be read", folder.display())),
    };
    let mut runs: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    runs.retain(|path| path.join(CONFIG).is_file());
    runs.sort();
    if runs.is_empty() {
        return Ok(format!(
            "no runs in {}\n",
            aflora_files::printable_line(&folder.display().to_string())
        ));
    }
    let mut rows =
        vec![["run", "best", "epoch", "parameters", "training", "device", "settings"]
            .map(String::from)];
    for (run, settings) in runs.iter().zip(distinct(&runs)) {
        let name = run.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let [best, epoch, parameters, training, device] = match Summary::read(run) {
            Ok(summary) => results(&summary),
            Err(error) => {
                let why = match error.is_missing() {
                    true => "not finished".to_string(),
                    false => format!("its {METRICS} is damaged"),
                };
                [why, String::new(), String::new(), String::new(), String::new()]
            }
        };
        rows.push([name, best, epoch, parameters, training, device, settings]);
    }
    // What no run has takes no column.
    let columns: Vec<usize> =
        (0..7).filter(|&i| rows.iter().skip(1).any(|row| !row[i].is_empty())).collect();
    for cell in rows.iter_mut().flatten() {
        *cell = aflora_files::printable_line(cell).into_owned();
    }
    let widths: Vec<usize> =
        (0..7).map(|i| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &[String; 7]| {
        let cells: Vec<String> =
            columns.iter().map(|&i| format!("{:1$}", row[i], widths[i])).collect();
        cells.join("  ").trim_end().to_string() + "\n"
    };
    Ok(rows.iter().map(line).collect())
}

fn is_the_same(one: &Path, other: &Path) -> bool {
    matches!((std::path::absolute(one), std::path::absolute(other)), (Ok(a), Ok(b)) if a == b)
}

/// What a run's configuration says.
struct Described {
    subject: Subject,
    seed: u64,
    /// By their keys with dots; places are left out.
    settings: BTreeMap<String, Value>,
}

impl Described {
    fn read(run: &Path) -> Option<Self> {
        let settings = Settings::read(run).ok()?;
        let (subject, seed) = (settings.subject()?, settings.seed()?);
        Some(Described { subject, seed, settings: by_key(&settings.deciding()) })
    }
}

/// What tells each run from the others: what it ran, where its folder's name does not say, and
/// the settings that differ between runs of one task, model and method.
fn distinct(runs: &[PathBuf]) -> Vec<String> {
    let all: Vec<Option<Described>> = runs.iter().map(|run| Described::read(run)).collect();
    let mut alike: BTreeMap<&Subject, Vec<&BTreeMap<String, Value>>> = BTreeMap::new();
    for run in all.iter().flatten() {
        alike.entry(&run.subject).or_default().push(&run.settings);
    }
    let tell = |(path, run): (&PathBuf, &Option<Described>)| {
        let Some(Described { subject, seed, settings: own }) = run else {
            return format!("its {CONFIG} is damaged");
        };
        let (others, name) = (&alike[subject], subject.run_name(*seed));
        let keys: BTreeSet<&String> = others.iter().copied().flat_map(BTreeMap::keys).collect();
        let named = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&name));
        let differs = |key: &&&String| {
            let said = named && key.as_str() == "seed";
            !said && others.iter().any(|other| other.get(**key) != own.get(**key))
        };
        let shown = |key: &String| match own.get(key) {
            None => format!("no {key}"),
            Some(Value::String(text)) => format!("{key}={text}"),
            Some(value) => format!("{key}={value}"),
        };
        let settings = keys.iter().filter(differs).map(|key| shown(key));
        (!named).then_some(name).into_iter().chain(settings).collect::<Vec<_>>().join(" ")
    };
    runs.iter().zip(&all).map(tell).collect()
}

fn results(summary: &Summary) -> [String; 5] {
    let Summary { selection, best, parameters, seconds, device, .. } = summary;
    [
        best.metric(&selection.metric)
            .map_or("undefined".into(), |value| format!("{} {value:.4}", selection.metric)),
        best.epochs(),
        thousands(parameters.time_average.round() as i64),
        in_words(seconds.training),
        device.clone(),
    ]
}

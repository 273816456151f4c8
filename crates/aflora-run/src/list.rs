//! The runs in a folder, one a line.

use crate::config::{self, Resolved};
use crate::experiment::runner::absolute;
use crate::run::folder::{read_json, CONFIG, METRICS};
use crate::usage;
use anyhow::{Context, Result};
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
        Err(e)
            if e.kind() == ErrorKind::NotFound && absolute(folder) == absolute(RUNS.as_ref()) =>
        {
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
        let [best, epoch, parameters, training, device] = match read_json(&run.join(METRICS)) {
            Ok(metrics) => results(&metrics),
            // Another program's file, or damaged: each of its values is told to be unknown.
            Err(error) if error.kind() != ErrorKind::NotFound => results(&Value::Null),
            Err(_) => ["not finished", "", "", "", ""].map(String::from),
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

/// What tells each run from the others: what it ran, where its folder's name does not say, and
/// the settings that differ between runs of one task, model and method.
fn distinct(runs: &[PathBuf]) -> Vec<String> {
    let read = |run: &PathBuf| config::load(&run.join(CONFIG), &[]).ok();
    let resolved: Vec<Option<Resolved>> = runs.iter().map(read).collect();
    let kind =
        |run: &Resolved| (run.task.task.clone(), run.model.model.clone(), run.method_name.clone());
    let mut alike: BTreeMap<_, Vec<BTreeMap<String, Value>>> = BTreeMap::new();
    for run in resolved.iter().flatten() {
        alike.entry(kind(run)).or_default().push(run.settings_by_key());
    }
    let tell = |(path, run): (&PathBuf, &Option<Resolved>)| {
        let Some(run) = run else { return "its config.yaml is damaged".to_string() };
        let own = run.settings_by_key();
        let others = &alike[&kind(run)];
        let keys: BTreeSet<&String> = others.iter().flat_map(BTreeMap::keys).collect();
        let named = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&run.name()));
        let differs = |key: &&&String| {
            let said = named && key.as_str() == "seed";
            !said && others.iter().any(|other| other.get(**key) != own.get(**key))
        };
        let shown = |key: &String| match own.get(key) {
            None => format!("no {key}"),
            Some(Value::String(text)) => format!("{key}={text}"),
            Some(value) => format!("{key}={value}"),
        };
        let what = (!named).then(|| run.name());
        let settings = keys.iter().filter(differs).map(|key| shown(key));
        what.into_iter().chain(settings).collect::<Vec<_>>().join(" ")
    };
    runs.iter().zip(&resolved).map(tell).collect()
}

fn results(metrics: &Value) -> [String; 5] {
    let number = |path: &str| metrics.pointer(path).and_then(Value::as_f64);
    let text =
        |path: &str| metrics.pointer(path).and_then(Value::as_str).unwrap_or("?").to_string();
    let selection = text("/selection");
    let best = number(&format!("/best/metrics/{selection}"));
    [
        best.map_or("undefined".into(), |b| format!("{selection} {b:.4}")),
        number("/best/epoch").map_or("?".into(), |e| e.to_string()),
        number("/parameters/time_average").map_or("?".into(), |p| crate::ui::thousands(p as i64)),
        number("/seconds/training").map_or("?".into(), crate::ui::seconds),
        text("/device"),
    ]
}

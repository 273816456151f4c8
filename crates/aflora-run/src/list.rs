//! The runs in a folder, one a line.

use crate::run::folder::{read_json, CONFIG, METRICS};
use aflora_files::printable_line;
use anyhow::{Context, Result};
use serde_json::Value;
use std::io::ErrorKind;
use std::path::Path;

/// A table of the runs below `folder`: best metric, parameters, time, or that it did not finish.
pub fn list(folder: &Path) -> Result<String> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("{}: there are no runs", folder.display()))?;
    let mut runs: Vec<_> = entries.flatten().map(|e| e.path()).collect();
    runs.retain(|path| path.join(CONFIG).is_file());
    runs.sort();
    let mut rows =
        vec![["run", "best", "epoch", "parameters", "training", "device"].map(String::from)];
    for run in &runs {
        let name = run.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        rows.push(match read_json(&run.join(METRICS)) {
            Ok(metrics) => row(name, &metrics),
            // Another program's file, or damaged: each of its values is told to be unknown.
            Err(error) if error.kind() != ErrorKind::NotFound => row(name, &Value::Null),
            Err(_) => [name, "not finished".into(), "".into(), "".into(), "".into(), "".into()],
        });
    }
    for cell in rows.iter_mut().flatten() {
        *cell = printable_line(cell).into_owned();
    }
    let widths: Vec<usize> =
        (0..6).map(|i| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &[String; 6]| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_string() + "\n"
    };
    Ok(rows.iter().map(line).collect())
}

fn row(name: String, metrics: &Value) -> [String; 6] {
    let number = |path: &str| metrics.pointer(path).and_then(Value::as_f64);
    let text =
        |path: &str| metrics.pointer(path).and_then(Value::as_str).unwrap_or("?").to_string();
    let selection = text("/selection");
    let best = number(&format!("/best/metrics/{selection}"));
    [
        name,
        best.map_or("undefined".into(), |b| format!("{selection} {b:.4}")),
        number("/best/epoch").map_or("?".into(), |e| e.to_string()),
        number("/parameters/time_average").map_or("?".into(), |p| crate::ui::thousands(p as i64)),
        number("/seconds/training").map_or("?".into(), crate::ui::seconds),
        text("/device"),
    ]
}

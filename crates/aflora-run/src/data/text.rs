//! Tasks that ask for text: their table, and their files, JSONL or parquet with a column for what
//! is given and one for what is wanted.

use super::bounded::Bounded;
use super::locate::{Passed, Source};
use super::table::{Format, Table};
use super::{parquet, DataError};
use crate::hub::{Hub, Repo};
use crate::provenance::sha256;
use ::parquet::record::{Field, Row};
use aflora_files as files;
use std::path::{Path, PathBuf};

/// All that is particular to a task that asks for text.
#[derive(Debug, PartialEq)]
pub struct TextSpec {
    /// The name in configurations; also that of its folder.
    pub name: &'static str,
    /// The column of what is given.
    pub input: &'static str,
    /// The column of what is wanted.
    pub target: &'static str,
    /// The evaluation split: its name, which is its file's too.
    pub eval: &'static str,
    /// Where it lies on the hub.
    pub hub: Option<HubFiles>,
    /// A small one that ships with the project, below it.
    pub shipped: Option<&'static str>,
}

/// A task's parquet files on the hub.
#[derive(Debug, PartialEq)]
pub struct HubFiles {
    /// `owner/name`.
    pub repo: &'static str,
    /// The commit.
    pub revision: &'static str,
    /// The training split's files.
    pub train: &'static [&'static str],
    /// The evaluation split's files.
    pub eval: &'static [&'static str],
}

/// Every task that asks for text.
pub static TEXT_TASKS: &[TextSpec] = &[
    TextSpec {
        name: "gsm8k",
        input: "question",
        target: "answer",
        eval: "test",
        hub: Some(HubFiles {
            repo: "openai/gsm8k",
            revision: "e53f048856ff4f594e959d75785d2c2d37b678ee",
            train: &["main/train-00000-of-00001.parquet"],
            eval: &["main/test-00000-of-00001.parquet"],
        }),
        shipped: None,
    },
    TextSpec {
        name: "cnn_dailymail",
        input: "article",
        target: "highlights",
        eval: "validation",
        hub: Some(HubFiles {
            repo: "abisee/cnn_dailymail",
            revision: "96df5e686bee6baa90b8bee7c28b81fa3fa6223d",
            train: &[
                "3.0.0/train-00000-of-00003.parquet",
                "3.0.0/train-00001-of-00003.parquet",
                "3.0.0/train-00002-of-00003.parquet",
            ],
            eval: &["3.0.0/validation-00000-of-00001.parquet"],
        }),
        shipped: None,
    },
    TextSpec {
        name: "lines",
        input: "input",
        target: "target",
        eval: "dev",
        hub: None,
        shipped: Some("configs/tasks/lines"),
    },
];

/// One example: what is given, and what should be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// What is given.
    pub input: String,
    /// What is wanted.
    pub target: String,
}

/// A task's examples.
#[derive(Debug)]
pub struct TextDataset {
    /// The training split.
    pub train: Vec<Pair>,
    /// The evaluation split's name and rows.
    pub eval: (String, Vec<Pair>),
    /// Where they came from.
    pub sources: Vec<Source>,
}

/// Looks for a task's files in folders that the user named, in the hub's cache, on the hub, and
/// in what ships with the project.
///
/// # Errors
/// They are nowhere (everything tried is listed), incomplete, empty or damaged.
pub fn load(
    spec: &'static TextSpec,
    named: &[(String, PathBuf)],
    project: &Path,
    hub: &Hub,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<TextDataset, DataError> {
    let mut passed = Passed::default();
    for (how, folder) in named {
        for place in [folder.join(spec.name), folder.clone()] {
            if let Some(train) = split_file(&place, "train") {
                let eval = split_file(&place, spec.eval).ok_or_else(|| {
                    let (eval, jsonl) = (spec.eval, format!("{}.jsonl", spec.eval));
                    let missing = format!(
                        "the training split is here, but neither {jsonl} nor {eval}.parquet"
                    );
                    DataError::incomplete(&place, missing)
                })?;
                return read(spec, &[train], &[eval]);
            }
        }
        let (name, eval) = (spec.name, spec.eval);
        let missing = || format!("no train.jsonl and {eval}.jsonl in it or in its {name}/");
        passed.over(how, folder, missing);
    }
    let mut tried = passed.to_string();
    if let Some(files) = &spec.hub {
        let repo = Repo { repo: files.repo.into(), revision: files.revision.into(), dataset: true };
        let mut get = |names: &[&str]| -> Result<Vec<PathBuf>, DataError> {
            names
                .iter()
                .map(|name| {
                    hub.get(&repo, name, progress).map_err(|error| {
                        let cached = hub.cached(&repo, name);
                        tried.push_str(&format!("\n  {} (the hub's cache)", cached.display()));
                        tried.push_str(&format!("\n  {error} (the hub)"));
                        not_found(spec, &tried)
                    })
                })
                .collect()
        };
        let dataset = read(spec, &get(files.train)?, &get(files.eval)?)?;
        passed.tell(spec.name, &dataset.sources);
        return Ok(dataset);
    }
    if let Some(folder) = spec.shipped.filter(|_| named.is_empty()) {
        let place = project.join(folder);
        if let (Some(train), Some(eval)) =
            (split_file(&place, "train"), split_file(&place, spec.eval))
        {
            return read(spec, &[train], &[eval]);
        }
        tried.push_str(&format!("\n  {}/train.jsonl", place.display()));
    }
    Err(not_found(spec, &tried))
}

fn not_found(spec: &TextSpec, tried: &str) -> DataError {
    DataError::NotFound {
        task: spec.name,
        tried: tried.to_string(),
        remedy: format!(
            "Name a folder that holds {0}/train.jsonl and {0}/{1}.jsonl, objects with `{2}` and \
             `{3}`, one a line (or .parquet with these columns), with DATA=folder, data=folder or \
             the environment variable AFLORA_DATA.",
            spec.name, spec.eval, spec.input, spec.target
        ),
    }
}

fn split_file(folder: &Path, split: &str) -> Option<PathBuf> {
    ["jsonl", "parquet"]
        .map(|e| folder.join(format!("{split}.{e}")))
        .into_iter()
        .find(|p| p.is_file())
}

fn read(
    spec: &'static TextSpec,
    train: &[PathBuf],
    eval: &[PathBuf],
) -> Result<TextDataset, DataError> {
    let mut sources = Vec::new();
    let mut all = |split: &str, paths: &[PathBuf]| {
        let mut rows = Vec::new();
        for path in paths {
            let more = read_file(path, spec)?;
            let sha256 = sha256(path).map_err(DataError::io(path))?;
            let (split, path) = (split.to_string(), path.clone());
            sources.push(Source { split, path, sha256, rows: more.len(), skipped: 0 });
            rows.extend(more);
        }
        Ok::<_, DataError>(rows)
    };
    let (train, rows) = (all("train", train)?, all(spec.eval, eval)?);
    Ok(TextDataset { train, eval: (spec.eval.to_string(), rows), sources })
}

/// The rows of one file.
fn read_file(path: &Path, spec: &TextSpec) -> Result<Vec<Pair>, DataError> {
    let rows = match path.extension().and_then(|e| e.to_str()) {
        Some("parquet") => parquet_rows(path, spec),
        _ => jsonl_rows(path, spec),
    }?;
    if rows.is_empty() {
        return Err(DataError::Empty { place: path.display().to_string() });
    }
    Ok(rows)
}

fn jsonl_rows(path: &Path, spec: &TextSpec) -> Result<Vec<Pair>, DataError> {
    let file = files::open(path).map_err(DataError::io(path))?;
    let mut table = Table::new(Bounded::new(file), path, Format::Jsonl, |_| true)?;
    let mut rows = Vec::new();
    while let Some(row) = table.read()? {
        let text = |name: &str| row.text(name).map_err(|problem| table.problem(row.line, problem));
        rows.push(Pair { input: text(spec.input)?, target: text(spec.target)? });
    }
    Ok(rows)
}

fn parquet_rows(path: &Path, spec: &TextSpec) -> Result<Vec<Pair>, DataError> {
    parquet::rows(path, |row| {
        let text = |name: &str| text_column(row, name);
        Ok(Pair { input: text(spec.input)?, target: text(spec.target)? })
    })
}

fn text_column(row: &Row, name: &str) -> Result<String, String> {
    match row.get_column_iter().find(|(column, _)| *column == name) {
        Some((_, Field::Str(text))) => Ok(text.clone()),
        Some((_, other)) => Err(format!("column `{name}` holds {other}, but must hold text")),
        None => Err(format!("there is no column `{name}`")),
    }
}

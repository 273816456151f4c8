//! Where a result comes from: what ran, on what, from which files (`provenance.json`).

use crate::error::Result;
use crate::json;
use crate::names::PROVENANCE;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Everything that a run's result comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// The program and the machine.
    pub environment: Environment,
    /// SHA-256 of the run's configuration; results leave it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_sha256: Option<String>,
    /// Where it computed.
    pub device: String,
    /// How many processes trained together.
    #[serde(skip_serializing_if = "is_one")]
    pub processes: usize,
    /// Files that examples came from.
    pub data: Vec<DataFile>,
    /// Files that weights came from.
    pub weights: Vec<WeightFile>,
    /// Every further start; results leave it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Vec<Resumed>>,
    /// What another version wrote, too: it stays where a run goes on.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// The program and the machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// Version of aflora.
    pub aflora: String,
    /// Commit that it was built from, where it was built in a repository.
    pub commit: Option<String>,
    /// Version of libtorch that tch is made for.
    pub libtorch: String,
    /// The command line; results leave it out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Operating system and processor family.
    pub platform: String,
    /// The processor's name, where the system tells it.
    pub processor: Option<String>,
    /// Processors that the process may use.
    pub processors: usize,
    /// Seconds since 1970 at the start.
    pub started_unix: u64,
}

/// A file that examples came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// `train` or the evaluation split's name.
    pub split: String,
    /// The file.
    pub path: PathBuf,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// Examples taken from it.
    pub rows: usize,
    /// Broken rows that were passed over.
    #[serde(default)]
    pub skipped: usize,
}

/// A file that weights came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightFile {
    /// The file.
    pub path: PathBuf,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// A further start of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resumed {
    /// Completed steps from which it went on.
    pub step: u64,
    /// Where it computed.
    pub device: String,
    /// How many processes trained together.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub processes: usize,
    /// The program and the machine.
    pub environment: Environment,
}

fn one() -> usize {
    1
}

fn is_one(processes: &usize) -> bool {
    *processes == 1
}

impl Default for Provenance {
    fn default() -> Self {
        Provenance {
            environment: Environment::default(),
            config_sha256: None,
            device: String::new(),
            processes: one(),
            data: Vec::new(),
            weights: Vec::new(),
            resumed: None,
            others: Map::new(),
        }
    }
}

impl Provenance {
    /// How many processes trained together since the last start.
    pub fn processes_last(&self) -> usize {
        let last = self.resumed.iter().flatten().next_back();
        last.map_or(self.processes, |last| last.processes)
    }

    /// Reads that of the run in `folder`.
    ///
    /// # Errors
    /// There is none ([`Error::is_missing`](crate::Error::is_missing)), or it is damaged.
    pub fn read(folder: &Path) -> Result<Provenance> {
        json::read(&folder.join(PROVENANCE), "provenance of a run")
    }

    /// Writes it for the run in `folder`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        json::write(&folder.join(PROVENANCE), self)
    }

    /// Without the command line, further starts and all folders: where files lay says nothing on
    /// another machine.
    pub(crate) fn portable(self) -> Provenance {
        let short = |path: PathBuf| PathBuf::from(path.file_name().unwrap_or_default());
        Provenance {
            environment: Environment { command: Vec::new(), ..self.environment },
            device: self.device,
            processes: self.processes,
            data: self.data.into_iter().map(|f| DataFile { path: short(f.path), ..f }).collect(),
            weights: self
                .weights
                .into_iter()
                .map(|f| WeightFile { path: short(f.path), ..f })
                .collect(),
            ..Provenance::default()
        }
    }
}

impl Environment {
    /// The version and the commit of the program, where they are known.
    pub fn program(&self) -> Option<String> {
        let commit = self.commit.as_ref().map_or(String::new(), |commit| format!(" ({commit})"));
        (!self.aflora.is_empty()).then(|| format!("aflora {}{commit}", self.aflora))
    }
}

/// What wrote the files of the run in `folder`, where that is known.
pub(crate) fn writer(folder: &Path) -> Option<String> {
    Provenance::read(folder).ok()?.environment.program()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn portable_provenance_names_no_folder() {
        let provenance = json!({
            "environment": {"aflora": "0.1.0", "command": ["/home/me/aflora"]},
            "device": "cpu",
            "data": [{"split": "train", "path": "/home/me/train.tsv", "sha256": "00", "rows": 3}],
            "weights": [],
            "resumed": [{"step": 3, "device": "cpu", "environment": {"command": ["/home/me/x"]}}],
            "later": "/home/me",
        });
        let provenance: Provenance = serde_json::from_value(provenance).unwrap();
        let text = serde_json::to_string(&provenance.portable()).unwrap();
        assert!(!text.contains("/home") && text.contains("train.tsv"), "{text}");
        assert!(text.contains("\"aflora\":\"0.1.0\""), "{text}");
    }

    #[test]
    fn what_a_later_version_wrote_stays_where_a_run_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"device":"cpu","later":{"a":[1]},"resumed":[]}"#;
        std::fs::write(folder.path().join(PROVENANCE), text).unwrap();
        let found = Provenance::read(folder.path()).unwrap();
        found.write(folder.path()).unwrap();
        let again: Value = json::read(&folder.path().join(PROVENANCE), "value").unwrap();
        assert_eq!(again["later"]["a"][0], 1);
    }
}

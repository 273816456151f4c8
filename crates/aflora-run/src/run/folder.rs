//! A run's folder: what it holds, and when it counts as finished.
//!
//! | file | written |
//! |---|---|
//! | `config.yaml` | at the start: the resolved configuration; `aflora run` takes it again |
//! | `provenance.json` | at the start: versions, device, data and weights with their digests |
//! | `events.jsonl` | while it runs: steps, freeze tests, evaluations |
//! | `events.out.tfevents.*` | while it runs: the same scalars for TensorBoard |
//! | `adapter/` | at each evaluation that is the best so far |
//! | `freeze.csv` | at the end: when each matrix froze |
//! | `metrics.json` | last: a folder without it is not a finished run |

use crate::usage;
use anyhow::{Context, Result};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The file whose presence says that the run ended well.
pub const METRICS: &str = "metrics.json";
/// The resolved configuration.
pub const CONFIG: &str = "config.yaml";

/// A run's own folder.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes the folder that the user named; it must be new or empty.
    pub fn create_named(path: &Path) -> Result<Self> {
        if path.exists() {
            let mut entries = fs::read_dir(path)
                .with_context(|| format!("run_dir {} cannot be read", path.display()))?;
            if entries.next().is_some() {
                usage!(
                    "run_dir {} already holds something; name another one or remove it",
                    path.display()
                );
            }
        }
        Self::make(path)
    }

    /// Makes a folder `name` under `parent`, with a number behind it if that one is taken.
    pub fn create_numbered(parent: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(parent)
            .with_context(|| format!("the folder {} cannot be made", parent.display()))?;
        for number in 1.. {
            let candidate = match number {
                1 => parent.join(name),
                n => parent.join(format!("{name}-{n}")),
            };
            // `create_dir` fails where another process was faster: then the next number.
            match fs::create_dir(&candidate) {
                Ok(()) => return Self::make(&candidate),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => {
                    return Err(e).with_context(|| {
                        format!("the run folder {} cannot be made", candidate.display())
                    })
                }
            }
        }
        unreachable!("the numbers do not end")
    }

    fn make(path: &Path) -> Result<Self> {
        fs::create_dir_all(path)
            .with_context(|| format!("the run folder {} cannot be made", path.display()))?;
        Ok(RunFolder { path: path.to_path_buf() })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file that appears whole or not at all.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let target = self.path.join(name);
        let temporary = self.path.join(format!(".{name}.tmp"));
        let write = || -> std::io::Result<()> {
            let mut file = fs::File::create(&temporary)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&temporary, &target)
        };
        write().with_context(|| format!("{} cannot be written", target.display()))
    }

    /// [`write`](Self::write) as indented JSON.
    pub fn write_json(&self, name: &str, value: &impl serde::Serialize) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(value)?;
        text.push(b'\n');
        self.write(name, &text)
    }
}

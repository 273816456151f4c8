//! An experiment file: which models, tasks, methods and seeds, and how to show what comes out.
//!
//! ```yaml
//! title: "Table 4: projection matrices frozen, trainable, adaptively frozen"
//! models: [deberta-v3-base]
//! tasks: [cola, rte]
//! seeds: [0, 1, 2]
//! reference: aflora
//! methods:
//!   - {method: aflora-frozen, label: PM frozen, paper: {cola: 70.36}}
//!   - {method: aflora, set: {lr: 5e-3}}
//! show: [table, differences]
//! ```
//!
//! A *profile* (`profiles/<name>.yaml` beside the experiment file) puts other models, tasks, seeds
//! and settings in place, for every experiment alike; `paper` is the file as it stands.

use super::results::{Claim, View};
use crate::{usage, UsageError};
use anyhow::Result;
use serde::de::DeserializeOwned;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Settings of runs by key with dots, as `key=value` on the command line.
pub type Set = BTreeMap<String, Value>;

/// The most bytes of an experiment file or a profile: fifty times the longest here.
const MOST_BYTES: u64 = 256 << 10;

/// The most methods of an experiment, each variant counted.
const MOST_METHODS: usize = 10_000;

/// The profile that changes nothing.
pub const PAPER: &str = "paper";

/// An experiment file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// What it is, in a line.
    pub title: String,
    /// What it asks and how, in Markdown.
    #[serde(default)]
    pub about: String,
    /// Models, by their names in configs/models.
    pub models: Vec<String>,
    /// Tasks, by their names in configs/tasks.
    pub tasks: Vec<String>,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// Methods and their variants.
    pub methods: Vec<Entry>,
    /// Settings of every run.
    #[serde(default)]
    pub set: Set,
    /// The metric to show of a task, where it is not the one that chooses the epoch.
    #[serde(default)]
    pub metrics: BTreeMap<String, String>,
    /// How to show what comes out.
    pub show: Vec<View>,
    /// The method that all others are compared with.
    #[serde(default)]
    pub reference: Option<String>,
    /// What the paper says should come out.
    #[serde(default)]
    pub claims: Vec<Claim>,
}

/// A method, or a variant of one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The block, by its name in configs/methods.
    pub method: String,
    /// Its name in results; by itself the block's.
    #[serde(default)]
    pub name: Option<String>,
    /// What people read; by itself the name.
    #[serde(default)]
    pub label: Option<String>,
    /// Settings of its runs.
    #[serde(default)]
    pub set: Set,
    /// Values to try for one setting or more: each combination is a variant of its own.
    #[serde(default)]
    pub sweep: BTreeMap<String, Vec<Value>>,
    /// The paper's values.
    #[serde(default)]
    pub paper: BTreeMap<String, f64>,
}

/// What a profile puts in place.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// Which model stands in for which.
    pub models: BTreeMap<String, String>,
    /// The tasks to keep; all if not given.
    pub tasks: Option<Vec<String>>,
    /// Seeds; the experiment's if not given.
    pub seeds: Option<Vec<u64>>,
    /// Settings of every run.
    pub set: Set,
    /// Settings by task.
    pub tasks_set: BTreeMap<String, Set>,
    /// Settings by method block.
    pub methods_set: BTreeMap<String, Set>,
}

impl Definition {
    /// Reads an experiment file.
    ///
    /// # Errors
    /// It cannot be read, or says something that an experiment file cannot say.
    pub fn read(path: &Path) -> Result<Self> {
        let mut definition: Definition = read(path, "experiment file")?;
        check_size(&definition, path)?;
        definition.methods = definition.methods.iter().flat_map(Entry::variants).collect();
        for (what, empty) in [
            ("models", definition.models.is_empty()),
            ("tasks", definition.tasks.is_empty()),
            ("seeds", definition.seeds.is_empty()),
            ("methods", definition.methods.is_empty()),
        ] {
            if empty {
                usage!("{}: `{what}` is empty; name at least one", path.display());
            }
        }
        let names: Vec<&str> = definition.methods.iter().map(Entry::name).collect();
        for (i, name) in names.iter().enumerate() {
            if names[..i].contains(name) {
                usage!("{}: two methods are called `{name}`; give one a `name`", path.display());
            }
        }
        let claimed = definition.claims.iter().flat_map(|claim| &claim.order);
        for name in claimed.chain(&definition.reference) {
            if !names.contains(&name.as_str()) {
                usage!("{}: `{name}` is none of its methods: {}", path.display(), names.join(", "));
            }
        }
        Ok(definition)
    }

    /// The profile of that name for the experiment file at `path`.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn profile(path: &Path, name: &str) -> Result<Profile> {
        if name == PAPER {
            return Ok(Profile::default());
        }
        let folder = path.parent().unwrap_or(Path::new("")).join("profiles");
        if name.contains(['/', '\\']) || !folder.join(format!("{name}.yaml")).is_file() {
            let files = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            let mut known: Vec<String> = files
                .filter_map(|f| Some(f.file_name().to_str()?.strip_suffix(".yaml")?.to_string()))
                .collect();
            known.push(PAPER.into());
            known.sort();
            usage!(
                "there is no profile `{name}` in {}; known: {}",
                folder.display(),
                known.join(", ")
            );
        }
        read(&folder.join(format!("{name}.yaml")), "profile")
    }
}

impl Entry {
    /// The name in results.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.method)
    }

    /// One entry for each combination of the values to try; itself if there are none.
    fn variants(&self) -> Vec<Entry> {
        let mut variants = vec![Entry { sweep: BTreeMap::new(), ..self.clone() }];
        for (key, values) in &self.sweep {
            let with = |entry: &Entry, value: &Value| {
                let said = format!("{key}={}", said(value));
                let mut set = entry.set.clone();
                set.insert(key.clone(), value.clone());
                let label = entry.label.as_deref().unwrap_or(entry.name());
                Entry {
                    name: Some(format!("{} {said}", entry.name())),
                    label: Some(format!("{label}, {said}")),
                    set,
                    ..entry.clone()
                }
            };
            variants = variants
                .iter()
                .flat_map(|entry| values.iter().map(move |value| with(entry, value)))
                .collect();
        }
        variants
    }
}

/// Refuses sweeps of more variants than anybody runs, before they are made: some lines can ask for
/// more than any memory holds.
fn check_size(definition: &Definition, path: &Path) -> Result<()> {
    let variants = |entry: &Entry| {
        let mut lengths = entry.sweep.values().map(|values| values.len().max(1));
        lengths.try_fold(1usize, usize::checked_mul)
    };
    let mut each = definition.methods.iter().map(variants);
    let all = each.try_fold(0usize, |sum, variants| sum.checked_add(variants?));
    if all.is_none_or(|all| all > MOST_METHODS) {
        usage!(
            "{}: its methods and the combinations of their sweeps are {}, and {MOST_METHODS} at \
             most can be laid out; sweep fewer settings at once",
            path.display(),
            all.map_or("more than can be counted".into(), |all| all.to_string())
        );
    }
    Ok(())
}

/// A value as it is written on the command line.
pub fn said(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            // 0.0005 reads better as 5e-4.
            Some(x) if x != 0.0 && x.abs() < 0.01 => format!("{x:e}"),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

fn read<T: DeserializeOwned>(path: &Path, what: &str) -> Result<T> {
    let text = aflora_files::read_text_at_most(path, MOST_BYTES)
        .map_err(|error| UsageError(format!("the {what} {}: {error}", path.display())))?;
    serde_saphyr::from_str(&text)
        .map_err(|error| UsageError(format!("the {what} {}: {error}", path.display())).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_to_try_make_a_variant_for_each_combination() {
        let entry: Entry = serde_saphyr::from_str(
            "{method: lora, label: LoRA, set: {epochs: 3}, sweep: {lr: [5e-4, 1e-2], method.rank: [4, 8]}}",
        )
        .unwrap();
        let names: Vec<String> = entry.variants().iter().map(|v| v.name().to_string()).collect();
        assert_eq!(
            names,
            [
                "lora lr=5e-4 method.rank=4",
                "lora lr=5e-4 method.rank=8",
                "lora lr=0.01 method.rank=4",
                "lora lr=0.01 method.rank=8"
            ]
        );
        assert!(entry.variants().iter().all(|v| v.set["epochs"] == 3 && v.method == "lora"));
    }
}

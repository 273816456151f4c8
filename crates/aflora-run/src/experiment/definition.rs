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
//!
//! All that is wrong in either is collected and told at once, as in a configuration.

use super::fields::{self, said};
use crate::config::Problem;
use aflora_record::results::{Claim, View, PAPER};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// Settings of runs by key with dots, as `key=value` on the command line.
pub type Set = BTreeMap<String, Value>;

/// The most methods of an experiment, each variant counted.
const MOST_METHODS: usize = 10_000;

/// Lists that lay out cells, of an experiment file and of a profile.
const LISTS: [&str; 3] = ["models", "tasks", "seeds"];

/// An experiment file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
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
    pub methods: Vec<MethodEntry>,
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
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MethodEntry {
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
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// Which model stands in for which.
    pub models: BTreeMap<String, String>,
    /// The tasks to keep; all if not given.
    pub tasks: Option<Vec<String>>,
    /// Seeds in place of the experiment's, at most as many as that has; its own if not given.
    pub seeds: Option<Vec<u64>>,
    /// Settings of every run.
    pub set: Set,
    /// Settings by task.
    pub tasks_set: BTreeMap<String, Set>,
    /// Settings by method block, and by the name of a variant of one, which come later.
    pub methods_set: BTreeMap<String, Set>,
}

impl Definition {
    /// Reads an experiment file; what is wrong with it goes to `problems`.
    pub fn read(path: &Path, problems: &mut Vec<Problem>) -> Self {
        let before = problems.len();
        let mut fields = fields::of_file(path, problems);
        if problems.len() > before && fields.is_empty() {
            // What cannot be read at all misses nothing.
            return Definition::default();
        }
        let required = ["title", "models", "tasks", "seeds", "methods", "show"];
        let missing = required.map(|key| (key, fields.iter().any(|field| field.is(key))));
        let repeated = fields::repeated(&fields, &LISTS);
        let methods: Vec<MethodEntry> =
            fields::items(&mut fields, "methods", &["method"], path, problems);
        let claims = fields::items(&mut fields, "claims", &["says", "order"], path, problems);
        let mut definition: Definition = fields::overlay(fields, &[], problems);
        let too_many = too_many(&methods);
        if too_many.is_none() {
            definition.methods = methods.iter().flat_map(MethodEntry::variants).collect();
        }
        definition.claims = claims;
        // What was given and could not be read is told already.
        let whole = problems.len() == before && too_many.is_none();
        let mut say = |message: String| {
            problems.push(Problem::at(None, format!("{}: {message}", path.display())));
        };
        too_many.into_iter().for_each(&mut say);
        for (key, given) in missing {
            let empty = match key {
                "models" => definition.models.is_empty(),
                "tasks" => definition.tasks.is_empty(),
                "seeds" => definition.seeds.is_empty(),
                "methods" => definition.methods.is_empty(),
                _ => false,
            };
            match given {
                false => say(format!("`{key}` is missing")),
                true if whole && empty => say(format!("`{key}` is empty; name at least one")),
                true => {}
            }
        }
        problems.extend(repeated);
        let mut say = |message: String| {
            problems.push(Problem::at(None, format!("{}: {message}", path.display())));
        };
        let mut names = HashSet::new();
        for entry in &definition.methods {
            if !names.insert(entry.name()) {
                say(format!("two methods are called `{}`; give one a `name`", entry.name()));
            }
        }
        let claimed = definition.claims.iter().flat_map(|claim| &claim.order);
        for name in claimed.chain(&definition.reference).filter(|_| whole) {
            if !names.contains(name.as_str()) {
                let known: Vec<&str> = definition.methods.iter().map(MethodEntry::name).collect();
                say(format!("`{name}` is none of its methods: {}", known.join(", ")));
            }
        }
        definition
    }

    /// The profile of that name for the experiment file at `path`; what is wrong with it goes to
    /// `problems`.
    pub fn profile(path: &Path, name: &str, problems: &mut Vec<Problem>) -> Profile {
        if name == PAPER {
            return Profile::default();
        }
        let folder = path.parent().unwrap_or(Path::new("")).join("profiles");
        let file = folder.join(format!("{name}.yaml"));
        if name.contains(['/', '\\']) || !file.is_file() {
            let files = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            let mut known: Vec<String> = files
                .filter_map(|f| Some(f.file_name().to_str()?.strip_suffix(".yaml")?.to_string()))
                .collect();
            known.push(PAPER.into());
            known.sort();
            let message = format!("there is no profile `{name}` in {}", folder.display());
            let problem = Problem::at(None, message);
            problems.push(problem.help(format!("known: {}", known.join(", "))));
            return Profile::default();
        }
        let fields = fields::of_file(&file, problems);
        problems.extend(fields::repeated(&fields, &LISTS));
        fields::overlay(fields, &[], problems)
    }
}

impl MethodEntry {
    /// The name in results.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.method)
    }

    /// One entry for each combination of the values to try; itself if there are none.
    fn variants(&self) -> Vec<MethodEntry> {
        let mut variants = vec![MethodEntry { sweep: BTreeMap::new(), ..self.clone() }];
        for (key, values) in &self.sweep {
            let with = |entry: &MethodEntry, value: &Value| {
                let said = format!("{key}={}", said(value));
                let mut set = entry.set.clone();
                set.insert(key.clone(), value.clone());
                let label = entry.label.as_deref().unwrap_or(entry.name());
                MethodEntry {
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

/// What to say of sweeps of more variants than anybody runs, before they are made: some lines can
/// ask for more than any memory holds.
fn too_many(methods: &[MethodEntry]) -> Option<String> {
    let variants = |entry: &MethodEntry| {
        let mut lengths = entry.sweep.values().map(|values| values.len().max(1));
        lengths.try_fold(1usize, usize::checked_mul)
    };
    let mut each = methods.iter().map(variants);
    let all = each.try_fold(0usize, |sum, variants| sum.checked_add(variants?));
    if all.is_some_and(|all| all <= MOST_METHODS) {
        return None;
    }
    Some(format!(
        "its methods and the combinations of their sweeps are {}, and {MOST_METHODS} at most can \
         be laid out; sweep fewer settings at once",
        all.map_or("more than can be counted".into(), |all| all.to_string())
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_to_try_make_a_variant_for_each_combination() {
        let entry: MethodEntry = serde_saphyr::from_str(
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

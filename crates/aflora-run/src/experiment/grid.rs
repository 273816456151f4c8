//! From an experiment file to its cells: one run for each model, task, method and seed.
//!
//! A cell's folder is named after its settings, not after its experiment: experiments that ask for
//! the same run share it, and a changed setting makes another folder.

use super::definition::{Definition, Profile, Set};
use super::fields::said;
use crate::config::{self, ConfigErrors, Problem, Resolved};
use crate::run::location;
use crate::ui::counted;
use crate::usage;
use aflora_record::names::CONFIG;
use aflora_record::results::{twice, Layout, MethodRow, TaskColumn};
use aflora_record::settings::run_name;
use aflora_record::Summary;
use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::hash::Hash;
use std::path::{Path, PathBuf};

/// A run of the grid, resolved.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The row's name.
    pub method: String,
    /// The settings, as `key=value` on top of the run file.
    pub overrides: Vec<String>,
    /// The configuration that they make.
    pub resolved: Resolved,
    /// SHA-256 of the settings that decide the result.
    pub digest: String,
    /// The folder that it was found in, where that is not named after the digest.
    found: Option<String>,
}

impl Planned {
    /// What people call it: `mrpc-minilm-aflora-seed0`, with the row's name for the method.
    pub fn name(&self) -> String {
        let Resolved { task, model, run, .. } = &self.resolved;
        run_name(task.name(), &model.model, &self.method, run.seed)
    }

    /// Whether the run in `folder` ended well with just these settings, as a run that would go on
    /// there asks.
    pub fn is_done(&self, folder: &Path) -> bool {
        let same = || location::differences(folder, &mut self.resolved.clone());
        Summary::read(folder).is_ok() && same().is_ok_and(|differences| differences.is_empty())
    }

    /// The name of its folder: the same for the same settings, whatever the experiment.
    pub fn folder(&self) -> String {
        let named = || format!("{}-{}", self.resolved.name(), &self.digest[..10]);
        self.found.clone().unwrap_or_else(named)
    }
}

/// An experiment with every choice made.
#[derive(Debug)]
pub struct Plan {
    /// The experiment's name: its file's, without `.yaml`.
    pub experiment: String,
    /// The profile's name.
    pub profile: String,
    /// How to show what comes out.
    pub layout: Layout,
    /// Whether this is a part of the grid, or the grid with settings of the command line: not
    /// what the experiment's name stands for.
    pub partial: bool,
    /// The run file that every cell starts from.
    pub run_file: PathBuf,
    /// The cells, in the order in which they run: seed by seed, so that an experiment that was
    /// broken off has whole tables over fewer seeds.
    pub cells: Vec<Planned>,
}

impl Plan {
    /// Finds runs in `runs` that an earlier version named after fewer settings than there are today: by what
    /// the settings in their folders come to now. Cells whose own folder is there keep it.
    pub fn find(&mut self, runs: &Path) {
        let missing = |cell: &Planned| !runs.join(cell.folder()).exists();
        let names: HashSet<String> = self
            .cells
            .iter()
            .filter(|cell| missing(cell))
            .map(|cell| cell.resolved.name())
            .collect();
        let folders = std::fs::read_dir(runs).into_iter().flatten().flatten();
        let mut folders: Vec<String> =
            folders.filter_map(|folder| folder.file_name().into_string().ok()).collect();
        folders.sort();
        folders
            .retain(|folder| folder.rsplit_once('-').is_some_and(|(run, _)| names.contains(run)));
        let digest_of = |folder: &String| {
            config::load(&runs.join(folder).join(CONFIG), &[]).map(|there| digest(&there))
        };
        let known: HashMap<String, String> = folders
            .into_iter()
            .filter_map(|folder| Some((digest_of(&folder).ok()?, folder)))
            .collect();
        for cell in self.cells.iter_mut().filter(|cell| missing(cell)) {
            cell.found = known.get(&cell.digest).cloned();
        }
    }
}

/// The most cells of a grid.
const MOST_CELLS: usize = 100_000;

/// The most bytes of an experiment's and a profile's name together: what is written under them
/// has an ending, and a file's name has 255 at most.
const LONGEST_NAME: usize = 200;

/// What an experiment varies; its own keys are the plurals.
pub const VARIED: [&str; 4] = ["seed", "model", "task", "method"];

/// Keys of the command line that leave an experiment what it is.
const PLACES: [&str; 4] = ["data", "token_cache", "device", "threads"];

/// What is asked for beside the experiment file.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// The profile.
    pub profile: String,
    /// Only cells whose name this matches.
    pub filter: Option<String>,
    /// `key=value`: `seeds`, `tasks`, `models` and `methods` choose cells, all else sets a key in
    /// each.
    pub overrides: Vec<String>,
}

impl Plan {
    /// Lays out the experiment at `path`.
    ///
    /// # Errors
    /// The file, the profile or a cell's configuration is wrong, or nothing is left to run.
    pub fn new(path: &Path, choice: &Choice) -> Result<Self> {
        let mut problems = Vec::new();
        let mut definition = Definition::read(path, &mut problems);
        let profile = Definition::profile(path, &choice.profile, &mut problems);
        if !problems.is_empty() {
            return Err(ConfigErrors::new(problems, path).into());
        }
        let paper_models = definition.models.clone();
        apply(&mut definition, &profile)?;
        let whole = definition.clone();
        let typed = narrow(&mut definition, &choice.overrides)?;
        let key = |typed: &String| typed.split('=').next().unwrap_or_default().trim().to_string();
        let partial = choice.filter.is_some()
            || definition.models != whole.models
            || definition.tasks != whole.tasks
            || definition.methods.len() != whole.methods.len()
            || whole.seeds.iter().any(|seed| !definition.seeds.contains(seed))
            || typed.iter().any(|typed| !PLACES.contains(&key(typed).as_str()));
        let filter = match &choice.filter {
            None => None,
            Some(text) => match regex::Regex::new(text) {
                Ok(regex) => Some(regex),
                Err(error) => usage!("--filter is no regular expression: {error}"),
            },
        };
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        check_size(&definition, &stem, &choice.profile, path)?;
        let run_file = run_file(path)?;
        let mut cells = Vec::new();
        for seed in &definition.seeds {
            for model in &definition.models {
                for task in &definition.tasks {
                    for entry in &definition.methods {
                        let mut overrides = vec![
                            format!("task={task}"),
                            format!("model={model}"),
                            format!("method={}", entry.method),
                            format!("seed={seed}"),
                        ];
                        let sets = [
                            Some(&definition.set),
                            Some(&profile.set),
                            profile.tasks_set.get(task),
                            profile.methods_set.get(&entry.method),
                            // A variant with a name of its own may want another rate.
                            entry.name.as_ref().and_then(|name| profile.methods_set.get(name)),
                            Some(&entry.set),
                        ];
                        overrides.extend(sets.into_iter().flatten().flat_map(assignments));
                        overrides.extend(typed.iter().cloned());
                        let resolved = match config::load(&run_file, &overrides) {
                            Ok(resolved) => resolved,
                            // Other cells may have other mistakes.
                            Err(ConfigErrors(found)) => {
                                let new = |problem: &Problem| !problems.contains(problem);
                                problems.extend(found.into_iter().filter(new).collect::<Vec<_>>());
                                continue;
                            }
                        };
                        let digest = digest(&resolved);
                        let method = entry.name().to_string();
                        let cell = Planned { method, overrides, resolved, digest, found: None };
                        if filter.as_ref().is_none_or(|f| f.is_match(&cell.name())) {
                            cells.push(cell);
                        }
                    }
                }
            }
        }
        if !problems.is_empty() {
            return Err(ConfigErrors::new(problems, &run_file).into());
        }
        if let Some(name) = twice(cells.iter().map(Planned::name)) {
            usage!(
                "{}: {name} stands twice among its cells, and would count twice; has the profile \
                 one model for two, or `set` a seed, a task or a model?",
                path.display()
            );
        }
        if cells.is_empty() {
            usage!("no cell of {} is left to run: --filter matches none", path.display());
        }
        let layout = layout(definition, &cells, paper_models);
        let profile = choice.profile.clone();
        Ok(Plan { experiment: stem, profile, layout, partial, run_file, cells })
    }
}

/// Refuses a grid that is too large to lay out, and a name under which its results could not be
/// written when all has run.
fn check_size(definition: &Definition, stem: &str, profile: &str, path: &Path) -> Result<()> {
    let Definition { seeds, models, tasks, methods, .. } = definition;
    let sides = [seeds.len(), models.len(), tasks.len(), methods.len()];
    let cells = sides.into_iter().try_fold(1usize, usize::checked_mul);
    if cells.is_none_or(|cells| cells > MOST_CELLS) {
        let [seeds, models, tasks, methods] = sides;
        usage!(
            "{}: {} × {} × {} × {} are more cells than {MOST_CELLS}, the most that can be laid \
             out; choose some with `seeds=[…]` and the like",
            path.display(),
            counted(seeds, "seed"),
            counted(models, "model"),
            counted(tasks, "task"),
            counted(methods, "method"),
        );
    }
    if stem.len() + profile.len() > LONGEST_NAME {
        usage!(
            "{}: its results are named after the file and the profile, together {LONGEST_NAME} \
             bytes at most; give the file a shorter name",
            path.display()
        );
    }
    Ok(())
}

/// Puts the profile's models, tasks and seeds in place.
fn apply(definition: &mut Definition, profile: &Profile) -> Result<()> {
    for model in &mut definition.models {
        if let Some(other) = profile.models.get(model) {
            // Or a reader would take a difference of models for one of programs.
            let words = format!(" The paper's values are of {model}, these runs of {other}.");
            definition.about.push_str(&words);
            model.clone_from(other);
        }
    }
    if let Some(tasks) = &profile.tasks {
        let all = definition.tasks.join(", ");
        definition.tasks.retain(|task| tasks.contains(task));
        if definition.tasks.is_empty() {
            usage!("the profile has none of the experiment's tasks ({all})");
        }
    }
    if let Some(seeds) = &profile.seeds {
        // An experiment of one seed, such as a search for rates, stays one.
        let most = definition.seeds.len();
        definition.seeds = seeds.iter().copied().take(most).collect();
    }
    Ok(())
}

/// Takes what the command line says about the grid itself; the rest is given back.
fn narrow(definition: &mut Definition, overrides: &[String]) -> Result<Vec<String>> {
    let mut rest = Vec::new();
    for typed in overrides {
        match typed.split_once('=').map(|(key, value)| (key.trim(), value)) {
            Some(("seeds", value)) => definition.seeds = list("seeds", value)?,
            Some((key, _)) if VARIED.contains(&key) => usage!(
                "`{key}` is what an experiment varies: `{key}s=[…]` chooses among the experiment's \
                 own{}",
                if key == "seed" { ", or names others" } else { "" }
            ),
            Some(("models", value)) => definition.models = list("models", value)?,
            Some(("tasks", value)) => definition.tasks = list("tasks", value)?,
            Some(("methods", value)) => {
                let wanted: Vec<String> = list("methods", value)?;
                let known: Vec<String> =
                    definition.methods.iter().map(|entry| entry.name().to_string()).collect();
                if let Some(odd) = wanted.iter().find(|name| !known.contains(name)) {
                    usage!("`{odd}` is none of the experiment's methods: {}", known.join(", "));
                }
                definition.methods.retain(|entry| wanted.iter().any(|name| name == entry.name()));
            }
            _ => rest.push(typed.clone()),
        }
    }
    Ok(rest)
}

fn list<T: DeserializeOwned + Eq + Hash + Clone + Display>(
    key: &str,
    value: &str,
) -> Result<Vec<T>> {
    match serde_saphyr::from_str::<Vec<T>>(value) {
        Ok(list) if !list.is_empty() => {
            if let Some(item) = twice(&list) {
                usage!("`{key}={value}`: {item} stands twice");
            }
            Ok(list)
        }
        _ => usage!("`{key}={value}` is no list; write for example `{key}=[…, …]`"),
    }
}

fn assignments(set: &Set) -> impl Iterator<Item = String> + '_ {
    set.iter().map(|(key, value)| format!("{key}={}", said(value)))
}

/// The project's `configs/experiment.yaml`: the run file whose blocks and settings cells change.
fn run_file(path: &Path) -> Result<PathBuf> {
    const FILE: &str = "configs/experiment.yaml";
    let file = path.canonicalize().with_context(|| format!("cannot read {}", path.display()))?;
    let here = std::env::current_dir().unwrap_or_default();
    let folders = file.ancestors().chain(here.ancestors());
    match folders.map(|f| f.join(FILE)).find(|f| f.is_file()) {
        Some(file) => Ok(file),
        None => usage!(
            "{}: there is no {FILE} above it or above the working folder; go to the project's \
             folder first",
            path.display()
        ),
    }
}

/// SHA-256 of the settings that decide the result.
pub(super) fn digest(resolved: &Resolved) -> String {
    let text = resolved.settings().to_string();
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn layout(definition: Definition, cells: &[Planned], paper_models: Vec<String>) -> Layout {
    let label = |task: &str| {
        let of = cells.iter().find(|cell| cell.resolved.task.name() == task);
        of.map_or(task, |cell| cell.resolved.task.title()).to_string()
    };
    let metric = |task: &String| definition.metrics.get(task).cloned();
    let tasks = definition.tasks.iter();
    let methods = definition.methods.into_iter();
    Layout {
        title: definition.title,
        about: definition.about,
        show: definition.show,
        tasks: tasks
            .map(|name| TaskColumn { name: name.clone(), label: label(name), metric: metric(name) })
            .collect(),
        methods: methods
            .map(|entry| MethodRow {
                name: entry.name().to_string(),
                label: entry.label.clone().unwrap_or_else(|| entry.name().to_string()),
                paper: entry.paper,
            })
            .collect(),
        reference: definition.reference,
        claims: definition.claims,
        paper_models: Some(paper_models),
    }
}

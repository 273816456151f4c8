//! This program, and what comes with the project: the default run is on it.

use super::finding::{path, Finding};
use crate::config::load_all;
use crate::installation::{self, asset};
use crate::provenance::environment;
use crate::run::model_files::locator;
use std::path::Path;

/// The task of the default run; its file names the model.
const DEFAULT: &str = "task=reviews";

/// Which program this is, and the release that it is of.
pub(super) fn program() -> Finding {
    let here = environment();
    let commit = here.commit.as_ref().map_or(String::new(), |commit| format!(" ({commit})"));
    let place = match installation::folder() {
        Some(folder) => format!("the release in {}", folder.display()),
        None => "built from source".into(),
    };
    let finding = Finding::good("program", format!("aflora {}{commit}, {place}", here.aflora));
    let finding = finding.with("version", here.aflora).with("commit", here.commit);
    finding.with("release", installation::folder().map(path))
}

/// Whether the model and the rows of the default run are there. Runs on others do without.
pub(super) fn default_run() -> Finding {
    const OF: &str = "embedded";
    let resolved = match load_all(None, &[DEFAULT.to_string()]) {
        Ok(resolved) => resolved,
        Err(error) => {
            let why = error.to_string();
            let why = why.lines().next().unwrap_or_default();
            let remedy =
                format!("`aflora validate {DEFAULT}` says what is wrong with its settings");
            return Finding::less(OF, format!("the default run cannot be set up: {why}"), remedy);
        }
    };
    let projects = locator(&resolved).projects;
    let sources = resolved.task.dataset.sources.iter();
    let places = sources.filter_map(|(_, source)| source.place.as_deref());
    let wanted: Vec<&Path> = resolved.model.path.as_deref().into_iter().chain(places).collect();
    let there = |place: &Path| projects.iter().any(|project| project.join(place).is_dir());
    let missing = wanted.iter().filter(|place| !there(place)).filter_map(|place| asset(place));
    let missing: Vec<&str> = missing.collect();
    let finding = match missing.as_slice() {
        [] => Finding::good(OF, format!("model and rows of the default run, {DEFAULT}")),
        missing => Finding::less(
            OF,
            format!("not there: {}, which the default run reads", missing.join(", ")),
            installation::assets_of_release_by(&missing.join(" "))
                .unwrap_or_else(|| "`make assets`, in a clone of the repository".into()),
        ),
    };
    finding.with("missing", missing)
}

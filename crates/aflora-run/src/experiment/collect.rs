//! From cells' folders, and from what earlier results have of them, to results.

use super::grid::{Plan, Planned};
use super::runner::FailedCell;
use super::stored::Stored;
use crate::ui::words;
use aflora_record::results::{Cell, Finding, Outcome, Results};
use std::collections::BTreeMap;
use std::path::Path;

/// Everything that the plan's cells found, where they lie in `runs` or are `stored`. `failures` are
/// those that failed, by their names.
pub fn collect(
    plan: &Plan,
    runs: &Path,
    stored: &Stored,
    failures: &BTreeMap<String, FailedCell>,
) -> Results {
    let cell = |planned: &Planned| {
        let folder = runs.join(planned.folder());
        let outcome = match failures.get(&planned.name()) {
            Some(failure) => Outcome::Failed { error: failure.why.clone() },
            None if !folder.exists() => match stored.finding(planned) {
                Some(finding) => Outcome::Done(Box::new(finding.clone())),
                None => Outcome::Missing,
            },
            None if !planned.is_done(&folder) => Outcome::Missing,
            None => match Finding::read(&folder) {
                Ok(finding) => Outcome::Done(Box::new(finding)),
                Err(error) => Outcome::Failed { error: words(&error.into()) },
            },
        };
        Cell {
            model: planned.resolved.model.model.clone(),
            task: planned.resolved.task.name().to_string(),
            method: planned.method.clone(),
            seed: planned.resolved.run.seed,
            digest: planned.digest.clone(),
            outcome,
        }
    };
    Results {
        experiment: plan.experiment.clone(),
        profile: plan.profile.clone(),
        layout: plan.layout.clone(),
        cells: plan.cells.iter().map(cell).collect(),
    }
}

//! Questions to a results file: which runs there are of a method on a task, and what they scored.

use crate::experiment::results::{Cell, Finding, MethodRow, Outcome, Results, TaskColumn};
use std::collections::BTreeSet;

/// The results of one model.
#[derive(Debug, Clone, Copy)]
pub struct Grid<'a> {
    /// All results.
    pub results: &'a Results,
    /// The model.
    pub model: &'a str,
}

/// Models in the order of the file.
pub fn models(results: &Results) -> Vec<&str> {
    let mut models: Vec<&str> = Vec::new();
    for cell in &results.cells {
        if !models.contains(&cell.model.as_str()) {
            models.push(&cell.model);
        }
    }
    models
}

impl<'a> Grid<'a> {
    /// Rows of tables.
    pub fn methods(&self) -> &'a [MethodRow] {
        &self.results.layout.methods
    }

    /// Columns of tables.
    pub fn tasks(&self) -> &'a [TaskColumn] {
        &self.results.layout.tasks
    }

    /// What people read of a method.
    pub fn label(&self, method: &str) -> String {
        let row = self.methods().iter().find(|row| row.name == method);
        row.map_or_else(|| method.to_string(), |row| row.label.clone())
    }

    /// All seeds of this model's cells, in order.
    pub fn seeds(&self) -> Vec<u64> {
        let cells = self.results.cells.iter().filter(|c| c.model == self.model);
        cells.map(|c| c.seed).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The cells of a method on a task.
    pub fn cells(&self, method: &str, task: &str) -> Vec<&'a Cell> {
        let of_both = |c: &&Cell| c.model == self.model && c.method == method && c.task == task;
        self.results.cells.iter().filter(of_both).collect()
    }

    /// The runs of a method on a task that ended well, with their seeds.
    pub fn findings(&self, method: &str, task: &str) -> Vec<(u64, &'a Finding)> {
        let done = |c: &'a Cell| match &c.outcome {
            Outcome::Done(finding) => Some((c.seed, finding.as_ref())),
            _ => None,
        };
        self.cells(method, task).into_iter().filter_map(done).collect()
    }

    /// The best epoch's value of a task's metric, in points, for one seed.
    pub fn score(&self, method: &str, task: &TaskColumn, seed: u64) -> Option<f64> {
        let findings = self.findings(method, &task.name);
        let (_, finding) = findings.iter().find(|(s, _)| *s == seed)?;
        points(finding, task)
    }

    /// The average over all tasks of one seed's scores; none if a task is not there.
    pub fn average(&self, method: &str, seed: u64) -> Option<f64> {
        let scores: Option<Vec<f64>> =
            self.tasks().iter().map(|task| self.score(method, task, seed)).collect();
        let scores = scores?;
        (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
    }

    /// For each seed that both methods have, how far `method` is above `reference` on a task.
    pub fn paired(&self, method: &str, reference: &str, task: &TaskColumn) -> Vec<f64> {
        self.both(|seed| self.score(method, task, seed), |s| self.score(reference, task, s))
    }

    /// The same for the average over all tasks, of the seeds that have all of them.
    pub fn paired_average(&self, method: &str, reference: &str) -> Vec<f64> {
        self.both(|seed| self.average(method, seed), |seed| self.average(reference, seed))
    }

    fn both(
        &self,
        of: impl Fn(u64) -> Option<f64>,
        against: impl Fn(u64) -> Option<f64>,
    ) -> Vec<f64> {
        self.seeds().into_iter().filter_map(|seed| Some(of(seed)? - against(seed)?)).collect()
    }
}

/// The name of the metric that a task's column shows.
pub fn metric<'a>(finding: &'a Finding, task: &'a TaskColumn) -> &'a str {
    task.metric.as_deref().unwrap_or(&finding.selection)
}

/// The best epoch's value in points; none where undefined or not finite.
pub fn points(finding: &Finding, task: &TaskColumn) -> Option<f64> {
    let value = finding.best.metrics.get(metric(finding, task)).copied().flatten()?;
    value.is_finite().then_some(100.0 * value)
}

//! Questions to a results file: which runs there are of a method on a task, and what they scored.
//!
//! Reports ask for each method, task and seed, so a grid looks its cells through once and keeps
//! them where they will be asked for: a report takes time in proportion to its cells.

use aflora_record::results::PAPER;
use aflora_record::results::{Cell, Finding, MethodRow, Outcome, Results, TaskColumn};
use std::collections::{BTreeSet, HashMap, HashSet};

/// The results of one model.
#[derive(Debug)]
pub struct Grid<'a> {
    /// All results.
    pub results: &'a Results,
    /// The model.
    pub model: &'a str,
    /// Its cells, in the order of the file.
    pub cells: Vec<&'a Cell>,
    /// All seeds of its cells, in order.
    pub seeds: Vec<u64>,
    /// The cells of each method, by task.
    groups: HashMap<&'a str, HashMap<&'a str, MethodOnTask<'a>>>,
    /// A word on evaluations that left rows out: their scores compare with no others.
    pub cut: Option<&'static str>,
    /// The tasks of whose column lower is better.
    lower_is_better: HashSet<&'a str>,
    /// What people read of each method.
    labels: HashMap<&'a str, &'a str>,
}

/// The cells of a method on a task.
#[derive(Debug, Default)]
struct MethodOnTask<'a> {
    cells: Vec<&'a Cell>,
    /// Those that ended well, with their seeds.
    findings: Vec<(u64, &'a Finding)>,
    by_seed: HashMap<u64, &'a Finding>,
}

impl<'a> Grid<'a> {
    /// A grid for each model, in the order of the file.
    pub fn of(results: &'a Results) -> Vec<Grid<'a>> {
        let mut grids: Vec<Grid> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for cell in &results.cells {
            let place = *places.entry(&cell.model).or_insert(grids.len());
            if place == grids.len() {
                grids.push(Grid::new(results, &cell.model));
            }
            grids[place].take(cell);
        }
        for grid in &mut grids {
            let seeds: BTreeSet<u64> = grid.cells.iter().map(|cell| cell.seed).collect();
            grid.seeds = seeds.into_iter().collect();
            grid.cut = cut(&grid.cells);
            let shows_error = |task: &&TaskColumn| grid.shows_error(task);
            let tasks = results.layout.tasks.iter().filter(shows_error);
            grid.lower_is_better = tasks.map(|task| task.name.as_str()).collect();
        }
        grids
    }

    fn new(results: &'a Results, model: &'a str) -> Self {
        let rows = results.layout.methods.iter().rev();
        Grid {
            results,
            model,
            cells: Vec::new(),
            seeds: Vec::new(),
            groups: HashMap::new(),
            cut: None,
            lower_is_better: HashSet::new(),
            labels: rows.map(|row| (row.name.as_str(), row.label.as_str())).collect(),
        }
    }

    fn take(&mut self, cell: &'a Cell) {
        self.cells.push(cell);
        let tasks = self.groups.entry(&cell.method).or_default();
        let group = tasks.entry(&cell.task).or_default();
        group.cells.push(cell);
        if let Outcome::Done(finding) = &cell.outcome {
            group.findings.push((cell.seed, finding));
            group.by_seed.entry(cell.seed).or_insert(finding);
        }
    }

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
        self.labels.get(method).unwrap_or(&method).to_string()
    }

    fn group(&self, method: &str, task: &str) -> Option<&MethodOnTask<'a>> {
        self.groups.get(method)?.get(task)
    }

    /// The cells of a method on a task.
    pub fn cells(&self, method: &str, task: &str) -> &[&'a Cell] {
        self.group(method, task).map_or(&[], |group| &group.cells)
    }

    /// The runs of a method on a task that ended well, with their seeds.
    pub fn findings(&self, method: &str, task: &str) -> &[(u64, &'a Finding)] {
        self.group(method, task).map_or(&[], |group| &group.findings)
    }

    /// The best epoch's value of a task's metric, in points, for one seed.
    pub fn score(&self, method: &str, task: &TaskColumn, seed: u64) -> Option<f64> {
        let group = self.group(method, &task.name)?;
        points(group.by_seed.get(&seed)?, task)
    }

    fn shows_error(&self, task: &TaskColumn) -> bool {
        let mut findings = self.methods().iter().flat_map(|m| self.findings(&m.name, &task.name));
        findings.any(|(_, f)| f.selection.is_lower_better(metric(f, task)))
    }

    /// Whether lower is better of what a task's column shows.
    pub fn is_lower_better(&self, task: &TaskColumn) -> bool {
        self.lower_is_better.contains(task.name.as_str())
    }

    /// Whether lower is better of what some task's column shows.
    pub fn has_errors(&self) -> bool {
        !self.lower_is_better.is_empty()
    }

    /// Whether an average over the tasks says something: higher is better of all, or lower of all.
    pub fn has_average(&self) -> bool {
        let lower = self.lower_is_better.len();
        lower == 0 || lower == self.tasks().len()
    }

    /// What differences are in.
    pub fn unit(&self) -> &'static str {
        match self.has_errors() {
            true => "points, or the metric's own unit where lower is better",
            false => "points",
        }
    }

    /// The average over all tasks of one seed's scores; none if a task is not there, or if of some
    /// lower is better and of others higher.
    pub fn average(&self, method: &str, seed: u64) -> Option<f64> {
        if !self.has_average() {
            return None;
        }
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
        self.seeds.iter().filter_map(|&seed| Some(of(seed)? - against(seed)?)).collect()
    }

    /// Whether the paper's values are of this model, on all of the rows: only then a difference
    /// from them says something.
    pub fn compares_with_paper(&self) -> bool {
        let layout = &self.results.layout;
        let same_model = match &layout.paper_models {
            Some(models) => models.iter().any(|model| model == self.model),
            // From before models were kept: a profile puts others in place.
            None => self.results.profile == PAPER,
        };
        same_model && self.cut.is_none()
    }
}

/// How the rows of evaluations are not the whole of their split, of any of the cells.
fn cut(cells: &[&Cell]) -> Option<&'static str> {
    let any = |holds: fn(&Finding) -> bool| {
        cells.iter().any(|cell| match &cell.outcome {
            Outcome::Done(finding) => holds(finding),
            _ => false,
        })
    };
    let held_out = |finding: &Finding| !finding.settings["holdout"].is_null();
    match (any(is_limited), any(held_out)) {
        (true, _) => Some(
            "Evaluated on a part of the rows (eval_limit): not to be compared with the paper's \
             values or other reports.",
        ),
        (_, true) => Some(
            "Evaluated on rows held out of the training split (holdout), not on the dev split.",
        ),
        _ => None,
    }
}

/// Whether `eval_limit` leaves rows out: a limit of as many as there are does not.
fn is_limited(finding: &Finding) -> bool {
    let Some(limit) = finding.settings["eval_limit"].as_u64() else { return false };
    let judged = finding.provenance.data.iter().filter(|file| file.split != "train");
    // Where no file is known, a limit may well have left something out.
    judged.map(|file| file.rows as u64).max().is_none_or(|rows| limit < rows)
}

/// The name of the metric that a task's column shows.
pub fn metric<'a>(finding: &'a Finding, task: &'a TaskColumn) -> &'a str {
    task.metric.as_deref().unwrap_or(&finding.selection.metric)
}

/// What a metric's values are shown in: shares in points, of which a hundred are the whole; errors,
/// of which lower is better, as they are.
pub fn scale(finding: &Finding, metric: &str) -> f64 {
    match finding.selection.is_lower_better(metric) {
        true => 1.0,
        false => 100.0,
    }
}

/// The best epoch's value in points, or of an error as it is; none where undefined or not finite.
pub fn points(finding: &Finding, task: &TaskColumn) -> Option<f64> {
    let metric = metric(finding, task);
    let value = finding.best.metric(metric)?;
    value.is_finite().then_some(scale(finding, metric) * value)
}

//! Methods by tasks: mean ± standard deviation over seeds, beside the paper's values.

use crate::report::document::{DocumentBlock, Section, Table, TableEntry, Tone};
use crate::report::grid::{points, Grid};
use crate::report::numbers::{count, fixed, signed, Mean};
use aflora_record::results::{Finding, MethodRow, Outcome, TaskColumn};

/// The section with the table of scores.
pub fn section(grid: &Grid) -> Section {
    let mut blocks = vec![DocumentBlock::table(table(grid))];
    blocks.push(DocumentBlock::Text(legend(grid)));
    Section { title: "Results".into(), blocks }
}

fn legend(grid: &Grid) -> String {
    let n = grid.seeds.len();
    let over = match n {
        1 => "One seed: values have no ±.".to_string(),
        n => format!(
            "Mean ± sample standard deviation over {n} seeds; n where fewer than {n} finished."
        ),
    };
    let papers = grid.methods().iter().any(|method| !method.paper.is_empty());
    let paper = match papers && !grid.compares_with_paper() {
        true => {
            " The paper's values are of another model or of other rows: compare them with each \
             other, not with ours."
        }
        false => "",
    };
    let best = match grid.has_errors() {
        true => "best",
        false => "highest",
    };
    format!(
        "{over} Each run counts with its best epoch. The average is over tasks, of methods that \
         have them all. Parameters are those of adapters that train, averaged over the steps of a \
         run and over tasks; the task head comes on top. In bold the {best} of a column; – was \
         not run.{paper}"
    )
}

/// The table of one model.
pub fn table(grid: &Grid) -> Table {
    let mut head = vec!["Method".to_string()];
    head.extend(grid.tasks().iter().map(|task| column(grid, task)));
    if has_average(grid) {
        head.push("Average".into());
    }
    head.extend(["Parameters".into(), "Head".into()]);
    let mut rows: Vec<Vec<TableEntry>> = grid.methods().iter().map(|m| row(grid, m)).collect();
    let scores = head.len() - 3;
    embolden(grid, &mut rows, scores);
    Table {
        caption: format!("{}, on {}", grid.results.layout.title, grid.model),
        words: false,
        head,
        rows,
    }
}

/// A task's label with the metric that was shown.
fn column(grid: &Grid, task: &TaskColumn) -> String {
    let findings = grid.methods().iter().flat_map(|m| grid.findings(&m.name, &task.name));
    let of_finding = |(_, f): &(u64, &Finding)| f.selection.metric.clone();
    let metric = task.metric.clone().or_else(|| findings.map(of_finding).next());
    let lower = if grid.is_lower_better(task) { ", lower is better" } else { "" };
    match metric {
        Some(metric) => format!("{} ({}{lower})", task.label, metric.replace('_', " ")),
        None => task.label.clone(),
    }
}

fn has_average(grid: &Grid) -> bool {
    grid.tasks().len() > 1 && grid.has_average()
}

fn row(grid: &Grid, method: &MethodRow) -> Vec<TableEntry> {
    let mut row = vec![TableEntry::new(&method.label)];
    for task in grid.tasks() {
        let paper = method.paper.get(&task.name).copied();
        let ours = mean(grid, method, task);
        row.push(against(grid, score(grid, &method.name, task), ours, paper));
    }
    if has_average(grid) {
        let mean = average(grid, method);
        let entry = match mean {
            Some(mean) => TableEntry::new(plus_minus(&mean)),
            None => TableEntry::none("not all tasks have a result"),
        };
        row.push(against(grid, entry, mean.map(|m| m.mean), paper_average(grid, method)));
    }
    row.extend(parameters(grid, method));
    row
}

/// The paper's average over the tasks that are shown: its own where these are all that it has,
/// for an average over other tasks says nothing of ours.
fn paper_average(grid: &Grid, method: &MethodRow) -> Option<f64> {
    const OTHERS: [&str; 2] = ["average", "parameters"];
    let shown: Vec<Option<f64>> =
        grid.tasks().iter().map(|task| method.paper.get(&task.name).copied()).collect();
    let tasks = method.paper.keys().filter(|key| !OTHERS.contains(&key.as_str())).count();
    match method.paper.get("average") {
        Some(average) if tasks <= shown.iter().flatten().count() => Some(*average),
        _ => Some(shown.iter().copied().sum::<Option<f64>>()? / shown.len() as f64),
    }
}

/// What a method scored on a task, or why there is nothing.
fn score(grid: &Grid, method: &str, task: &TaskColumn) -> TableEntry {
    let seeds = grid.seeds.len();
    let findings = grid.findings(method, &task.name);
    let cells = grid.cells(method, &task.name);
    let errors: Vec<String> = cells
        .iter()
        .filter_map(|cell| match &cell.outcome {
            Outcome::Failed { error } => Some(format!("seed {}: {error}", cell.seed)),
            _ => None,
        })
        .collect();
    let Some(mean) = Mean::of(findings.iter().filter_map(|(_, f)| points(f, task))) else {
        return match (findings.len(), errors.len()) {
            (0, 0) => TableEntry::none("not run, or not to its end"),
            (0, _) => TableEntry::new("failed").titled(errors.join("; ")).toned(Tone::Bad),
            _ => TableEntry::new("undefined")
                .titled("the metric has no value, such as a correlation with a constant")
                .toned(Tone::Muted),
        };
    };
    let mut entry = TableEntry::new(plus_minus(&mean));
    if mean.n < seeds {
        entry.text += &format!(" (n = {})", mean.n);
        let undefined = findings.len() - mean.n;
        let missing = seeds - findings.len() - errors.len().min(seeds - findings.len());
        let mut why = errors;
        for (n, words) in [(undefined, "undefined"), (missing, "not run, or not to the end")] {
            if n > 0 {
                why.push(format!("{n} {words}"));
            }
        }
        entry.title = why.join("; ");
    }
    entry
}

fn plus_minus(mean: &Mean) -> String {
    match mean.std {
        Some(std) => format!("{} ± {}", fixed(mean.mean, 2), fixed(std, 2)),
        None => fixed(mean.mean, 2),
    }
}

fn mean(grid: &Grid, method: &MethodRow, task: &TaskColumn) -> Option<f64> {
    let findings = grid.findings(&method.name, &task.name);
    Mean::of(findings.iter().filter_map(|(_, f)| points(f, task))).map(|m| m.mean)
}

/// The mean of a method's means over tasks, with the deviation of the seeds' own averages where
/// every seed has every task.
pub fn average(grid: &Grid, method: &MethodRow) -> Option<Mean> {
    if !grid.has_average() {
        return None;
    }
    let means: Option<Vec<f64>> = grid.tasks().iter().map(|t| mean(grid, method, t)).collect();
    let mean = Mean::of(means?)?.mean;
    let seeds = &grid.seeds;
    let of_seeds: Option<Vec<f64>> =
        seeds.iter().map(|seed| grid.average(&method.name, *seed)).collect();
    let std = of_seeds.and_then(|averages| Mean::of(averages)?.std);
    Some(Mean { mean, std, n: seeds.len() })
}

/// With the paper's value below, and how far ours is from it where the two compare.
fn against(grid: &Grid, entry: TableEntry, ours: Option<f64>, paper: Option<f64>) -> TableEntry {
    let Some(paper) = paper else { return entry };
    let note = format!("paper {}", fixed(paper, 2));
    match ours.filter(|_| grid.compares_with_paper()) {
        None => entry.noted(note),
        Some(ours) => entry.noted(format!("{note} ({})", signed(ours - paper, 2))),
    }
}

fn parameters(grid: &Grid, method: &MethodRow) -> [TableEntry; 2] {
    let over_tasks = |value: &dyn Fn(&Finding) -> f64| {
        Mean::of(grid.tasks().iter().filter_map(|task| {
            let findings = grid.findings(&method.name, &task.name);
            Some(Mean::of(findings.iter().map(|(_, f)| value(f)))?.mean)
        }))
        .map(|m| m.mean)
    };
    let time_average = over_tasks(&|f| f.parameters.time_average);
    let head = over_tasks(&|f| f.parameters.head as f64);
    let entry = |value: Option<f64>| match value {
        Some(value) => TableEntry::new(count(value)),
        None => TableEntry::none("no finished run"),
    };
    let mut ours = entry(time_average);
    if let Some(&paper) = method.paper.get("parameters") {
        // The paper prints millions; a count is never that small.
        let paper = if paper < 1000.0 { paper * 1e6 } else { paper };
        ours.note = format!("paper {}", count(paper));
    }
    [ours, entry(head)]
}

/// The best mean of each column of scores, as it is printed; equals share it.
fn embolden(grid: &Grid, rows: &mut [Vec<TableEntry>], scores: usize) {
    let tasks = grid.tasks();
    for column in 0..scores {
        let means: Vec<Option<String>> = grid
            .methods()
            .iter()
            .map(|m| match tasks.get(column) {
                Some(task) => mean(grid, m, task),
                None => average(grid, m).map(|a| a.mean),
            })
            .map(|mean| mean.map(|m| fixed(m, 2)))
            .collect();
        let value = |text: &String| text.replace('−', "-").parse::<f64>().ok();
        let values = means.iter().flatten().filter_map(value);
        let task = tasks.get(column).or(tasks.first());
        let best = match task.is_some_and(|task| grid.is_lower_better(task)) {
            true => values.fold(f64::INFINITY, f64::min),
            false => values.fold(f64::NEG_INFINITY, f64::max),
        };
        if rows.len() > 1 {
            for (row, mean) in rows.iter_mut().zip(&means) {
                if mean.as_ref().and_then(value) == Some(best) {
                    row[column + 1].tone = Tone::Best;
                }
            }
        }
    }
}

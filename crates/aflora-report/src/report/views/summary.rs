//! The first lines of a report: how much was run, who is ahead, what became of the paper's claims;
//! and the same in short, for a page over several reports.

use super::{claims, differences, table};
use crate::report::document::{Chart, DocumentBlock, Section, TableEntry};
use crate::report::grid::{metric, Grid};
use crate::report::numbers::{count, fixed};
use crate::words::counted;
use aflora_record::results::{Finding, MethodRow, Outcome, TaskColumn};

/// The section that sums a report up.
pub fn section(grid: &Grid) -> Section {
    let mut lines = vec![how_much(grid)];
    lines.extend(grid.cut.map(String::from));
    lines.extend(ahead(grid));
    lines.extend(grid.tasks().iter().filter_map(|task| tested(grid, task)));
    for claim in &grid.results.layout.claims {
        let standing = claims::whole(&claims::pairs(grid, claim));
        let says = claim.says.trim_end_matches('.');
        lines.push(format!("The paper says: {says}. Our result {}.", standing.words()));
    }
    Section { title: "In short".into(), blocks: vec![DocumentBlock::List(lines)] }
}

/// What was asked, and what came out: a pair of entries for each claim of the paper's; of an
/// experiment without one how far methods are from its reference, or what its first chart shows,
/// or who is ahead.
pub fn answers(grid: &Grid, sections: &[Section]) -> Vec<[TableEntry; 2]> {
    let claims = &grid.results.layout.claims;
    if !grid.cells.iter().any(|cell| matches!(cell.outcome, Outcome::Done(_))) {
        return vec![[TableEntry::new(asked(grid)), TableEntry::none("no run is done")]];
    }
    if claims.is_empty() {
        let reference = grid.results.layout.reference.as_ref();
        let found = reference
            .and_then(|reference| differences::chart(grid, reference))
            .map(|chart| in_words(&chart))
            .or_else(|| first_chart(sections))
            .or_else(|| ahead(grid));
        let found = found.map_or_else(|| TableEntry::none("nothing to compare"), TableEntry::new);
        return vec![[TableEntry::new(asked(grid)), found]];
    }
    claims
        .iter()
        .map(|claim| {
            let pairs = claims::pairs(grid, claim);
            let standing = claims::whole(&pairs);
            let says = claim.says.trim_end_matches('.');
            let found = TableEntry::new(standing.words()).toned(standing.tone());
            let differences: Vec<String> = pairs.iter().map(|p| claims::words(grid, p)).collect();
            [TableEntry::new(format!("The paper: {says}")), found.noted(differences.join("\n"))]
        })
        .collect()
}

/// What methods came to on the split of a task that is judged once, on average over the runs.
fn tested(grid: &Grid, task: &TaskColumn) -> Option<String> {
    let lower = grid.is_lower_better(task);
    let of_method = |method: &MethodRow| {
        let findings = grid.findings(&method.name, &task.name).iter();
        let value = |finding: &Finding| {
            finding
                .test
                .as_ref()?
                .evaluation
                .metric(metric(finding, task))
                .filter(|v| v.is_finite())
        };
        let values: Vec<f64> = findings.filter_map(|(_, finding)| value(finding)).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let mean = if lower { fixed(mean, 4) } else { fixed(100.0 * mean, 2) };
        (!values.is_empty()).then(|| format!("{} {mean}", method.label))
    };
    let each: Vec<String> = grid.methods().iter().filter_map(of_method).collect();
    let words = "on the test split, judged once with each run's best adapter";
    (!each.is_empty()).then(|| format!("{}, {words}: {}.", task.label, each.join(", ")))
}

/// What an experiment asks: the first sentence of its description.
fn asked(grid: &Grid) -> String {
    let about = grid.results.layout.about.trim().lines();
    let paragraph: Vec<&str> = about.take_while(|line| !line.is_empty()).collect();
    let paragraph = paragraph.join("\n");
    match paragraph.split_once(". ") {
        Some((first, _)) => format!("{first}."),
        None => paragraph,
    }
}

/// What the chart shows that an experiment puts first, before any table.
fn first_chart(sections: &[Section]) -> Option<String> {
    let mut blocks = sections.iter().flat_map(|section| &section.blocks);
    blocks.find_map(|block| match block {
        DocumentBlock::Charts(charts) => Some(charts.first().map(in_words)),
        DocumentBlock::Table { .. } => Some(None),
        _ => None,
    })?
}

fn in_words(chart: &Chart) -> String {
    format!("{}: {}", chart.title, chart.finding)
}

fn how_much(grid: &Grid) -> String {
    let of = |is: fn(&Outcome) -> bool| grid.cells.iter().filter(|c| is(&c.outcome)).count();
    let done = of(|outcome| matches!(outcome, Outcome::Done(_)));
    let failed = of(|outcome| matches!(outcome, Outcome::Failed { .. }));
    let missing = grid.cells.len() - done - failed;
    let mut text = format!(
        "{} by {} by {} on {}: {done} of {} runs are done",
        counted(grid.methods().len(), "method"),
        counted(grid.tasks().len(), "task"),
        counted(grid.seeds.len(), "seed"),
        grid.model,
        grid.cells.len(),
    );
    for (n, what) in [(failed, "failed"), (missing, "missing")] {
        if n > 0 {
            text += &format!(", {n} {what}");
        }
    }
    let early = of(|o| matches!(o, Outcome::Done(found) if found.early_stop.is_some()));
    if early > 0 {
        text += &format!("; {early} ended early, since evaluations became no better");
    }
    text + "."
}

fn ahead(grid: &Grid) -> Option<String> {
    let methods = grid.methods().iter();
    let means = methods.filter_map(|m| Some((m, table::average(grid, m)?.mean)));
    let mut means: Vec<_> = means.collect();
    means.sort_by(|a, b| b.1.total_cmp(&a.1));
    let lower = grid.has_errors();
    let (best, unit) = if lower { ("lowest", "") } else { ("highest", " points") };
    if lower {
        means.reverse();
    }
    let (method, mean) = *means.first()?;
    if means.get(1).is_some_and(|(_, second)| *second == mean) {
        return Some(format!("Several methods share the {best} average, {}.", fixed(mean, 2)));
    }
    let parameters: Vec<f64> = grid
        .tasks()
        .iter()
        .flat_map(|t| grid.findings(&method.name, &t.name))
        .map(|(_, f)| f.parameters.time_average)
        .collect();
    let average = parameters.iter().sum::<f64>() / parameters.len() as f64;
    Some(format!(
        "{}{} average: {}, {}{unit}, with {} trainable adapter parameters (averaged over its \
         steps).",
        best[..1].to_uppercase(),
        &best[1..],
        method.label,
        fixed(mean, 2),
        count(average)
    ))
}

//! The best epoch's answers class by class, and those on the test split: precision, recall and F1, and
//! what was taken for what.

use crate::report::charts::heat::{draw, HeatCell};
use crate::report::document::{Chart, DocumentBlock, Section, Table, TableEntry};
use crate::report::grid::Grid;
use crate::report::numbers::fixed;
use crate::words::counted;
use aflora_record::by_class::{ByClass, Confused};
use aflora_record::results::{Finding, MethodRow, TaskColumn};
use std::collections::BTreeMap;

/// Classes of a confusion matrix that is drawn; of more, the commonest mistakes are told.
const DRAWN: usize = 30;
/// Mistakes that are told.
const MISTAKES: usize = 20;
/// Rows of a table in plain sight.
const IN_SIGHT: usize = 12;
/// Rows of a table.
const MOST: usize = 1000;
/// Characters of a class's name beside a drawing.
const NAME: usize = 28;

/// The section of classes: a table, and a confusion matrix, for each task, method and split.
pub fn section(grid: &Grid) -> Section {
    let mut blocks = Vec::new();
    let mut charts = Vec::new();
    for task in grid.tasks() {
        for method in grid.methods() {
            for (runs, by_class) in together(grid, method, task) {
                let what = named(grid, task, method, &by_class, runs);
                blocks.push(table(&what, &by_class));
                match by_class.matrix(DRAWN) {
                    Some(matrix) => charts.push(chart(&what, &by_class, &matrix, task, method)),
                    None => blocks.extend(mistakes(&what, &by_class)),
                }
            }
        }
    }
    if !charts.is_empty() {
        let text =
            "Confusion matrices: in each row the rows of one class, in each column those that \
                    were given one; shades are shares of the row.";
        blocks.insert(0, DocumentBlock::Charts(charts));
        blocks.insert(0, DocumentBlock::Text(text.into()));
    }
    Section { title: "Classes".into(), blocks }
}

/// The counts of a method's runs on a task together, split by split, with how many runs they are of.
/// A run with other classes than the first is left out.
fn together<'a>(grid: &Grid<'a>, method: &MethodRow, task: &TaskColumn) -> Vec<(usize, ByClass)> {
    let mut all: Vec<(usize, ByClass)> = Vec::new();
    let findings = grid.findings(&method.name, &task.name);
    let of_test = |finding: &'a Finding| finding.test.iter().flat_map(|test| &test.by_class);
    let of_all = findings.iter().flat_map(|(_, finding)| &finding.by_class);
    for of_run in of_all.chain(findings.iter().flat_map(|(_, finding)| of_test(finding))) {
        match all.iter_mut().find(|(_, sum)| sum.split == of_run.split) {
            None => all.push((1, of_run.clone())),
            Some((runs, sum)) => *runs += usize::from(add(sum, of_run)),
        }
    }
    all
}

/// Adds the counts of `more`, if it has the same classes.
fn add(sum: &mut ByClass, more: &ByClass) -> bool {
    let labels = |of: &ByClass| of.classes.iter().map(|c| c.label.clone()).collect::<Vec<_>>();
    if labels(sum) != labels(more) {
        return false;
    }
    for (sum, more) in sum.classes.iter_mut().zip(&more.classes) {
        sum.counts = sum.counts.plus(more.counts);
    }
    let mut cells: BTreeMap<(usize, usize), u64> = BTreeMap::new();
    for cell in sum.confusion.iter().chain(&more.confusion) {
        let rows = cells.entry((cell.right, cell.answered)).or_default();
        *rows = rows.saturating_add(cell.rows);
    }
    let cell = |((right, answered), rows)| Confused { right, answered, rows };
    sum.confusion = cells.into_iter().map(cell).collect();
    true
}

/// What a table or a chart is of.
fn named(
    grid: &Grid,
    task: &TaskColumn,
    method: &MethodRow,
    by_class: &ByClass,
    runs: usize,
) -> String {
    let method = match grid.methods().len() {
        1 => String::new(),
        _ => format!(", {}", method.label),
    };
    let runs = match runs {
        1 => String::new(),
        n => format!(", {} together", counted(n, "run")),
    };
    format!("{}{method}: {}{runs}", task.label, by_class.split)
}

fn table(what: &str, by_class: &ByClass) -> DocumentBlock {
    let classes = by_class.classes.len();
    let first = match classes > MOST {
        true => format!(", the first {MOST} of {classes}"),
        false => String::new(),
    };
    let rows = by_class.classes.iter().take(MOST).map(|class| {
        let counts = class.counts;
        let shares = [counts.precision(), counts.recall(), counts.f1()];
        let mut row = vec![TableEntry::new(&class.label)];
        row.extend([counts.right, counts.answered].map(|n| TableEntry::new(n.to_string())));
        row.extend(shares.map(|share| TableEntry::new(fixed(100.0 * share, 2))));
        row
    });
    let head = ["Class", "Rows", "Answered", "Precision", "Recall", "F1"];
    let table = Table {
        caption: format!("{what}, by class, in points{first}"),
        words: false,
        head: head.map(String::from).to_vec(),
        rows: rows.collect(),
    };
    DocumentBlock::Table { table, folded: classes > IN_SIGHT }
}

fn chart(
    what: &str,
    by_class: &ByClass,
    matrix: &[Vec<u64>],
    task: &TaskColumn,
    method: &MethodRow,
) -> Chart {
    let labels: Vec<&str> = by_class.classes.iter().map(|class| class.label.as_str()).collect();
    let columns: Vec<String> = (1..=labels.len()).map(|n| n.to_string()).collect();
    let cells = |row: &Vec<u64>| -> Vec<HeatCell> {
        let all: u64 = row.iter().sum();
        let share = |rows: u64| (all > 0).then(|| rows as f64 / all as f64);
        row.iter().map(|&rows| HeatCell { text: rows.to_string(), value: share(rows) }).collect()
    };
    let name = |(n, label): (&String, &&str)| {
        let short: String = label.chars().take(NAME).collect();
        let more = if short.len() < label.len() { "…" } else { "" };
        format!("{n} {short}{more}")
    };
    let rows: Vec<(String, Vec<HeatCell>)> =
        columns.iter().zip(&labels).map(name).zip(matrix.iter().map(cells)).collect();
    let title = format!("{what}: what was answered for what");
    let mut head = vec!["right \\ answered".to_string()];
    head.extend(labels.iter().map(ToString::to_string));
    let data = labels.iter().zip(matrix).map(|(label, row)| {
        let mut entries = vec![TableEntry::new(*label)];
        entries.extend(row.iter().map(|rows| TableEntry::new(rows.to_string())));
        entries
    });
    Chart {
        finding: finding(by_class),
        drawing: draw(
            &rows,
            &columns,
            "answered",
            "class that was answered; in rows the right one",
        ),
        data: Table { caption: title.clone(), words: false, head, rows: data.collect() },
        title,
        file: Some(format!("confusion-{}-{}-{}", task.name, method.name, by_class.split)),
    }
}

/// Mistakes, the commonest first.
fn commonest(by_class: &ByClass) -> Vec<(&str, &str, u64)> {
    let label = |class: usize| by_class.classes.get(class).map(|class| class.label.as_str());
    let wrong = by_class.confusion.iter().filter(|cell| cell.right != cell.answered);
    let named = |cell: &Confused| Some((label(cell.right)?, label(cell.answered)?, cell.rows));
    let mut mistakes: Vec<_> = wrong.filter_map(named).collect();
    mistakes.sort_by_key(|(_, _, rows)| std::cmp::Reverse(*rows));
    mistakes
}

fn finding(by_class: &ByClass) -> String {
    let all: u64 = by_class.classes.iter().map(|class| class.counts.right).sum();
    let hits: u64 = by_class.classes.iter().map(|class| class.counts.hits).sum();
    let found = format!("{hits} of {all} rows got their class.");
    match commonest(by_class).first() {
        None => found,
        Some((right, answered, rows)) => {
            format!("{found} The commonest mistake: {answered} for {right}, {rows} rows.")
        }
    }
}

/// The commonest mistakes as a table, of a task whose rows have one class each.
fn mistakes(what: &str, by_class: &ByClass) -> Option<DocumentBlock> {
    let mistakes = commonest(by_class);
    let rows = mistakes.iter().take(MISTAKES).map(|(right, answered, rows)| {
        [*right, *answered, &rows.to_string()].map(TableEntry::new).to_vec()
    });
    let table = Table {
        caption: format!("{what}, the commonest of {}", counted(mistakes.len(), "mistake")),
        words: false,
        head: ["Right", "Answered", "Rows"].map(String::from).to_vec(),
        rows: rows.collect(),
    };
    (!mistakes.is_empty()).then_some(DocumentBlock::table(table))
}

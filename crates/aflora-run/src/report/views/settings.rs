//! The settings of the runs: those that differ between methods, those that all share, and a word
//! where rows were left out.

use crate::experiment::results::{Finding, Outcome, Results};
use crate::report::document::{Entry, Table};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Each key with all its values.
type Values = BTreeMap<String, BTreeSet<String>>;
/// One method's values on each model and task: only like is compared with like.
type ByTask<'a> = BTreeMap<(&'a str, &'a str), Values>;

/// A row for each setting whose values are not the same for all methods; none if there are none.
pub fn table(results: &Results) -> Option<Table> {
    let methods: Vec<(&str, ByTask)> = results
        .layout
        .methods
        .iter()
        .map(|row| (row.label.as_str(), values(results, &row.name)))
        .filter(|(_, by_task)| !by_task.is_empty())
        .collect();
    let all = methods.iter().flat_map(|(_, by_task)| by_task.values());
    let keys: BTreeSet<&String> = all.flat_map(Values::keys).collect();
    let mut head = vec!["Setting".to_string()];
    head.extend(methods.iter().map(|(label, _)| label.to_string()));
    let rows: Vec<Vec<Entry>> = keys
        .into_iter()
        // What a run is called and where it was written is no setting of its method.
        .filter(|key| !matches!(key.as_str(), "method.name" | "method" | "run_dir" | "seed"))
        .filter(|key| differs(key, &methods))
        .map(|key| {
            let mut row = vec![Entry::new(key.as_str())];
            row.extend(methods.iter().map(|(_, by_task)| entry(key, by_task)));
            row
        })
        .collect();
    let caption = "Settings that differ between methods (several values: by task)".into();
    (!rows.is_empty()).then_some(Table { caption, words: true, head, rows })
}

/// What most decides a result, where all runs of a task agree in it.
pub fn shared(results: &Results) -> Option<Table> {
    const KEYS: [&str; 11] = [
        "epochs",
        "batch_size",
        "accumulate",
        "max_length",
        "head_lr",
        "weight_decay",
        "warmup",
        "precision",
        "holdout",
        "limit",
        "eval_limit",
    ];
    let tasks: Vec<_> = results.layout.tasks.iter().collect();
    let row = |key: &str| {
        let mut row = vec![Entry::new(key)];
        for task in &tasks {
            let values: BTreeSet<String> =
                findings(results, &task.name).map(|f| text(&f.settings[key])).collect();
            let values: Vec<String> = values.into_iter().collect();
            row.push(Entry::new(values.join(", ")));
        }
        row
    };
    let any = tasks.iter().any(|task| findings(results, &task.name).next().is_some());
    let mut head = vec!["Setting".to_string()];
    head.extend(tasks.iter().map(|task| task.label.clone()));
    let rows = KEYS.iter().map(|key| row(key)).collect();
    let caption = "Settings by task (several values: by method)".into();
    any.then_some(Table { caption, words: true, head, rows })
}

fn findings<'a>(results: &'a Results, task: &'a str) -> impl Iterator<Item = &'a Finding> + 'a {
    let cells = results.cells.iter().filter(move |cell| cell.task == task);
    cells.filter_map(|cell| match &cell.outcome {
        Outcome::Done(finding) => Some(finding.as_ref()),
        _ => None,
    })
}

/// A word on evaluations that left rows out: their scores compare with no others.
pub fn cut(results: &Results) -> Option<String> {
    let limited = |key: &'static str| {
        results.cells.iter().any(|cell| match &cell.outcome {
            Outcome::Done(finding) => !finding.settings[key].is_null(),
            _ => false,
        })
    };
    match (limited("eval_limit"), limited("holdout")) {
        (true, _) => Some(
            "Evaluated on a part of the rows (eval_limit): not to be compared with the paper's \
             values or other reports."
                .into(),
        ),
        (_, true) => Some(
            "Evaluated on rows held out of the training split (holdout), not on the dev split."
                .into(),
        ),
        _ => None,
    }
}

fn values<'a>(results: &'a Results, method: &str) -> ByTask<'a> {
    let mut by_task = ByTask::new();
    for cell in results.cells.iter().filter(|c| c.method == method) {
        if let Outcome::Done(finding) = &cell.outcome {
            let values = by_task.entry((&cell.model, &cell.task)).or_default();
            flatten("", &finding.settings, values);
        }
    }
    by_task
}

fn flatten(key: &str, value: &Value, into: &mut Values) {
    if let Value::Object(fields) = value {
        for (name, value) in fields {
            let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            flatten(&key, value, into);
        }
        return;
    }
    into.entry(key.to_string()).or_default().insert(text(value));
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "–".into(),
        other => other.to_string(),
    }
}

/// Whether two methods disagree on a task that both have.
fn differs(key: &str, methods: &[(&str, ByTask)]) -> bool {
    let scopes: BTreeSet<_> = methods.iter().flat_map(|(_, by_task)| by_task.keys()).collect();
    scopes.into_iter().any(|scope| {
        let values = methods.iter().filter_map(|(_, by_task)| by_task.get(scope));
        values.map(|v| v.get(key)).collect::<BTreeSet<_>>().len() > 1
    })
}

fn entry(key: &str, by_task: &ByTask) -> Entry {
    let values: BTreeSet<&str> = by_task
        .values()
        .filter_map(|values| values.get(key))
        .flatten()
        .map(String::as_str)
        .collect();
    match values.is_empty() {
        true => Entry::none("the method has no such setting"),
        false => values.into_iter().collect::<Vec<_>>().join(", ").into(),
    }
}

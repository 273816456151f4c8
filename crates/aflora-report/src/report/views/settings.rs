//! The settings of the runs: those that differ between methods, and those that all share.

use crate::report::document::{Table, TableEntry};
use aflora_record::results::{Outcome, Results, TaskColumn};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Each key with all its values.
type Values = BTreeMap<String, BTreeSet<String>>;
/// One method's values on each model and task: only like is compared with like.
type ByTask<'a> = BTreeMap<(&'a str, &'a str), Values>;

/// A row for each setting whose values are not the same for all methods; none if there are none.
pub fn table(results: &Results) -> Option<Table> {
    let mut found = by_method(results);
    let rows = results.layout.methods.iter();
    let methods: Vec<(&str, ByTask)> = rows
        .filter_map(|row| Some((row.label.as_str(), found.remove(row.name.as_str())?)))
        .collect();
    let all = methods.iter().flat_map(|(_, by_task)| by_task.values());
    let keys: BTreeSet<&String> = all.flat_map(Values::keys).collect();
    let mut head = vec!["Setting".to_string()];
    head.extend(methods.iter().map(|(label, _)| label.to_string()));
    let rows: Vec<Vec<TableEntry>> = keys
        .into_iter()
        // What a run is called and where it was written is no setting of its method.
        .filter(|key| !matches!(key.as_str(), "method.name" | "method" | "run_dir" | "seed"))
        .filter(|key| differs(key, &methods))
        .map(|key| {
            let mut row = vec![TableEntry::new(key.as_str())];
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
    let mut found: HashMap<&str, [BTreeSet<String>; KEYS.len()]> = HashMap::new();
    for cell in &results.cells {
        if let Outcome::Done(finding) = &cell.outcome {
            let values = found.entry(&cell.task).or_default();
            for (values, key) in values.iter_mut().zip(KEYS) {
                values.insert(text(&finding.settings[key]));
            }
        }
    }
    let tasks = &results.layout.tasks;
    let row = |(i, key): (usize, &&str)| {
        let of = |task: &TaskColumn| match found.get(task.name.as_str()) {
            Some(values) => values[i].iter().map(String::as_str).collect::<Vec<_>>().join(", "),
            None => String::new(),
        };
        let entries = tasks.iter().map(|task| TableEntry::new(of(task)));
        std::iter::once(TableEntry::new(*key)).chain(entries).collect()
    };
    let any = tasks.iter().any(|task| found.contains_key(task.name.as_str()));
    let mut head = vec!["Setting".to_string()];
    head.extend(tasks.iter().map(|task| task.label.clone()));
    let rows = KEYS.iter().enumerate().map(row).collect();
    let caption = "Settings by task (several values: by method)".into();
    any.then_some(Table { caption, words: true, head, rows })
}

/// The values of each method, by its name, in one pass over the runs.
fn by_method(results: &Results) -> HashMap<&str, ByTask<'_>> {
    let mut methods: HashMap<&str, ByTask> = HashMap::new();
    for cell in &results.cells {
        if let Outcome::Done(finding) = &cell.outcome {
            let by_task = methods.entry(&cell.method).or_default();
            flatten("", &finding.settings, by_task.entry((&cell.model, &cell.task)).or_default());
        }
    }
    methods
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

fn entry(key: &str, by_task: &ByTask) -> TableEntry {
    let values: BTreeSet<&str> = by_task
        .values()
        .filter_map(|values| values.get(key))
        .flatten()
        .map(String::as_str)
        .collect();
    match values.is_empty() {
        true => TableEntry::none("the method has no such setting"),
        false => values.into_iter().collect::<Vec<_>>().join(", ").into(),
    }
}

//! Settings that differ between methods.

use crate::experiment::results::{Outcome, Results};
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
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    into.entry(key.to_string()).or_default().insert(text);
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

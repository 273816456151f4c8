//! Settings that differ between methods.

use crate::experiment::results::{Outcome, Results};
use crate::report::document::{Entry, Table};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Values of one method: each key with all the values it has over tasks and seeds.
type Values = BTreeMap<String, BTreeSet<String>>;

/// A row for each setting whose values are not the same for all methods; none if there are none.
pub fn table(results: &Results) -> Option<Table> {
    let mut methods: Vec<(String, Values)> = Vec::new();
    for row in &results.layout.methods {
        let mut values = Values::new();
        for cell in results.cells.iter().filter(|c| c.method == row.name) {
            if let Outcome::Done(finding) = &cell.outcome {
                flatten("", &finding.settings, &mut values);
            }
        }
        if !values.is_empty() {
            methods.push((row.label.clone(), values));
        }
    }
    let keys: BTreeSet<&String> = methods.iter().flat_map(|(_, values)| values.keys()).collect();
    // What a run is called, and where it was written, is no setting of its method.
    let apart = |key: &str| matches!(key, "method.name" | "method" | "run_dir" | "seed");
    let rows: Vec<Vec<Entry>> = keys
        .into_iter()
        .filter(|key| !apart(key))
        .filter(|key| methods.windows(2).any(|two| two[0].1.get(*key) != two[1].1.get(*key)))
        .map(|key| {
            let mut row = vec![Entry::new(key.as_str())];
            row.extend(methods.iter().map(|(_, values)| match values.get(key) {
                Some(values) => {
                    values.iter().map(String::as_str).collect::<Vec<_>>().join(", ").into()
                }
                None => Entry::none("the method has no such setting"),
            }));
            row
        })
        .collect();
    let mut head = vec!["Setting".to_string()];
    head.extend(methods.iter().map(|(label, _)| label.clone()));
    let caption = "Settings that differ between methods (several values: by task)".into();
    (!rows.is_empty()).then_some(Table { caption, head, rows })
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

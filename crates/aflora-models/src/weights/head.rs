//! The rows of a classification head that a checkpoint has: one a class, in an order of its own,
//! which its config.json tells by name.

use crate::config_file::ConfigFile;
use crate::Result;
use aflora_core::nn::in_module;
use serde_json::Value;
use std::collections::BTreeMap;
use tch::Tensor;

/// What becomes of the rows of a head's last layer.
#[derive(Debug, PartialEq, Eq)]
enum Order {
    /// They are taken in the file's order.
    AsTheyAre,
    /// For each class of the task, its row in the file.
    ByName(Vec<i64>),
    /// The file's rows are for other classes: the head is initialised anew.
    New,
}

/// The rows of a head's last layer, and its name.
pub(super) struct ClassRows {
    layer: &'static str,
    order: Order,
}

impl ClassRows {
    /// Of the head's last layer `layer`, for a task with `classes`, each by the names that it goes
    /// by.
    ///
    /// As transformers' own example for GLUE does it: labels that nobody named (`LABEL_0`) are
    /// taken by number, others by name, whatever their case. Where the names are other ones, that
    /// example goes by number still; here the head is new, since its rows mean something else.
    pub(super) fn of_head(
        layer: Option<&'static str>,
        config: Option<&ConfigFile>,
        classes: &[&[&str]],
        warnings: &mut Vec<String>,
    ) -> ClassRows {
        let (Some(layer), Some(config), false) = (layer, config, classes.is_empty()) else {
            return ClassRows { layer: "", order: Order::AsTheyAre };
        };
        let (order, problem) = order(config, classes);
        warnings.extend(problem);
        ClassRows { layer, order }
    }

    fn has(&self, name: &str) -> bool {
        !self.layer.is_empty() && in_module(name, self.layer)
    }

    /// Whether the weight `name` is of a head for other classes.
    pub(super) fn is_new(&self, name: &str) -> bool {
        self.order == Order::New && self.has(name)
    }

    /// Puts the rows of the weight `name`, as they stand in the file, into the task's order.
    pub(super) fn reorder(&self, name: &str, weight: &mut Tensor) -> Result<()> {
        if let (Order::ByName(rows), true) = (&self.order, self.has(name)) {
            let rows = Tensor::from_slice(rows).to_device(weight.device());
            let ordered = weight.f_index_select(0, &rows)?;
            weight.f_copy_(&ordered)?;
        }
        Ok(())
    }
}

/// The order of the rows, and what is to say of it.
fn order(config: &ConfigFile, classes: &[&[&str]]) -> (Order, Option<String>) {
    let Some(names) = names(config) else { return (Order::AsTheyAre, None) };
    let numbered = |(id, name): (&i64, &String)| *name == format!("label_{id}");
    if names.iter().all(numbered) {
        return (Order::AsTheyAre, None);
    }
    let by_number = label2id(config);
    if by_number.is_some_and(|other| other != names) {
        let words = "`id2label` and `label2id` in config.json contradict each other: the head \
                     starts anew";
        return (Order::New, Some(words.into()));
    }
    let row = |class: &&[&str]| {
        names.iter().find(|(_, name)| class.iter().any(|own| own.to_lowercase() == **name))
    };
    let rows: Vec<i64> = classes.iter().filter_map(row).map(|(&id, _)| id).collect();
    let complete = rows.len() == classes.len() && rows.len() == names.len();
    // Rows are numbered as the names are: 0, 1, …
    if complete && names.keys().copied().eq(0..names.len() as i64) {
        return (Order::ByName(rows), None);
    }
    let own: Vec<&str> = classes.iter().map(|class| class.last().copied().unwrap_or("")).collect();
    let found: Vec<&str> = names.values().map(String::as_str).collect();
    let words = format!(
        "`id2label` in config.json names the classes {found:?}, the task's are {own:?}: the head \
         starts anew"
    );
    (Order::New, Some(words))
}

/// `id2label`, in small letters.
fn names(config: &ConfigFile) -> Option<BTreeMap<i64, String>> {
    let pair =
        |(id, name): (&String, &Value)| Some((id.parse().ok()?, name.as_str()?.to_lowercase()));
    config.object("id2label")?.iter().map(pair).collect()
}

/// `label2id`, turned round.
fn label2id(config: &ConfigFile) -> Option<BTreeMap<i64, String>> {
    let pair = |(name, id): (&String, &Value)| Some((id.as_i64()?, name.to_lowercase()));
    config.object("label2id")?.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(config: Value, classes: &[&[&str]]) -> (Order, Option<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, config.to_string()).unwrap();
        order(&ConfigFile::open(&path).unwrap(), classes)
    }

    #[test]
    fn labels_are_matched_by_any_name_whatever_its_case() {
        let classes: &[&[&str]] = &[&["0", "negative"], &["1", "positive"]];
        let json = |zero, one| serde_json::json!({ "id2label": { "0": zero, "1": one } });
        assert_eq!(rows(json("POSITIVE", "NEGATIVE"), classes), (Order::ByName(vec![1, 0]), None));
        assert_eq!(rows(json("0", "1"), classes), (Order::ByName(vec![0, 1]), None));
        assert_eq!(rows(json("LABEL_0", "LABEL_1"), classes), (Order::AsTheyAre, None));
        assert_eq!(rows(serde_json::json!({}), classes), (Order::AsTheyAre, None));
        let (order, words) = rows(json("neutral", "positive"), classes);
        assert_eq!(order, Order::New);
        let words = words.unwrap();
        assert!(
            words.contains(r#"["neutral", "positive"], the task's are ["negative""#),
            "{words}"
        );
        let mut both = json("positive", "negative");
        both["label2id"] = serde_json::json!({ "positive": 1, "negative": 0 });
        let (order, words) = rows(both, classes);
        assert_eq!(order, Order::New);
        assert!(words.unwrap().contains("`id2label` and `label2id`"));
    }
}

//! A task that is named by its files alone: `train=reviews.csv text=body label=stars`.
//!
//! These keys stand in a task's file, or in place of a task in a run file and on the command line.
//! They are written out as the keys of a task: the files, by their whole paths; the columns; what
//! the [rows ask for](crate::discover); metrics and settings for the kind. What else is said of the
//! task, such as `task.metrics`, is laid over them.

use super::block::ConfigBlock;
use super::layers::{overlay, SettingsGroup};
use super::own_files::{paths, share};
use super::own_hub;
use super::problem::{instead, Problem, SourceSpan};
use super::settings::is_name;
use super::tree::Setting;
use crate::discover;
use crate::feed::source::{delimiter, Files, HoldOut};
use crate::feed::{read, DataError, Source, TRAIN};
use crate::kinds;
use crate::task::{Kind, Label, TaskSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Rows of the user's own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OwnData {
    /// Rows to train on, in place of a task: a .csv, .tsv, .jsonl, .conll, .txt or .parquet file,
    /// packed (.gz, .bz2) or not, or all whose names a pattern fits (*, ?); or a data set of the hub.
    #[schemars(extend("section" = "Data of your own", "takes" = "file, [files], hub:owner/name"))]
    pub train: Files,
    /// Rows to evaluate on, or how many of 100 training rows are held out for that, of each class;
    /// null: 10%, or the data set's validation split.
    #[schemars(extend("takes" = "file, [files], 10%"))]
    pub dev: Files,
    /// Rows to judge the best adapter on, once, at the end, or how many of 100 training rows are held
    /// out for that, of each class.
    #[schemars(extend("takes" = "file, [files], 10%"))]
    pub test: Files,
    /// The column with the text, or those with the two texts of a pair, or that with the words of which
    /// each has a tag, or with the messages of conversations, or those with question and answer; null:
    /// text, tokens, or what the rows show.
    #[schemars(extend("takes" = "column, [first, second]"))]
    pub text: Files,
    /// The column with the label, or with the tags of words; or those of several scores, or of labels
    /// that have a column of 0 and 1 each; null: label, or tags.
    #[schemars(extend("takes" = "column, [columns]"))]
    pub label: Files,
    /// The column with the text to learn from, where text is to be written; null: input.
    #[schemars(extend("takes" = "column"))]
    pub input: Option<String>,
    /// The column with the text to be written; naming it asks for text.
    #[schemars(extend("takes" = "column"))]
    pub target: Option<String>,
    /// What stands between the cells of a line; null: what the header has most of.
    #[serde(deserialize_with = "delimiter")]
    #[schemars(extend("takes" = "character, tab"))]
    pub delimiter: Option<char>,
    /// What is asked for; null: what the rows show.
    pub kind: Option<Kind>,
    /// The classes, or the tags; null: those that the training rows have.
    #[schemars(extend("takes" = "[values]"))]
    pub labels: Vec<Label>,
}

impl SettingsGroup for OwnData {
    fn problems(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// The keys that say where the rows lie and how they are read.
const FILES: [&str; 8] = ["train", "dev", "test", "text", "label", "input", "target", "delimiter"];

/// Those that are keys of every task.
const OF_TASKS: [&str; 2] = ["kind", "labels"];

/// The split that is evaluated on.
const DEV: &str = "dev";

/// The split that is judged at the end.
const TEST: &str = "test";

/// How many of 100 training rows are held out where there is no other split.
const HELD_OUT: u64 = 10;

/// The source of the files.
const OWN: &str = "own";

/// Whether a key of a run is short for the task's of that name.
pub(super) fn is_key(key: &str) -> bool {
    FILES.contains(&key) || OF_TASKS.contains(&key)
}

/// Whether naming it anew names another task.
pub(super) fn names_a_task(key: &str) -> bool {
    key == TRAIN
}

/// Whether a block's settings name files in the short way.
pub(super) fn is_in(settings: &[Setting]) -> bool {
    settings.iter().any(|s| FILES.contains(&s.path[0].as_str()) && !s.value.is_null())
}

/// Writes the files that a task's block names out as the keys of a task. What is wrong goes to
/// `problems`; the block is not whole then.
pub(super) fn write_out(block: &mut ConfigBlock, problems: &mut Vec<Problem>) {
    let (own, mut others): (Vec<Setting>, Vec<Setting>) = std::mem::take(&mut block.settings)
        .into_iter()
        .partition(|s| FILES.contains(&s.path[0].as_str()));
    match written_out(block, &own, &others, problems) {
        Some(settings) => {
            others.splice(0..0, settings);
            block.settings = others;
        }
        None => block.whole = false,
    }
}

fn written_out(
    block: &ConfigBlock,
    own: &[Setting],
    others: &[Setting],
    problems: &mut Vec<Problem>,
) -> Option<Vec<Setting>> {
    let before = problems.len();
    let of_tasks = others.iter().filter(|s| OF_TASKS.contains(&s.path[0].as_str()));
    let said: Vec<Setting> = own.iter().chain(of_tasks).cloned().collect();
    let data = overlay(&OwnData::default(), &said, &[], block.origin.as_ref(), problems);
    let last = |key: &str| own.iter().rev().find(|s| s.path[0] == key && !s.value.is_null());
    let Some(train) = last(TRAIN) else {
        let other = own.iter().find(|s| !s.value.is_null())?;
        let key = &other.path[0];
        let problem = Problem::at(other.span.clone(), format!("`{key}` is of no training rows"));
        problems.push(problem.help("name them: `train=FILE`, in place of a task"));
        return None;
    };
    let elsewhere = |s: &&Setting| {
        s.path.starts_with(&["dataset".into(), "sources".into()])
            && s.path.get(2).is_some_and(|name| name != OWN)
    };
    if let Some(source) = others.iter().find(elsewhere) {
        let message = format!("the task `{}` says by itself where its rows lie", block.name);
        let help = "leave the task out to learn from files of your own";
        problems.push(Problem::at(train.span.clone(), message).help(help));
        problems.push(Problem::at(source.span.clone(), "here"));
        return None;
    }
    let mut share_of = |key: &str, files: &Files| {
        last(key).map_or(0, |setting| share(files, setting, problems).unwrap_or(0))
    };
    let (percent, test_percent) = (share_of(DEV, &data.dev), share_of(TEST, &data.test));
    let mut hold_out = HoldOut { percent, test_percent, ..HoldOut::default() };
    if problems.len() > before {
        return None;
    }
    let dev = last(DEV).filter(|_| percent == 0);
    let test = last(TEST).filter(|_| test_percent == 0);
    let mut source = Source { delimiter: data.delimiter, ..Source::default() };
    let mut classes = BTreeMap::new();
    let (train_files, dev_files, test_files, at_hand) = match own_hub::name(&data.train) {
        None => {
            let train = paths(&data.train, data.delimiter, train, problems);
            let dev = dev.map(|dev| paths(&data.dev, data.delimiter, dev, problems));
            let test = test.map(|test| paths(&data.test, data.delimiter, test, problems));
            let at_hand = train.0.iter().map(PathBuf::from).collect();
            (train, dev, test, at_hand)
        }
        Some(name) => {
            let dev = dev.map(|dev| (own_hub::name(&data.dev).unwrap_or_default(), dev));
            let test = test.map(|s| (own_hub::name(&data.test).unwrap_or_default(), s));
            let rows = match own_hub::rows((name, train), dev, test) {
                Ok(rows) => rows,
                Err(problem) => {
                    problems.push(problem);
                    return None;
                }
            };
            source.repo = Some(rows.dataset.repo.repo);
            source.revision = Some(rows.dataset.repo.revision);
            classes = rows.dataset.classes;
            let dev = rows.dev.filter(|_| hold_out.percent == 0);
            (rows.train, dev, rows.test, rows.paths)
        }
    };
    if problems.len() > before {
        return None;
    }
    if dev_files.is_none() && hold_out.percent == 0 {
        hold_out.percent = HELD_OUT;
    }
    source.files.insert(TRAIN.to_string(), train_files);
    source.files.extend(dev_files.map(|files| (DEV.to_string(), files)));
    let tested = test_files.is_some() || test_percent > 0;
    source.files.extend(test_files.map(|files| (TEST.to_string(), files)));
    let mut made = MadeSettings { span: train.span.clone(), settings: Vec::new() };
    let named = discover::Columns { text: &data.text.0, label: &data.label.0 };
    let look = or_told(discover::look(&source, &at_hand, named, data.kind), train, problems)?;
    let kind = match (data.kind, &data.target) {
        (Some(kind), _) => Some(kind),
        (None, Some(_)) => Some(Kind::Write),
        (None, None) => look.kind.map(|(kind, why)| {
            made.tell(&at_hand, &why);
            kind
        }),
    };
    if let Some(first) = at_hand.first().filter(|_| classes.is_empty()) {
        classes = or_told(read::classes(first), train, problems)?;
    }
    let kind = kind.or((!data.labels.is_empty()).then_some(Kind::Classify));
    source.columns = columns(kind, &data, &look.columns, &last, problems)?;
    check_columns(kind, &source, &at_hand, train, &last, problems)?;
    let labels = match &data.label.0[..] {
        columns @ [_, _, ..] => {
            made.put("labels", json!(columns));
            if kind == Some(Kind::Multilabel) {
                made.put("labels_in_columns", json!(true));
            }
            columns.to_vec()
        }
        _ => data.labels.iter().map(|label| label.as_str().to_string()).collect(),
    };
    let has_labels = matches!(kind, None | Some(Kind::Classify | Kind::Multilabel | Kind::Tokens));
    let (kind, labels) = match kind {
        Some(kind) if !labels.is_empty() || !has_labels => (kind, labels),
        kind => {
            let column = source.columns.get("label").or(source.columns.get("tags"));
            if let Some(names) = column.and_then(|column| classes.get(column)) {
                made.tell(&at_hand, &format!("the classes have names: {}", names.join(", ")));
                let numbers: Vec<String> = (0..names.len()).map(|n| n.to_string()).collect();
                made.put("labels", json!(numbers));
                made.put("label_names", json!(names));
                (kind.unwrap_or(Kind::Classify), names.clone())
            } else {
                let separator = others.iter().rev().find(|s| s.path[0] == "label_separator");
                let separator = separator.and_then(|s| s.value.as_str()?.chars().next());
                let separator = separator.unwrap_or(TaskSpec::default().label_separator);
                let found = discover::labels(&source, &at_hand, kind, separator);
                let found = or_told(found, train, problems)?;
                made.tell(&at_hand, &found.why);
                found.doubts.iter().for_each(|doubt| tracing::warn!("{doubt}"));
                if let Some(labels) = &found.labels {
                    made.put("labels", json!(labels));
                }
                (found.kind, found.labels.unwrap_or_default())
            }
        }
    };
    if !data.labels.is_empty() && are_numbered(&source, &at_hand, kind, &labels) {
        let n = labels.len();
        made.tell(
            &at_hand,
            &format!("labels are numbers, those of the {n} classes that are named"),
        );
        source.numbered_labels = true;
    }
    if kind == Kind::Classify {
        hold_out.within = source.columns.get("label").cloned();
    }
    source.hold_out = hold_out;
    let called = source.repo.as_deref().and_then(|repo| repo.rsplit('/').next());
    made.put("task", json!(called.map_or_else(|| name(&source.files[TRAIN]), String::from)));
    made.put("kind", json!(kind));
    made.put("dataset.evaluate_on", json!([DEV]));
    if tested {
        made.put("dataset.test_on", json!(TEST));
    }
    // Where they lie no more: a folder that `data` names.
    made.put("dataset.folders", json!(["."]));
    for (key, value) in serde_json::to_value(&source).unwrap_or_default().as_object()? {
        match value {
            Value::Object(group) => {
                for (name, value) in group {
                    made.put(&format!("dataset.sources.{OWN}.{key}.{name}"), value.clone());
                }
            }
            Value::Null => {}
            value => made.put(&format!("dataset.sources.{OWN}.{key}"), value.clone()),
        }
    }
    made.usual(kind, &labels);
    Some(made.settings)
}

/// Whether the labels of all rows are the numbers of these classes, none of which is a number itself.
fn are_numbered(source: &Source, files: &[PathBuf], kind: Kind, labels: &[String]) -> bool {
    let number = |label: &String| label.parse::<usize>().ok();
    let of_labels = matches!(kind, Kind::Classify | Kind::Multilabel | Kind::Tokens);
    if !of_labels || labels.iter().any(|label| label.parse::<f64>().is_ok()) {
        return false;
    }
    let separator = TaskSpec::default().label_separator;
    // What is wrong with a row is told where it is read for good.
    let found = discover::labels(source, files, Some(kind), separator).ok();
    let Some(found) = found.and_then(|found| found.labels) else { return false };
    found.iter().all(|label| number(label).is_some_and(|number| number < labels.len()))
}

/// What was read of the training rows; why not is told where they are named.
fn or_told<T>(
    read: Result<T, DataError>,
    train: &Setting,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    read.map_err(|error| problems.push(Problem::at(train.span.clone(), error.to_string()))).ok()
}

/// What each column is for; `found` holds the columns that no key names and the rows tell.
fn columns<'a>(
    kind: Option<Kind>,
    data: &OwnData,
    found: &[(&str, String)],
    last: &dyn Fn(&str) -> Option<&'a Setting>,
    problems: &mut Vec<Problem>,
) -> Option<BTreeMap<String, String>> {
    let before = problems.len();
    let rules = kinds::of(kind.unwrap_or_default());
    let several = data.label.0.len() > 1;
    let target = rules.target(&TaskSpec::default());
    // A text to write has keys of its own; all others share theirs.
    let key_of = |role: &str| match role {
        "input" | "target" => role.to_string(),
        role if Some(role) == target => "label".into(),
        _ => "text".into(),
    };
    let roles = rules.inputs().iter().flat_map(|roles| roles.iter().copied()).chain(target);
    let keys: BTreeSet<String> = roles.map(key_of).collect();
    for setting in ["text", "label", "input", "target"].iter().filter_map(|key| last(key)) {
        let key = &setting.path[0];
        if !keys.contains(key) {
            let right: Vec<String> = keys.iter().rev().map(|key| format!("`{key}`")).collect();
            let (asks, right) = (rules.asks_for(), right.join(" and "));
            let message =
                format!("`{key}` has no say here: a task that {asks} has columns {right}");
            problems.push(Problem::at(setting.span.clone(), message));
        }
    }
    let takes_several = matches!(kind, Some(Kind::Score | Kind::Multilabel));
    if let Some(setting) = last("label").filter(|_| several && !takes_several) {
        let asks = rules.asks_for();
        let message = format!("`label` has several columns, but a task that {asks} has one");
        problems.push(Problem::at(setting.span.clone(), message));
    }
    let named: Vec<&String> = data.text.0.iter().chain(&data.input).collect();
    let inputs = match named.len() {
        0 => {
            let is_found = |role: &&str| found.iter().any(|(known, _)| known == role);
            let all = rules.inputs().iter().find(|roles| roles.iter().all(is_found));
            all.or(rules.inputs().first())
        }
        n => rules.inputs().iter().find(|roles| roles.len() == n),
    };
    let Some(inputs) = inputs else {
        let message = match rules.inputs().iter().any(|roles| roles.len() == 2) {
            true => format!("`text` has {} columns, but a pair has two", named.len()),
            false => format!("`text` has {} columns, but one is read", named.len()),
        };
        problems.push(Problem::at(last("text").map(|s| s.span.clone()), message));
        return None;
    };
    let usual = |role: &str| {
        let found = found.iter().find(|(known, _)| *known == role);
        found.map_or_else(|| role.to_string(), |(_, column)| column.clone())
    };
    let mut columns = BTreeMap::new();
    for (i, role) in inputs.iter().enumerate() {
        let column = named.get(i).map_or_else(|| usual(role), |name| name.to_string());
        columns.insert(role.to_string(), column);
    }
    if let Some(role) = target.filter(|_| !several) {
        let named = if role == "target" { data.target.as_ref() } else { data.label.0.first() };
        columns.insert(role.to_string(), named.cloned().unwrap_or_else(|| usual(role)));
    }
    (problems.len() == before).then_some(columns)
}

/// Tells the columns that the first row does not have, where they are named.
fn check_columns<'a>(
    kind: Option<Kind>,
    source: &Source,
    files: &[PathBuf],
    train: &'a Setting,
    last: &dyn Fn(&str) -> Option<&'a Setting>,
    problems: &mut Vec<Problem>,
) -> Option<()> {
    let path = files.first()?;
    let row = or_told(read::first(path, source), train, problems)?;
    let there: Vec<&str> = row.names().collect();
    let mut wanted: Vec<(&str, &Setting)> = Vec::new();
    for setting in ["text", "input", "label", "target"].iter().filter_map(|key| last(key)) {
        let names = match &setting.value {
            Value::Array(names) => names.iter().collect(),
            name => vec![name],
        };
        wanted.extend(names.into_iter().filter_map(Value::as_str).map(|name| (name, setting)));
    }
    // Those of other kinds have more than one form.
    if matches!(kind, None | Some(Kind::Classify | Kind::Score | Kind::Multilabel)) {
        let known: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
        let usual = source.columns.values().map(String::as_str);
        wanted.extend(usual.filter(|name| !known.contains(name)).map(|name| (name, train)));
    }
    let before = problems.len();
    for (name, setting) in wanted.into_iter().filter(|(name, _)| !there.contains(name)) {
        let message = format!("{} has no column `{name}`", path.display());
        problems.push(Problem::at(setting.span.clone(), message).help(instead(name, &there)));
    }
    (problems.len() == before).then_some(())
}

/// What runs on these files are called: as the first file, or as its folder where its name says
/// only which split it is.
fn name(train: &Files) -> String {
    let path = PathBuf::from(train.0.first().cloned().unwrap_or_default());
    let whole = std::path::absolute(&path).unwrap_or(path);
    let of = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.split('.').find(|part| !part.is_empty()).unwrap_or_default().to_string()
    };
    let file = of(&whole);
    let folder = whole.parent().map(of).unwrap_or_default();
    let says_nothing = file.starts_with(TRAIN) && is_name(&folder);
    let name = if says_nothing { folder } else { file };
    if is_name(&name) {
        name
    } else {
        OWN.into()
    }
}

/// The settings that are made.
struct MadeSettings {
    span: SourceSpan,
    settings: Vec<Setting>,
}

impl MadeSettings {
    fn put(&mut self, key: &str, value: Value) {
        let path: Vec<String> = key.split('.').map(String::from).collect();
        let keys = vec![self.span.clone(); path.len()];
        self.settings.push(Setting { path, keys, value, span: self.span.clone() });
    }

    /// Says what was found.
    fn tell(&self, files: &[PathBuf], why: &str) {
        let first = files.first().map(|file| file.display().to_string()).unwrap_or_default();
        match files.len().saturating_sub(1) {
            0 => tracing::info!("{first}: {why}"),
            more => tracing::info!("{first} and {more} more: {why}"),
        }
    }

    /// What suits most tasks of that kind with these labels.
    fn usual(&mut self, kind: Kind, labels: &[String]) {
        let usual = kinds::of(kind).usual(labels);
        if let Some(model) = usual.model {
            self.put("model", json!(model));
        }
        self.put("metrics", json!(usual.metrics));
        for (key, value) in usual.run {
            let value = if value.fract() == 0.0 { json!(*value as i64) } else { json!(value) };
            self.put(&format!("run.{key}"), value);
        }
    }
}

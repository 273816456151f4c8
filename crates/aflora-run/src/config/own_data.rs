//! A task that is named by its files alone: `train=reviews.csv text=body label=stars`.
//!
//! These keys stand in a task's file, or in place of a task in a run file and on the command line.
//! They are written out as the keys of a task: the files, by their whole paths; the columns; what
//! the [rows ask for](crate::discover); metrics and settings for the kind. What else is said of the
//! task, such as `task.metrics`, is laid over them.

use super::block::ConfigBlock;
use super::layers::{overlay, SettingsGroup};
use super::own_hub;
use super::problem::{Problem, SourceSpan, COMMAND_LINE};
use super::settings::is_name;
use super::tree::Setting;
use crate::discover;
use crate::feed::source::{Files, HoldOut};
use crate::feed::{is_known_form, Source, TRAIN};
use crate::task::conversation;
use crate::task::spec::Label;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Rows of the user's own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OwnData {
    /// Rows to train on, in place of a task: a .csv, .tsv, .jsonl or .parquet file, packed (.gz,
    /// .bz2) or not; or a data set of the hub.
    #[schemars(extend("section" = "Data of your own", "takes" = "file, [files], hub:owner/name"))]
    pub train: Files,
    /// Rows to evaluate on, or how many of 100 training rows are held out for that, of each class;
    /// null: 10%, or the data set's validation split.
    #[schemars(extend("takes" = "file, [files], 10%"))]
    pub dev: Files,
    /// Rows to judge the best adapter on, once, at the end.
    #[schemars(extend("takes" = "file, [files]"))]
    pub test: Files,
    /// The column with the text, or those with the two texts of a pair, or that with the messages of
    /// conversations; null: text, or what the rows show.
    #[schemars(extend("takes" = "column, [first, second]"))]
    pub text: Files,
    /// The column with the label; null: label.
    #[schemars(extend("takes" = "column"))]
    pub label: Option<String>,
    /// The column with the text to learn from, where text is to be written; null: input.
    #[schemars(extend("takes" = "column"))]
    pub input: Option<String>,
    /// The column with the text to be written; naming it asks for text.
    #[schemars(extend("takes" = "column"))]
    pub target: Option<String>,
    /// What stands between the cells of a line; null: what the header has most of.
    #[schemars(extend("takes" = "character"))]
    pub delimiter: Option<char>,
    /// What is asked for; null: what the rows show.
    #[schemars(extend("takes" = "chat, classify, score, write"))]
    pub kind: Option<String>,
    /// The classes; null: those that the training rows have.
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

/// The kinds of tasks that these keys ask for.
const KINDS: [&str; 4] = ["chat", "classify", "score", "write"];

/// The split that is evaluated on.
const DEV: &str = "dev";

/// The split that is judged at the end.
const TEST: &str = "test";

/// How many of 100 training rows are held out where there is no other split.
const HELD_OUT: u64 = 10;

/// The kind of conversations.
const CHAT: &str = "chat";

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
    let mut data = overlay(&OwnData::default(), &said, &[], block.origin.as_ref(), problems);
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
    let kind = others.iter().rev().find(|s| s.path[0] == "kind");
    if let (Some(named), Some(setting)) = (&data.kind, kind) {
        if !KINDS.contains(&named.as_str()) {
            let known = KINDS.join(", ");
            let message =
                format!("`kind` is `{named}`, but keys for rows of one's own ask for {known}");
            let help = "a task of another kind is a file, which says what its columns are for: \
                        `task=my/task.yaml`";
            problems.push(Problem::at(setting.span.clone(), message).help(help));
            return None;
        }
    }
    let mut columns = columns(&data, &last, problems);
    let mut hold_out = HoldOut { percent: share(&data.dev).unwrap_or(0), ..HoldOut::default() };
    let dev = last(DEV).filter(|_| hold_out.percent == 0);
    let mut source = Source { delimiter: data.delimiter, ..Source::default() };
    let mut classes = BTreeMap::new();
    let (train_files, dev_files, test_files, at_hand) = match own_hub::name(&data.train) {
        None => {
            let train = paths(&data.train, &data, train, problems);
            let dev = dev.map(|dev| paths(&data.dev, &data, dev, problems));
            let test = last(TEST).map(|test| paths(&data.test, &data, test, problems));
            let at_hand = train.0.iter().map(PathBuf::from).collect();
            (train, dev, test, at_hand)
        }
        Some(name) => {
            let dev = dev.map(|dev| (own_hub::name(&data.dev).unwrap_or_default(), dev));
            let test = last(TEST).map(|s| (own_hub::name(&data.test).unwrap_or_default(), s));
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
    let tested = test_files.is_some();
    source.files.extend(test_files.map(|files| (TEST.to_string(), files)));
    let named = ["text", "label", "input", "target"].iter().any(|key| last(key).is_some());
    let unsaid = data.kind.is_none() && data.labels.is_empty();
    let chats = unsaid || data.kind.as_deref() == Some(CHAT);
    let found_chats =
        (chats && !named).then(|| discover::conversations(&source, &at_hand)).flatten();
    match found_chats {
        Some(found) => {
            let names: Vec<&str> = found.iter().map(|(_, name)| name.as_str()).collect();
            tracing::info!("`{}`: conversations", names.join("` and `"));
            columns = Some(found.into_iter().collect());
            data.kind = Some(CHAT.into());
        }
        None if data.kind.as_deref() == Some(CHAT) && !named => {
            let message =
                "the rows have no conversations: a list in `messages` or `conversations`, or \
                           `instruction` and `output`";
            let help = "name the columns: `text=COLUMN`, or `input=QUESTION target=ANSWER`";
            problems.push(Problem::at(train.span.clone(), message).help(help));
            return None;
        }
        None => {}
    }
    source.columns = columns?;
    let mut made = MadeSettings { span: train.span.clone(), settings: Vec::new() };
    let kind = match (&data.kind, source.columns.contains_key("target")) {
        (Some(kind), _) => kind.clone(),
        (None, true) => "write".to_string(),
        (None, false) if !data.labels.is_empty() => "classify".to_string(),
        (None, false) => String::new(),
    };
    let told = source.columns.get("label").and_then(|column| classes.get(column));
    let kind = match (kind.as_str(), told) {
        ("" | "classify", Some(names)) if data.labels.is_empty() => {
            tracing::info!("the data set names the classes: {}", names.join(", "));
            let numbers: Vec<String> = (0..names.len()).map(|class| class.to_string()).collect();
            made.put("labels", json!(numbers));
            made.put("label_names", json!(names));
            "classify".into()
        }
        ("", _) => found(&source, &at_hand, false, &mut made, problems)?,
        ("classify", _) if data.labels.is_empty() => {
            found(&source, &at_hand, true, &mut made, problems)?
        }
        _ => kind,
    };
    if kind == "classify" {
        hold_out.within = source.columns.get("label").cloned();
    }
    source.hold_out = hold_out;
    let called = source.repo.as_deref().and_then(|repo| repo.rsplit('/').next());
    made.put("task", json!(called.map_or_else(|| name(&data.train), String::from)));
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
    made.usual(&kind);
    Some(made.settings)
}

/// The kind that the training rows ask for; their labels are made settings.
fn found(
    source: &Source,
    files: &[PathBuf],
    classes: bool,
    made: &mut MadeSettings,
    problems: &mut Vec<Problem>,
) -> Option<String> {
    match discover::answers(source, files, classes) {
        Ok(found) => {
            let first = files.first().map(|file| file.display().to_string()).unwrap_or_default();
            tracing::info!("{first}: {}", found.why);
            let kind = if found.classes.is_some() { "classify" } else { "score" };
            if let Some(classes) = found.classes {
                made.put("labels", json!(classes));
            }
            Some(kind.into())
        }
        Err(error) => {
            problems.push(Problem::at(made.span.clone(), error.to_string()));
            None
        }
    }
}

/// What each column is for.
fn columns<'a>(
    data: &OwnData,
    last: &dyn Fn(&str) -> Option<&'a Setting>,
    problems: &mut Vec<Problem>,
) -> Option<BTreeMap<String, String>> {
    let chats = data.kind.as_deref() == Some(CHAT);
    let writes = !chats && (data.kind.as_deref() == Some("write") || data.target.is_some());
    let strange: &[&str] = match (chats, writes) {
        (true, _) => &["label"],
        (_, true) => &["text", "label"],
        _ => &["input", "target"],
    };
    for setting in strange.iter().filter_map(|key| last(key)) {
        let words = match writes {
            _ if chats => "conversations lie in `text`, or `input` is answered by `target`",
            true => "a task that asks for text has columns `input` and `target`",
            false => "a task that asks for labels or scores has columns `text` and `label`",
        };
        let message = format!("`{}` has no say here: {words}", setting.path[0]);
        problems.push(Problem::at(setting.span.clone(), message));
    }
    let pair = |role: &str, column: &str| (role.to_string(), column.to_string());
    let or = |column: &Option<String>, usual: &str| column.clone().unwrap_or(usual.into());
    if chats {
        return Some(match (&data.input, &data.target, &data.text.0[..]) {
            (None, None, [messages]) => [pair(conversation::MESSAGES, messages)].into(),
            (Some(input), Some(target), []) => {
                let [question, answer] = conversation::PAIR;
                [pair(question, input), pair(answer, target)].into()
            }
            // Found from the rows.
            (None, None, []) => BTreeMap::new(),
            _ => {
                let message =
                    "conversations are named by `text=COLUMN`, or by both `input=QUESTION` \
                               and `target=ANSWER`";
                problems.push(Problem::at(last(TRAIN).map(|s| s.span.clone()), message));
                return None;
            }
        });
    }
    if writes {
        let (input, target) = (or(&data.input, "input"), or(&data.target, "target"));
        return Some([pair("input", &input), pair("target", &target)].into());
    }
    let label = pair("label", &or(&data.label, "label"));
    match &data.text.0[..] {
        [] => Some([pair("text", "text"), label].into()),
        [text] => Some([pair("text", text), label].into()),
        [a, b] => Some([pair("text_a", a), pair("text_b", b), label].into()),
        many => {
            let message = format!("`text` has {} columns, but a pair has two", many.len());
            problems.push(Problem::at(last("text").map(|s| s.span.clone()), message));
            None
        }
    }
}

/// The share that a split is given as, of 100 rows.
fn share(files: &Files) -> Option<u64> {
    let [text] = &files.0[..] else { return None };
    let percent = text.trim().strip_suffix('%')?.trim().parse().ok()?;
    (1..100).contains(&percent).then_some(percent)
}

/// The whole paths of the files that a setting names.
fn paths(files: &Files, data: &OwnData, named: &Setting, problems: &mut Vec<Problem>) -> Files {
    let mut paths = Vec::new();
    if files.0.is_empty() {
        problems.push(Problem::at(named.span.clone(), format!("`{}` is empty", named.name())));
    }
    for name in &files.0 {
        match path(name, named) {
            Ok(path) if data.delimiter.is_none() && !is_known_form(Path::new(&path)) => {
                let message = format!("the name of {path} does not tell its form");
                let help = "read are .csv, .tsv, .jsonl, .json and .parquet, and all but the last \
                            with .gz or .bz2 behind; with `delimiter`, any text is read as CSV";
                problems.push(Problem::at(named.span.clone(), message).help(help));
            }
            Ok(path) => paths.push(path),
            Err(problem) => problems.push(problem),
        }
    }
    Files(paths)
}

/// The whole path of a file: seen from the file that names it, or else from the working folder.
pub(super) fn path(name: &str, named: &Setting) -> Result<String, Problem> {
    let by = Path::new(&named.span.source.name);
    let beside = by.parent().filter(|_| by != Path::new(COMMAND_LINE));
    let tried: Vec<PathBuf> =
        beside.into_iter().chain([Path::new("")]).map(|folder| folder.join(name)).collect();
    let problem = |message: String| Problem::at(named.span.clone(), message);
    let Some(found) = tried.iter().find(|path| path.is_file()) else {
        let first = &tried[0];
        if first.is_dir() {
            return Err(problem(format!("{} is a folder; name the files in it", first.display())));
        }
        let folder = first.parent().filter(|f| *f != Path::new("")).unwrap_or(Path::new("."));
        let there = names_in(folder);
        let error = problem(format!("there is no file {}", first.display()));
        return Err(match there.is_empty() {
            true => error,
            false => error.help(format!("{} holds {}", folder.display(), there.join(", "))),
        });
    };
    let whole = std::path::absolute(found).unwrap_or_else(|_| found.clone());
    let text = whole.to_str().map(str::to_string);
    text.ok_or_else(|| problem(format!("the path of {name} is no UTF-8")))
}

/// The first files in a folder that hold rows.
fn names_in(folder: &Path) -> Vec<String> {
    const SHOWN: usize = 8;
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = files.filter(|file| is_known_form(&file.path()));
    let mut names: Vec<String> =
        names.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names.truncate(SHOWN);
    names
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

    /// What suits most tasks of that kind.
    fn usual(&mut self, kind: &str) {
        let (metrics, run) = match kind {
            "write" => (
                json!(["exact_match", "rougeL"]),
                json!({"epochs": 4, "batch_size": 32, "lr": 5e-3, "weight_decay": 0.0, "max_grad_norm": 1.0}),
            ),
            CHAT => (
                json!(["perplexity"]),
                json!({"epochs": 3, "batch_size": 16, "max_length": 1024, "lr": 5e-3, "weight_decay": 0.0, "max_grad_norm": 1.0}),
            ),
            kind => {
                self.put("model", json!("minilm"));
                let metrics = if kind == "score" {
                    json!(["pearson", "spearman"])
                } else {
                    json!(["accuracy", "matthews"])
                };
                (metrics, json!({"epochs": 5, "batch_size": 32, "lr": 4e-3, "head_lr": 2e-3}))
            }
        };
        self.put("metrics", metrics);
        for (key, value) in run.as_object().into_iter().flatten() {
            self.put(&format!("run.{key}"), value.clone());
        }
    }
}

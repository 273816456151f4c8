//! The blocks of a run: the task, the model and the method that a run file names.

use super::block::ConfigBlock;
use super::problem::{instead, Problem, COMMAND_LINE};
use super::schema::{Key, Range};
use super::tree::{self, Setting};
use super::{model_folder, own_data, shipped};
use aflora_models::model_file;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The kind of block that may be named by a folder: a model, by that of its files.
const BLOCK_OF_FOLDERS: &str = "model";

/// The kind of block that may be named by its files of rows.
const TASK: &str = "task";

/// The keys that name a block.
pub const BLOCKS: [&str; 3] = [TASK, "model", "method"];

/// [`BLOCKS`] as keys.
pub(super) fn keys() -> Vec<Key> {
    let key = |name: &str, takes: &str, about: &str| Key {
        name: name.into(),
        takes: takes.into(),
        about: about.into(),
        default: Value::Null,
        section: None,
        range: Range::default(),
    };
    vec![
        key("task", "name, file", "What to learn: a file of tasks/"),
        key("model", "name, file", "What to adapt: a file of models/, or the folder of a model"),
        key("method", "name, file", "How: a file of methods/"),
    ]
}

/// The settings that the user gives: what the run file and the command line say.
#[derive(Debug)]
pub struct UserSettings {
    /// Their settings, later ones winning.
    pub settings: Vec<Setting>,
    /// Whether all of it could be read: if not, what seems to be missing may be there.
    pub whole: bool,
}

impl UserSettings {
    /// Reads a run file, if there is one, and overrides on top of it.
    pub fn read(
        run_file: Option<&Path>,
        overrides: &[String],
        problems: &mut Vec<Problem>,
    ) -> UserSettings {
        let file = run_file.map_or(Some(Vec::new()), |path| tree::read(path, problems));
        let missing = run_file.filter(|path| !path.exists());
        if let (Some(run_file), Some(problem)) = (missing, problems.last_mut()) {
            let names = names_in(run_file.parent().unwrap_or(Path::new("")), "");
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let name = run_file.file_name().unwrap_or_default().to_string_lossy();
            problem.help = (!names.is_empty()).then(|| instead(&name, &names));
        }
        let mut whole = file.is_some();
        let mut settings = file.unwrap_or_default();
        // Null says nothing.
        let says = |s: &Setting| !(own_data::is_key(&s.path[0]) && s.value.is_null());
        settings.retain(says);
        settings.iter_mut().for_each(of_task);
        let mut typed = Vec::new();
        for text in overrides {
            let Some(read) = tree::read_override(text, problems) else {
                whole = false;
                continue;
            };
            // Naming a block anew drops what the file says about the old one.
            let key = text.split('=').next().unwrap_or_default().trim();
            let key = if own_data::names_a_task(key) { TASK } else { key };
            if BLOCKS.contains(&key) {
                settings.retain(|s| s.path[0] != key);
            }
            typed.extend(read);
        }
        typed.retain(says);
        typed.iter_mut().for_each(of_task);
        settings.extend(typed);
        UserSettings { settings, whole }
    }

    /// What is said of `key` last.
    pub fn last(&self, key: &str) -> Option<&Setting> {
        self.settings.iter().rev().find(|s| s.path == [key])
    }

    /// Whether a block of that kind is named or written out.
    pub fn names(&self, kind: &str) -> bool {
        self.settings.iter().any(|s| s.path[0] == kind && !s.value.is_null())
    }
}

/// Puts a key that is short for the task's of that name below the task.
fn of_task(setting: &mut Setting) {
    if own_data::is_key(&setting.path[0]) {
        setting.path.insert(0, TASK.into());
        setting.keys.insert(0, setting.keys[0].clone());
    }
}

/// The folders that blocks are looked for in, and what was said about them.
#[derive(Debug)]
pub struct Finder<'a> {
    /// The run file's folder, then the project's `configs`.
    pub folders: Vec<PathBuf>,
    /// The run file and the command line.
    pub user: &'a UserSettings,
}

impl Finder<'_> {
    /// The block that is named, or whose settings stand in the run file itself.
    pub fn block(
        &self,
        kind: &str,
        default: Option<&str>,
        problems: &mut Vec<Problem>,
    ) -> Option<ConfigBlock> {
        let inline: Vec<Setting> =
            self.user.settings.iter().filter_map(|s| s.below(kind)).collect();
        let named = self.user.last(kind);
        // `model:` with nothing behind it names none.
        let named = named.filter(|s| !s.value.is_null());
        let (name, origin) = match (named, default) {
            (Some(setting), _) => match &setting.value {
                Value::String(name) => (name.clone(), Some(setting)),
                _ => {
                    let message = format!("`{kind}` must be the name of a {kind}, or its settings");
                    problems.push(Problem::at(setting.span.clone(), message));
                    return None;
                }
            },
            (None, _)
                if inline.iter().any(|s| s.path == [kind])
                    || (kind == TASK && own_data::is_in(&inline)) =>
            {
                let name = inline.iter().rev().find(|s| s.path == [kind]);
                let name = name.and_then(|s| s.value.as_str()).unwrap_or_default().to_string();
                return Some(ConfigBlock { name, settings: inline, origin: None, whole: true });
            }
            (None, Some(name)) => (name.to_string(), None),
            (None, None) => {
                if self.user.whole {
                    let problem = Problem::at(None, format!("no {kind} is named"));
                    let names = self.names(kind).join(", ");
                    problems.push(problem.help(format!("write `{kind}: name`, one of: {names}")));
                }
                return None;
            }
        };
        let mut block =
            ConfigBlock { origin: origin.map(|s| s.span.clone()), name, ..ConfigBlock::default() };
        if let (BLOCK_OF_FOLDERS, Some(origin)) = (kind, origin) {
            if let Some(folder) = self.folder(&block.name, origin) {
                match model_folder::settings(&folder, &origin.span) {
                    Ok(settings) => block.settings = settings,
                    Err(problem) => {
                        problems.push(problem);
                        return None;
                    }
                }
                block.whole = true;
                block.settings.extend(inline);
                return Some(block);
            }
        }
        match self.file(kind, &block.name, origin) {
            Ok(file) => {
                let read = file.read(problems);
                block.whole = read.is_some();
                block.settings = read.unwrap_or_default();
            }
            // A default is not missed where another one may have been named.
            Err(_) if origin.is_none() && !self.user.whole => return None,
            Err(problem) => problems.push(problem),
        }
        if is_path(&block.name) {
            let stem = Path::new(&block.name).file_stem().unwrap_or_default();
            block.name = stem.to_string_lossy().into_owned();
        }
        block.settings.extend(inline);
        Some(block)
    }

    /// The folder or GGUF file that a model is named by, if it is one: a path, or a name that no
    /// block has and a model's folder does.
    fn folder(&self, name: &str, origin: &Setting) -> Option<PathBuf> {
        let folder = self.path_of(name, origin);
        let is_name = !name.contains(['/', '\\']) && !matches!(name, "." | "..");
        let is_block = || self.names(BLOCK_OF_FOLDERS).iter().any(|known| known == name);
        let is_model = || model_file::is_there(&folder.join("config.json")) && !is_block();
        (model_file::is_folder(&folder) && (!is_name || is_model())).then_some(folder)
    }

    /// What a path leads to: in a file, relative to that file; on the command line, to the working
    /// folder.
    fn path_of(&self, name: &str, origin: &Setting) -> PathBuf {
        let typed = origin.span.source.name == COMMAND_LINE;
        let folder = self.folders.first().filter(|_| !typed);
        folder.map_or_else(|| PathBuf::from(name), |f| f.join(name))
    }

    /// The file of a block: by its path if `name` ends in `.yaml`, else in one of the folders, else
    /// the one that the program was built with.
    fn file(&self, kind: &str, name: &str, origin: Option<&Setting>) -> Result<BlockFile, Problem> {
        let span = origin.map(|s| s.span.clone());
        if is_path(name) {
            let path = origin.map_or_else(|| PathBuf::from(name), |s| self.path_of(name, s));
            let missing = || Problem::at(span, format!("there is no file {}", path.display()));
            return match path.is_file() {
                true => Ok(BlockFile::Path(path)),
                false => Err(missing()),
            };
        }
        // A name is a name: it opens nothing outside the folder.
        if !name.contains(['/', '\\']) {
            let paths = self.folders.iter().map(|f| f.join(format!("{kind}s/{name}.yaml")));
            if let Some(path) = paths.into_iter().find(|path| path.is_file()) {
                return Ok(BlockFile::Path(path));
            }
            if let Some(text) = shipped::text(kind, name) {
                return Ok(BlockFile::Shipped(shipped::source(kind, name), text));
            }
        }
        let names = self.names(kind);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let folders: Vec<String> =
            self.folders.iter().map(|f| f.join(format!("{kind}s")).display().to_string()).collect();
        let message = format!("there is no {kind} `{name}` in {}", folders.join(" or "));
        Err(Problem::at(span, message).help(instead(name, &names)))
    }

    /// The settings in the file of the block of that name; a missing one is told.
    pub fn read(
        &self,
        kind: &str,
        name: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<Vec<Setting>> {
        match self.file(kind, name, None) {
            Ok(file) => file.read(problems),
            Err(problem) => {
                problems.push(problem);
                None
            }
        }
    }

    /// The names of all blocks of that kind: in the folders, or built in.
    pub fn names(&self, kind: &str) -> Vec<String> {
        let folders = self.folders.iter().map(|f| f.join(format!("{kind}s")));
        let mut names: Vec<String> = folders.flat_map(|f| names_in(&f, ".yaml")).collect();
        names.extend(shipped::names(kind).map(String::from));
        names.sort();
        names.dedup();
        names
    }
}

/// Where a block was found.
enum BlockFile {
    Path(PathBuf),
    /// In the program: what it is called, and its text.
    Shipped(String, &'static str),
}

impl BlockFile {
    fn read(self, problems: &mut Vec<Problem>) -> Option<Vec<Setting>> {
        match self {
            BlockFile::Path(path) => tree::read(&path, problems),
            BlockFile::Shipped(name, text) => tree::read_text(name, text.to_string(), problems),
        }
    }
}

/// Whether a block is named by its file's path.
fn is_path(name: &str) -> bool {
    name.ends_with(".yaml") || name.ends_with(".yml")
}

/// The YAML files in a folder, without the ending `without`, sorted.
fn names_in(folder: &Path, without: &str) -> Vec<String> {
    let folder = if folder == Path::new("") { Path::new(".") } else { folder };
    let name = |file: std::fs::DirEntry| {
        let name = file.file_name().into_string().ok().filter(|name| name.ends_with(".yaml"))?;
        Some(name.strip_suffix(without)?.to_string())
    };
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = files.filter_map(name).collect();
    names.sort();
    names
}

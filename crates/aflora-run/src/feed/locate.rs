//! Where a task's rows are looked for: folders that the user named, what comes with the project,
//! the hub's cache, the hub.

use super::draw::{self, Lot, Side};
use super::notes::{tell_contradictory, tell_drawn, tell_repeated};
use super::read::{read, Part};
use super::row::Row;
use super::source::{candidates, DatasetSpec, HoldOut, Source, ITSELF, TRAIN};
use super::DataError;
use crate::hub::{Hub, Repo};
use crate::installation;
use crate::provenance::sha256;
use aflora_record::provenance::DataFile;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// A task's examples.
#[derive(Debug)]
pub struct Dataset<T> {
    /// The training split.
    pub train: Vec<T>,
    /// The evaluation splits by name.
    pub evals: Vec<(String, Vec<T>)>,
    /// The split that is judged at the end, if there is one.
    pub test: Option<(String, Vec<T>)>,
    /// Where they came from.
    pub files: Vec<DataFile>,
}

/// Looks for data in a fixed order of places.
#[derive(Debug)]
pub struct Locator {
    /// Folders that the user named, with how (`data=…`, `AFLORA_DATA`).
    pub named: Vec<(String, PathBuf)>,
    /// The folders that what comes with the project may lie in: the run's own project first.
    pub projects: Vec<PathBuf>,
    /// The hub and its cache.
    pub hub: Hub,
}

/// The files of one split, with the source that tells their columns.
struct FoundSplit<'a> {
    split: &'a str,
    source: &'a Source,
    paths: Vec<PathBuf>,
}

impl Locator {
    /// Loads the splits of `task`; `parse` makes an example of a row of a source, or says what is
    /// wrong with it.
    ///
    /// # Errors
    /// They are nowhere (everything tried is listed), incomplete, or damaged.
    pub fn load<T>(
        &self,
        task: &str,
        spec: &DatasetSpec,
        parse: impl Fn(&Row, &Source) -> Result<T, String>,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Dataset<T>, DataError> {
        // Files that are named whole are meant, whatever else has their names.
        let mut paths = String::new();
        for (_, source) in spec.sources.iter().filter(|(_, source)| source.is_of_paths()) {
            let splits = spec.splits_of(source).map(|split| {
                let paths = in_folder(Path::new(""), source.files(split));
                Some(FoundSplit { split, source, paths: paths? })
            });
            if let Some(found) = splits.collect() {
                return assemble(spec, found, parse);
            }
            let files = source.files.values().flat_map(|files| &files.0);
            for file in files.filter(|file| !Path::new(file).is_file()) {
                paths.push_str(&format!("\n  {file}"));
            }
        }
        let mut skipped = SkippedFolders::default();
        for (how, folder) in &self.named {
            if let Some(place) = folder_in(folder, task, spec) {
                return assemble(spec, files_of(&place, spec)?, parse);
            }
            skipped.over(how, folder, || missing(task, spec));
        }
        let mut tried = format!("{paths}{skipped}");
        for (_, source) in spec.sources.iter() {
            if let Some(found) = self.elsewhere(source, spec, &mut tried, progress) {
                let dataset = assemble(spec, found, parse)?;
                skipped.tell(task, &dataset.files);
                return Ok(dataset);
            }
        }
        Err(DataError::NotFound { task: task.to_string(), tried, remedy: remedy(task, spec) })
    }

    /// Every split of a source from where it lies by itself; what is not there goes to `tried`.
    fn elsewhere<'a>(
        &self,
        source: &'a Source,
        spec: &'a DatasetSpec,
        tried: &mut String,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Option<Vec<FoundSplit<'a>>> {
        let splits = || spec.splits_of(source);
        if let Some(place) =
            source.place.as_ref().filter(|_| !source.example || self.named.is_empty())
        {
            let mut places = self.projects.iter().map(|project| project.join(place));
            return places.find_map(|place| {
                let all = splits().map(|split| {
                    let files = source.files(split);
                    let paths = in_folder(&place, files);
                    if paths.is_none() {
                        tried.push_str(&format!("\n  {}", place.join(shown(files)).display()));
                    }
                    Some(FoundSplit { split, source, paths: paths? })
                });
                all.collect()
            });
        }
        let (Some(repo), Some(revision)) = (&source.repo, &source.revision) else { return None };
        let repo = Repo { repo: repo.clone(), revision: revision.clone(), dataset: true };
        let mut get = |file: &String| match self.hub.get(&repo, file, progress) {
            Ok(path) => Some(path),
            Err(error) => {
                let cached = self.hub.cached(&repo, file);
                tried.push_str(&format!("\n  {} (the hub's cache)", cached.display()));
                tried.push_str(&format!("\n  {error} (the hub)"));
                None
            }
        };
        let all = splits().map(|split| {
            let paths = source.files(split).iter().map(&mut get).collect::<Option<_>>()?;
            Some(FoundSplit { split, source, paths })
        });
        all.collect()
    }
}

/// Reads the files of each split.
fn assemble<T>(
    spec: &DatasetSpec,
    found: Vec<FoundSplit<'_>>,
    parse: impl Fn(&Row, &Source) -> Result<T, String>,
) -> Result<Dataset<T>, DataError> {
    let mut dataset =
        Dataset { train: Vec::new(), evals: Vec::new(), test: None, files: Vec::new() };
    let mut training = HashSet::new();
    for FoundSplit { split, source, paths } in found {
        // Rows are held out of the training rows alone.
        let whole = Source { hold_out: HoldOut::default(), ..source.clone() };
        let source = if split == TRAIN { source } else { &whole };
        let mut parts = Vec::new();
        for path in &paths {
            parts.push(read(path, source, |row| parse(row, source))?);
        }
        let labelled = paths.iter().zip(&parts).map(|(path, part)| (&**path, &part.labelled[..]));
        tell_contradictory(&labelled.collect::<Vec<_>>());
        if source.hold_out.is_drawn() {
            draw(&mut parts, spec, &source.hold_out, &paths[0])?;
        }
        let (mut rows, mut held_out, mut tested) = (Vec::new(), Vec::new(), Vec::new());
        let mut fingerprints: [Vec<u64>; 3] = Default::default();
        for (path, part) in paths.into_iter().zip(parts) {
            part.empty.tell(&path);
            for (all, of_part) in fingerprints.iter_mut().zip(part.fingerprints) {
                all.extend(of_part);
            }
            let sha256 = sha256(&path).map_err(DataError::io(&path))?;
            let mut note = |split: &str, rows: usize| {
                let (split, path, sha256) = (split.to_string(), path.clone(), sha256.clone());
                let skipped = part.skipped;
                dataset.files.push(DataFile { split, path, sha256, rows, skipped });
            };
            note(split, part.rows.len());
            if let Some(drawn) = spec.evaluate_on.first().filter(|_| !part.held_out.is_empty()) {
                note(drawn, part.held_out.len());
            }
            if let Some(drawn) = spec.test_on.as_ref().filter(|_| !part.tested.is_empty()) {
                note(drawn, part.tested.len());
            }
            rows.extend(part.rows);
            held_out.extend(part.held_out);
            tested.extend(part.tested);
        }
        let [of_rows, of_held_out, of_tested] = fingerprints;
        match split {
            TRAIN => training = of_rows.into_iter().collect(),
            split => tell_repeated(split, &of_rows, &training),
        }
        match split {
            TRAIN => dataset.train = rows,
            split if spec.test_on.as_deref() == Some(split) => {
                dataset.test = Some((split.to_string(), rows));
            }
            split => dataset.evals.push((split.to_string(), rows)),
        }
        if let Some(drawn) = spec.evaluate_on.first().filter(|_| source.hold_out.is_some()) {
            if held_out.is_empty() {
                return Err(DataError::Empty { place: format!("{drawn}, held out of {TRAIN},") });
            }
            tell_repeated(drawn, &of_held_out, &training);
            dataset.evals.push((drawn.clone(), held_out));
        }
        if let Some(drawn) = spec.test_on.as_ref().filter(|_| !tested.is_empty()) {
            tell_repeated(drawn, &of_tested, &training);
            dataset.test = Some((drawn.clone(), tested));
        }
    }
    // Those of a split together, in the order in which the splits came.
    let splits: Vec<String> = spec.splits().map(String::from).collect();
    dataset.files.sort_by_key(|file| splits.iter().position(|split| *split == file.split));
    Ok(dataset)
}

/// Holds out rows of the files of one split together, of which messages name the first.
///
/// # Errors
/// None can be held out.
fn draw<T>(
    parts: &mut [Part<T>],
    spec: &DatasetSpec,
    hold_out: &HoldOut,
    first: &Path,
) -> Result<(), DataError> {
    let lots: Vec<Lot> = parts.iter_mut().flat_map(|part| part.lots.drain(..)).collect();
    let sides = draw::sides(&lots, hold_out);
    let (all, (shared, texts)) = (lots.len(), draw::shared(&lots));
    let splits = [
        (spec.evaluate_on.first(), Side::Evaluated, hold_out.percent),
        (spec.test_on.as_ref(), Side::Tested, hold_out.test_percent),
    ];
    for (split, side, percent) in splits.into_iter().filter(|(.., percent)| *percent > 0) {
        let split = split.map_or("", String::as_str);
        let drawn = sides.iter().filter(|own| **own == side).count();
        if drawn == 0 {
            let problem = format!(
                "no row can be held out for {split}: there are {all} rows with {texts} different \
                 texts, and each class keeps one of them to train on; give {split} rows of its own"
            );
            return Err(DataError::file(first, problem));
        }
        if shared > 0 {
            tell_drawn(split, drawn, (all, percent), shared);
        }
    }
    let mut sides = sides.into_iter();
    for part in parts {
        let [of_rows, of_held_out, of_tested] = &mut part.fingerprints;
        for (row, fingerprint) in
            std::mem::take(&mut part.rows).into_iter().zip(std::mem::take(of_rows))
        {
            let (rows, fingerprints) = match sides.next() {
                Some(Side::Evaluated) => (&mut part.held_out, &mut *of_held_out),
                Some(Side::Tested) => (&mut part.tested, &mut *of_tested),
                Some(Side::Train) | None => (&mut part.rows, &mut *of_rows),
            };
            rows.push(row);
            fingerprints.push(fingerprint);
        }
    }
    Ok(())
}

/// The task's folder in or below `root`, which may also be it itself. One that holds files of the
/// task comes before one that only has its name.
fn folder_in(root: &Path, task: &str, spec: &DatasetSpec) -> Option<PathBuf> {
    let names = || spec.folders.iter().map(String::as_str).chain([task]);
    let is_named = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| names().any(|known| known.eq_ignore_ascii_case(name)))
    };
    let mut named = Vec::new();
    let parents = spec.below.iter().map(|below| root.join(below));
    for parent in std::iter::once(root.to_path_buf()).chain(parents) {
        let Ok(entries) = std::fs::read_dir(&parent) else { continue };
        let mut below: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        below.sort();
        named.extend(below.into_iter().filter(|path| is_named(path) && path.is_dir()));
    }
    let root = root.to_path_buf();
    named.extend(Some(root.clone()).filter(|root| is_named(root) && root.is_dir()));
    let itself = names().any(|name| name == ITSELF).then_some(root);
    let holds = |folder: &&PathBuf| spec.splits().any(|s| split_in(folder, s, spec).is_some());
    named.iter().chain(&itself).find(holds).or(named.first()).cloned()
}

/// Every split in a folder of the task.
fn files_of<'a>(folder: &Path, spec: &'a DatasetSpec) -> Result<Vec<FoundSplit<'a>>, DataError> {
    let mut found: Vec<FoundSplit> = Vec::new();
    let is_held_out = |found: &[FoundSplit], split: &str| {
        let train = found.first();
        train.is_some_and(|train| !spec.splits_of(train.source).any(|own| own == split))
    };
    for split in spec.splits() {
        if is_held_out(&found, split) {
            continue;
        }
        let Some(files) = split_in(folder, split, spec) else {
            let mut names: Vec<String> = Vec::new();
            for (_, source) in spec.sources.iter() {
                let own =
                    source.files(split).iter().take(1).flat_map(|file| candidates(base(file)));
                names.extend(own);
            }
            names.dedup();
            let missing = match names.split_last() {
                Some((last, [])) => format!("no {last} lies in it"),
                Some((last, others)) => {
                    format!("neither {} nor {last} lies in it", others.join(", "))
                }
                None => format!("the task's file names none for `{split}`"),
            };
            let names = names_in_folder(folder);
            let problem = format!("the task's folder is here, but {missing}; it holds {names}");
            return Err(DataError::incomplete(folder, problem));
        };
        found.push(files);
    }
    Ok(found)
}

/// A split's files in a folder, of the first source that has them there.
fn split_in<'a>(folder: &Path, split: &'a str, spec: &'a DatasetSpec) -> Option<FoundSplit<'a>> {
    spec.sources.iter().find_map(|(_, source)| {
        let files = source.files(split);
        let names = files.iter().map(|file| base(file).to_string());
        let paths =
            in_folder(folder, files).or_else(|| in_folder(folder, &names.collect::<Vec<_>>()));
        Some(FoundSplit { split, source, paths: paths? })
    })
}

/// All of these files in a folder; none if one is missing, or there is none to look for.
fn in_folder(folder: &Path, files: &[String]) -> Option<Vec<PathBuf>> {
    let find = |file: &String| {
        let paths = candidates(file).into_iter().map(|name| folder.join(name));
        paths.into_iter().find(|path| path.is_file())
    };
    (!files.is_empty()).then(|| files.iter().map(find).collect())?
}

/// A file's name without its folders.
fn base(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}

/// The name of the first of these files, for a message.
fn shown(files: &[String]) -> String {
    files.first().map_or(String::new(), |file| candidates(file).swap_remove(0))
}

/// The first names in a folder, for a message.
fn names_in_folder(folder: &Path) -> String {
    const SHOWN: usize = 6;
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let more = names.len().saturating_sub(SHOWN);
    names.truncate(SHOWN);
    match (names.is_empty(), more) {
        (true, _) => "nothing".into(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    }
}

/// The folder that the task's files are usually in.
fn usual<'a>(task: &'a str, spec: &'a DatasetSpec) -> &'a str {
    spec.folders.iter().map(String::as_str).find(|name| *name != ITSELF).unwrap_or(task)
}

/// What a folder does not hold that was looked into in vain.
fn missing(task: &str, spec: &DatasetSpec) -> String {
    let folder = usual(task, spec);
    if spec.folders.iter().any(|name| name == ITSELF) {
        let first = spec.sources.iter().map(|(_, source)| source.files(TRAIN)).next();
        return format!("no {folder}/ and no {} in it", base(&shown(first.unwrap_or(&[]))));
    }
    let below: Vec<String> = spec.below.iter().map(|name| format!("{name}/")).collect();
    match below.split_last() {
        None => format!("no {folder}/ in it"),
        Some((last, [])) => format!("no {folder}/ in it, nor in its {last}"),
        Some((last, others)) => {
            format!("no {folder}/ in it, nor in its {} or {last}", others.join(", "))
        }
    }
}

/// How to provide the rows.
fn remedy(task: &str, spec: &DatasetSpec) -> String {
    let folder = usual(task, spec);
    let forms = spec.sources.iter().map(|(_, source)| {
        let files: Vec<String> = spec
            .splits_of(source)
            .map(|split| format!("{folder}/{}", base(&shown(source.files(split)))))
            .collect();
        let columns: Vec<String> =
            source.columns.values().map(|name| format!("`{name}`")).collect();
        format!("{} with {}", files.join(" and "), columns.join(", "))
    });
    let forms: Vec<String> = forms.collect();
    // Hints of the project's own tasks speak of its Makefile.
    let fetched = |source: &Source| {
        let asset = source.place.as_deref().and_then(installation::asset);
        Some(format!("{} fetches them", asset.and_then(installation::assets_of_release_by)?))
    };
    let hints =
        spec.sources.iter().filter_map(|(_, source)| fetched(source).or(source.hint.clone()));
    let hints: String = hints.map(|hint| format!(" {hint}.")).collect();
    format!(
        "Name a folder that holds {} with data=folder or the environment variable \
         AFLORA_DATA.{hints}",
        forms.join(", or ")
    )
}

/// Folders that the user named and that hold no data of the task, and why they do not.
#[derive(Debug, Default)]
struct SkippedFolders(Vec<String>);

impl SkippedFolders {
    /// Passes over `folder`; `missing` says what is not in it.
    fn over(&mut self, how: &str, folder: &Path, missing: impl FnOnce() -> String) {
        let why = if folder.is_dir() { missing() } else { "no such folder".into() };
        self.0.push(format!("{} ({how}): {why}", folder.display()));
    }

    /// Says that the data come from elsewhere: whoever named a folder may have meant their own.
    fn tell(&self, task: &str, files: &[DataFile]) {
        if let Some(file) = files.first() {
            for folder in &self.0 {
                let from = file.path.display();
                tracing::warn!("{folder}; the data of `{task}` are read from {from}");
            }
        }
    }
}

/// A line each, as in [`DataError::NotFound`].
impl std::fmt::Display for SkippedFolders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

//! Files of one's own, as a setting names them: by their paths, by a pattern, or as a share of others.

use super::problem::{Problem, COMMAND_LINE};
use super::tree::Setting;
use crate::feed::is_known_form;
use crate::feed::source::Files;
use std::path::{Path, PathBuf};

/// The share that a split is given as, of 100 rows.
pub(super) fn share(files: &Files, named: &Setting, problems: &mut Vec<Problem>) -> Option<u64> {
    let [text] = &files.0[..] else { return None };
    let percent: f64 = text.trim().strip_suffix('%')?.trim().parse().ok()?;
    if percent.fract() == 0.0 && (1.0..100.0).contains(&percent) {
        return Some(percent as u64);
    }
    let message = format!("`{}` is {text}, but a share is 1% to 99%, whole", named.name());
    problems.push(Problem::at(named.span.clone(), message));
    None
}

/// The whole paths of the files that a setting names.
pub(super) fn paths(
    files: &Files,
    delimiter: Option<char>,
    named: &Setting,
    problems: &mut Vec<Problem>,
) -> Files {
    let mut paths = Vec::new();
    if files.0.is_empty() {
        problems.push(Problem::at(named.span.clone(), format!("`{}` is empty", named.name())));
    }
    let names = files.0.iter().flat_map(|name| matching(name, named));
    for name in &names.collect::<Vec<_>>() {
        match path(name, named) {
            Ok(path) if delimiter.is_none() && !is_known_form(Path::new(&path)) => {
                let message = format!("the name of {path} does not tell its form");
                let help = "read are .csv, .tsv, .jsonl, .json, .conll, .txt and .parquet, and \
                            all but the last with .gz or .bz2 behind; with `delimiter`, any text is \
                            read as CSV";
                problems.push(Problem::at(named.span.clone(), message).help(help));
            }
            Ok(path) => paths.push(path),
            Err(problem) => problems.push(problem),
        }
    }
    Files(paths)
}

/// The paths that a name may mean: seen from the file that names it, or else from the working
/// folder.
fn seen(name: &str, named: &Setting) -> Vec<PathBuf> {
    let by = Path::new(&named.span.source.name);
    let beside = by.parent().filter(|_| by != Path::new(COMMAND_LINE));
    beside.into_iter().chain([Path::new("")]).map(|folder| folder.join(name)).collect()
}

/// The files in a folder that a pattern fits, in the order of letters; the name itself where it is
/// no pattern, or fits none.
fn matching(name: &str, named: &Setting) -> Vec<String> {
    let tried = seen(name, named);
    let is_pattern = name.contains(['*', '?']) && !tried.iter().any(|path| path.is_file());
    let fitting = |path: &PathBuf| {
        let (pattern, folder) = (path.file_name()?.to_str()?, path.parent()?);
        let folder = if folder == Path::new("") { Path::new(".") } else { folder };
        let files = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
        let fits = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            path.is_file() && name.is_some_and(|name| fits(pattern, name))
        };
        let files = files.filter(fits).filter_map(|path| std::path::absolute(path).ok());
        let mut names: Vec<String> =
            files.filter_map(|path| path.to_str().map(String::from)).collect();
        names.sort();
        (!names.is_empty()).then_some(names)
    };
    let found = is_pattern.then(|| tried.iter().find_map(fitting)).flatten();
    found.unwrap_or_else(|| vec![name.to_string()])
}

/// Whether a pattern fits a name, as in a shell: `*` is anything, and nothing hidden at the start.
fn fits(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    // Where the last star stands, and where what it is for ends; one character further on each retreat.
    let (mut at, mut read, mut star) = (0, 0, None);
    while read < name.len() {
        match (pattern.get(at), star) {
            (Some('*'), _) => {
                star = Some((at, read));
                at += 1;
            }
            (Some(c), _) if *c == '?' || *c == name[read] => (at, read) = (at + 1, read + 1),
            (_, Some((stood, end))) => {
                star = Some((stood, end + 1));
                (at, read) = (stood + 1, end + 1);
            }
            (_, None) => return false,
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

/// The whole path of a file: seen from the file that names it, or else from the working folder.
pub(super) fn path(name: &str, named: &Setting) -> Result<String, Problem> {
    let tried = seen(name, named);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_names_as_in_a_shell() {
        let stars = "*a".repeat(40) + "b";
        for (pattern, name, expected) in [
            ("part_*.csv", "part_1.csv", true),
            ("part_*.csv", "part_.csv", true),
            ("part_*.csv", "part_1.csv.gz", false),
            ("*", "a", true),
            ("*", ".a", false),
            (".*", ".a", true),
            ("?.csv", "\u{fc}.csv", true),
            ("?.csv", ".csv", false),
            ("*ab*ab", "abab", true),
            ("*ab*abc", "ababab", false),
            // Without end where each star tries all for each of the others.
            (&stars, &"a".repeat(200), false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}

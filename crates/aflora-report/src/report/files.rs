//! What a report is made from, and the files that it is.

use super::html::PAGE;
use super::{csv, html, markdown, runs, NamedResults, Report};
use crate::error::{usage, Context, Error, Result};
use crate::words::shown;
use aflora_record::Results;
use std::fs;
use std::path::{Path, PathBuf};

/// What [`report`] did.
#[derive(Debug, Default)]
pub struct Written {
    /// The files that it wrote, in order.
    pub paths: Vec<PathBuf>,
    /// Results files that could not be read, each with what is wrong.
    pub damaged: Vec<aflora_record::Error>,
}

/// Makes the report and prints the paths that it wrote.
///
/// # Errors
/// As [`report`], or some results are damaged.
pub fn command(sources: &[PathBuf], out: Option<&Path>) -> Result<()> {
    let Written { paths, damaged } = report(sources, out)?;
    for path in paths {
        println!("{}", shown(&path));
    }
    if !damaged.is_empty() {
        return Err(Error::Damaged(damaged));
    }
    Ok(())
}

/// Reads every results file in a source (or the source itself, if it is one), and writes a Markdown
/// file, a CSV file and the stand-alone charts of each, and a page over all of them. Sources that are
/// folders of runs, or hold some and no results, are one report together.
///
/// Damaged files are told in what it gives back; the others are rendered all the same.
///
/// # Errors
/// There are no results, or a file cannot be written.
pub fn report(sources: &[PathBuf], out: Option<&Path>) -> Result<Written> {
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for source in sources {
        match run_folders(source)? {
            Some(runs) => folders.extend(runs),
            None => files.extend(results_files(source)?),
        }
    }
    // Of several sources, the page lies beside them.
    let beside = match sources {
        [one] if one.is_dir() => one.as_path(),
        others => others.first().and_then(|one| one.parent()).unwrap_or(Path::new("")),
    };
    let target = out.unwrap_or(beside);
    if let Err(error) = aflora_files::write::check_makeable(target) {
        usage!("the folder {} cannot be made: {error}", target.display());
    }
    let mut written = Written::default();
    let mut all = Vec::new();
    for path in files {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match Results::read(&path) {
            Ok(results) => all.push(NamedResults { name, results }),
            Err(error) => written.damaged.push(error),
        }
    }
    if !folders.is_empty() {
        let name = match sources {
            [one] => runs::file_name(one),
            _ => "runs".into(),
        };
        let (found, damaged) = runs::read(&name, &folders);
        written.damaged.extend(damaged);
        if !found.results.cells.is_empty() {
            all.push(found);
        }
    }
    if all.is_empty() {
        return Ok(written);
    }
    fs::create_dir_all(target)
        .with_context(|| format!("the folder {} cannot be made", target.display()))?;
    let mut write = |name: &str, content: &str| -> Result<()> {
        let path = target.join(name);
        aflora_files::write(&path, content.as_bytes())
            .with_context(|| format!("{} cannot be written", path.display()))?;
        written.paths.push(path);
        Ok(())
    };
    let mut reports = Vec::new();
    for named in &all {
        let report = Report::of(named);
        write(&format!("{}.md", report.name), &markdown::render(&report))?;
        write(&format!("{}.csv", report.name), &csv::render(&named.results)?)?;
        for (name, chart) in report.chart_files() {
            write(name, &html::chart_file(chart))?;
        }
        reports.push(report);
    }
    write(PAGE, &html::render(&reports))?;
    Ok(written)
}

/// The run folders that a source is, or that it holds beside no results; none of another source.
fn run_folders(source: &Path) -> Result<Option<Vec<PathBuf>>> {
    if !source.is_dir() {
        return Ok(None);
    }
    let found = runs::find(source)?;
    let is_one = matches!(&found[..], [one] if one == source);
    let holds_results = || results_files(source).is_ok();
    Ok((is_one || !found.is_empty() && !holds_results()).then_some(found))
}

/// The results files of a folder by name, or the one that was named.
fn results_files(source: &Path) -> Result<Vec<PathBuf>> {
    if source.is_file() {
        return Ok(vec![source.to_path_buf()]);
    }
    let how = "`aflora experiment experiments/table4.yaml` makes some";
    if !source.is_dir() {
        usage!("{}: there is no such file or folder of results; {how}", source.display());
    }
    let entries = fs::read_dir(source)
        .with_context(|| format!("the folder {} cannot be read", source.display()))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "json") && path.is_file())
        .collect();
    files.sort();
    if files.is_empty() {
        usage!(
            "{}: no results here; looked for *.json and for folders of runs. {how}",
            source.display()
        );
    }
    Ok(files)
}

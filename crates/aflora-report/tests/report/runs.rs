//! Reports on plain run folders.

use crate::support::*;
use aflora_record::names::{CONFIG, METRICS};
use aflora_report::report::report;
use std::fs;
use std::path::{Path, PathBuf};

/// A finished run, of that seed.
fn run(folder: &Path, seed: u64) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../aflora-record/tests/fixtures/run");
    fs::create_dir_all(folder).unwrap();
    for file in fs::read_dir(from).unwrap().flatten().filter(|file| file.path().is_file()) {
        fs::copy(file.path(), folder.join(file.file_name())).unwrap();
    }
    let config = fs::read_to_string(folder.join(CONFIG)).unwrap();
    assert!(config.contains("seed: 42"), "{config}");
    let config = config.replace("seed: 42", &format!("seed: {seed}"));
    fs::write(folder.join(CONFIG), config).unwrap();
    folder.to_path_buf()
}

fn names(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_run_s_folder_gets_a_report_of_its_own() {
    let place = tempfile::tempdir().unwrap();
    let mine = run(&place.path().join("mine"), 42);
    let written = report_on(&mine, None).unwrap();
    assert!(written.damaged.is_empty());
    assert_eq!(names(&written.paths)[..2], ["mine.md", "mine.csv"]);
    assert!(mine.join("report.html").is_file());
    let markdown = fs::read_to_string(mine.join("mine.md")).unwrap();
    assert_eq!(entries(&markdown, "aflora")[1], "62.50");
    assert!(markdown.contains("1 of 1 runs are done"), "{markdown}");
    // It is one run still.
    assert_eq!(names(&report_on(&mine, None).unwrap().paths), names(&written.paths));
}

#[test]
fn a_folder_of_runs_is_one_report_with_what_did_not_finish() {
    let place = tempfile::tempdir().unwrap();
    let runs = place.path().join("runs");
    run(&runs.join("one"), 1);
    run(&runs.join("two"), 2);
    let unfinished = run(&runs.join("three"), 3);
    fs::remove_file(unfinished.join(METRICS)).unwrap();
    let damaged = run(&runs.join("four"), 4);
    fs::write(damaged.join(METRICS), "{").unwrap();
    fs::create_dir(runs.join("something else")).unwrap();
    let written = report_on(&runs, Some(&place.path().join("out"))).unwrap();
    assert_eq!(written.damaged.len(), 1, "{:?}", written.damaged);
    let markdown = fs::read_to_string(place.path().join("out/runs.md")).unwrap();
    assert!(markdown.contains("2 of 3 runs are done, 1 missing"), "{markdown}");
    assert_eq!(entries(&markdown, "aflora")[1], "62.50 ± 0.00 (n = 2)");

    // Several that are named; two of one seed are told apart by their folders.
    let again = run(&runs.join("again"), 1);
    let out = place.path().join("several");
    report(&[runs.join("one"), again], Some(&out)).unwrap();
    let markdown = fs::read_to_string(out.join("runs.md")).unwrap();
    assert_eq!(entries(&markdown, "one")[1], "**62.50**");
    assert_eq!(entries(&markdown, "again")[1], "**62.50**");
}

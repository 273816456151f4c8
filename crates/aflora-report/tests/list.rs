//! `aflora ls`: what it says of runs, finished or not, whole or damaged.

use aflora_report::list::list;
use std::fs;
use std::path::{Path, PathBuf};

fn old_run() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../aflora-record/tests/fixtures/run")
}

/// A run's folder with the old run's configuration, changed, and its metrics if it is `finished`.
fn run(runs: &Path, name: &str, change: (&str, &str), finished: bool) {
    let folder = runs.join(name);
    fs::create_dir(&folder).unwrap();
    let config = fs::read_to_string(old_run().join("config.yaml")).unwrap();
    fs::write(folder.join("config.yaml"), config.replace(change.0, change.1)).unwrap();
    if finished {
        fs::copy(old_run().join("metrics.json"), folder.join("metrics.json")).unwrap();
    }
}

#[test]
fn runs_are_listed_with_their_results_and_the_settings_in_which_they_differ() {
    let place = tempfile::tempdir().unwrap();
    let runs = place.path();
    run(runs, "reviews-tiny-deberta-aflora-seed42", ("", ""), true);
    run(runs, "smaller", ("lr: 0.004", "lr: 0.001"), false);
    run(runs, "damaged", ("seed: 42", "seed: 7"), true);
    fs::write(runs.join("damaged/metrics.json"), "{}").unwrap();
    run(runs, "odd", ("task:", "tusk:"), true);
    fs::create_dir(runs.join("no-run")).unwrap();
    // An average is rounded, as where the run told it.
    let metrics = runs.join("reviews-tiny-deberta-aflora-seed42/metrics.json");
    let text = fs::read_to_string(&metrics).unwrap();
    fs::write(&metrics, text.replace("4044.4444444444443", "4044.6")).unwrap();
    let table = list(runs).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(words(lines[0]), "run best epoch parameters training device settings");
    assert_eq!(
        words(lines[1]),
        "damaged its metrics.json is damaged reviews-tiny-deberta-aflora-seed7 lr=0.004 seed=7"
    );
    assert!(lines[2].ends_with("its config.yaml is damaged"), "{table}");
    assert_eq!(
        words(lines[3]),
        "reviews-tiny-deberta-aflora-seed42 accuracy 0.6250 3 4,045 0 s cpu (1 threads) lr=0.004"
    );
    let expected = "smaller not finished reviews-tiny-deberta-aflora-seed42 lr=0.001 seed=42";
    assert_eq!(words(lines[4]), expected);
    assert_eq!(lines.len(), 5, "{table}");
}

#[test]
fn a_folder_without_runs_says_so() {
    let place = tempfile::tempdir().unwrap();
    assert!(list(place.path()).unwrap().starts_with("no runs in "));
    let error = list(&place.path().join("nowhere")).unwrap_err();
    assert!(matches!(error, aflora_report::Error::Usage(_)), "{error}");
}

//! A run that an earlier version left: it opens, and what is written today has the same form.

use aflora_record::event::Event;
use aflora_record::results::Finding;
use aflora_record::{freezes, json, names, History, Provenance, Settings, Summary};
use std::fs;
use std::path::{Path, PathBuf};

fn old_run() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/run")
}

fn text(name: &str) -> String {
    fs::read_to_string(old_run().join(name)).unwrap()
}

#[test]
fn what_an_earlier_version_wrote_is_written_again_to_the_byte() {
    let place = tempfile::tempdir().unwrap();
    let new = place.path();
    Summary::read(&old_run()).unwrap().write(new).unwrap();
    Provenance::read(&old_run()).unwrap().write(new).unwrap();
    freezes::write(new, &freezes::read(&old_run()).unwrap()).unwrap();
    for name in [names::METRICS, names::PROVENANCE, names::FREEZES] {
        assert_eq!(fs::read_to_string(new.join(name)).unwrap(), text(name), "{name}");
    }
    for line in text(names::EVENTS).lines() {
        let event: Event = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&event).unwrap(), line);
    }
}

#[test]
fn an_earlier_run_opens_and_says_what_it_found() {
    let finding = Finding::read(&old_run()).unwrap();
    assert_eq!(
        (finding.selection.metric.as_str(), finding.best.metric("accuracy")),
        ("accuracy", Some(0.625))
    );
    assert_eq!((finding.steps, finding.parameters.at_start, finding.matrices.len()), (9, 6320, 8));
    assert_eq!(finding.curve.iter().map(|p| p.step).collect::<Vec<_>>(), [2, 4, 6, 8, 9]);
    let frozen: Vec<_> = finding.checks.iter().map(|c| (c.step, c.trained, c.frozen)).collect();
    assert_eq!(frozen, [(4, 8, 4), (6, 4, 4)]);
    assert_eq!(finding.settings["adamw"]["eps"], 1e-8);
    assert!(finding.settings.get("run_dir").is_none());
    let written = serde_json::to_string(&finding).unwrap();
    assert!(!written.contains("/home"), "a folder of the machine: {written}");
}

#[test]
fn the_epoch_that_history_calls_best_is_the_one_that_training_kept() {
    let (history, summary) =
        (History::read(&old_run()).unwrap(), Summary::read(&old_run()).unwrap());
    assert_eq!(history.evaluations[history.best().unwrap()], summary.best);
    assert_eq!(history.evaluations, summary.evaluations);
    assert_eq!((history.share(), history.failed), (Some(1.0), None));
}

#[test]
fn settings_name_the_run() {
    let settings = Settings::read(&old_run()).unwrap();
    let name = settings.subject().unwrap().run_name(settings.seed().unwrap());
    assert_eq!(name, "reviews-tiny-deberta-aflora-seed42");
}

#[test]
fn a_summary_of_another_form_is_refused_by_the_version_that_wrote_it() {
    let place = tempfile::tempdir().unwrap();
    Provenance::read(&old_run()).unwrap().write(place.path()).unwrap();
    let path = place.path().join(names::METRICS);
    json::write(&path, &serde_json::json!({ "task": "mrpc", "best": 3 })).unwrap();
    let error = Summary::read(place.path()).unwrap_err();
    assert!(!error.is_missing());
    let words = error.to_string();
    let expected =
        "metrics.json is no summary of a run of this version; aflora 0.1.0 (71750bd) wrote it";
    assert!(words.ends_with(expected), "{words}");
}

#[test]
fn fields_of_a_later_version_do_no_harm() {
    let place = tempfile::tempdir().unwrap();
    let mut metrics: serde_json::Value = serde_json::from_str(&text(names::METRICS)).unwrap();
    metrics["later"] = serde_json::json!({ "a": [1, null] });
    metrics["best"]["later"] = 1.into();
    json::write(&place.path().join(names::METRICS), &metrics).unwrap();
    assert_eq!(Summary::read(place.path()).unwrap(), Summary::read(&old_run()).unwrap());
}

//! What is read and written.

use crate::support::*;
use aflora_record::results::Results;
use aflora_report::report::html;
use aflora_report::words::causes;
use serde_json::json;
use std::fs;
use std::path::Path;

#[test]
fn the_same_results_make_the_same_bytes() {
    let place = tempfile::tempdir().unwrap();
    for name in ["f", "b", "e", "a", "d", "c"] {
        write(place.path(), &format!("{name}.json"), &results());
    }
    let (one, two) = (place.path().join("one"), place.path().join("two"));
    let first = report_on(place.path(), Some(&one)).unwrap();
    let second = report_on(place.path(), Some(&two)).unwrap();
    let names = |paths: &[std::path::PathBuf]| -> Vec<String> {
        paths.iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect()
    };
    let all = names(&first.paths);
    assert_eq!(all, names(&second.paths));
    let tables: Vec<&String> = all.iter().filter(|name| name.ends_with(".md")).collect();
    assert_eq!(tables, ["a.md", "b.md", "c.md", "d.md", "e.md", "f.md"]);
    assert_eq!(all.last().unwrap(), html::PAGE);
    for name in &all {
        assert_eq!(fs::read(one.join(name)).unwrap(), fs::read(two.join(name)).unwrap(), "{name}");
    }
    assert_eq!(fs::read_dir(&one).unwrap().count(), all.len(), "no temporary file stays");
}

#[test]
fn a_damaged_file_is_named_and_the_others_are_rendered() {
    let place = tempfile::tempdir().unwrap();
    write(place.path(), "good.json", &results());
    fs::write(place.path().join("bad.json"), "{\"experiment\": ").unwrap();
    let written = report_on(place.path(), None).unwrap();
    assert_eq!(written.damaged.len(), 1);
    let words = causes(&written.damaged[0]);
    assert!(words.contains("bad.json is no file of results"), "{words}");
    for name in ["good.md", "good.csv", "report.html", "good-heatmap-mrpc-ours.svg"] {
        assert!(written.paths.contains(&place.path().join(name)), "{name}");
        assert!(place.path().join(name).is_file(), "{name}");
    }
    assert!(!place.path().join("bad.md").exists());

    fs::remove_file(place.path().join("good.json")).unwrap();
    let out = place.path().join("out");
    assert_eq!(report_on(place.path(), Some(&out)).unwrap().damaged.len(), 1);
    assert!(!out.exists());
}

#[test]
fn results_of_another_version_s_form_are_refused_by_what_wrote_them() {
    let place = tempfile::tempdir().unwrap();
    let mut newer = serde_json::to_value(results()).unwrap();
    let environment = json!({ "aflora": "9.1.0", "commit": "abc1234", "later": [] });
    newer["cells"][0]["provenance"]["environment"] = environment;
    let path = place.path().join("newer.json");
    let read = |results: &serde_json::Value| {
        fs::write(&path, results.to_string()).unwrap();
        Results::read(&path)
    };
    read(&newer).unwrap();
    newer["cells"][0]["steps"] = "many".into();
    let words = causes(&read(&newer).unwrap_err());
    let expected =
        "newer.json is no file of results of this version; aflora 9.1.0 (abc1234) wrote it";
    assert!(words.contains(expected) && words.contains("invalid type"), "{words}");
}

#[test]
fn results_that_hold_a_cell_twice_are_refused_by_its_name() {
    let place = tempfile::tempdir().unwrap();
    let mut doubled = results();
    let again = doubled.cells[0].clone();
    doubled.cells.push(again);
    write(place.path(), "doubled.json", &doubled);
    let said = |words: &str| {
        let written = report_on(&place.path().join("doubled.json"), None).unwrap();
        let said = written.damaged[0].to_string();
        assert!(said.contains(words), "{said}");
        assert!(!place.path().join("doubled.md").exists());
    };
    said("doubled.json: the cell mrpc-tiny-ours-seed1 stands twice");
    // Of other settings, too: two scores of one seed are no pair to anything.
    doubled.cells.last_mut().unwrap().digest = "d2".into();
    write(place.path(), "doubled.json", &doubled);
    said("doubled.json: the cell mrpc-tiny-ours-seed1 stands twice");
}

#[test]
fn a_single_file_is_a_source_too_and_nothing_is_an_error_with_a_remedy() {
    let place = tempfile::tempdir().unwrap();
    let refused = |source: &Path| {
        let error = report_on(source, None).unwrap_err();
        assert!(matches!(error, aflora_report::Error::Usage(_)), "{error:?}");
        error.to_string()
    };
    let words = refused(place.path());
    for part in
        ["looked for *.json and for folders of runs", "aflora experiment experiments/table4.yaml"]
    {
        assert!(words.contains(part), "{words}");
    }
    assert!(refused(&place.path().join("nowhere")).contains("no such file or folder"));
    write(place.path(), "one.json", &results());
    report_on(&place.path().join("one.json"), None).unwrap();
    assert!(place.path().join("one.md").is_file() && place.path().join("report.html").is_file());
}

/// The results that lie in the project, of whatever version wrote them.
#[test]
fn committed_results_open_and_make_the_reports_beside_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/results");
    let out = tempfile::tempdir().unwrap();
    let written = report_on(&folder, Some(out.path())).unwrap();
    assert!(written.damaged.is_empty(), "{:?}", written.damaged);
    assert!(written.paths.len() > 20, "{:?}", written.paths);
    for path in &written.paths {
        let committed = folder.join(path.file_name().unwrap());
        assert!(committed.is_file(), "{} is not committed", committed.display());
        assert_eq!(fs::read(path).unwrap(), fs::read(&committed).unwrap(), "{}", path.display());
    }
}

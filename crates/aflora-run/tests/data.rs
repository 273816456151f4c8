//! Finding and reading data: GLUE's own layout, the hub's, and the embedded reviews.

use aflora_run::data::{DataError, Dataset, Example, Locator, Task};
use aflora_run::hub::Hub;
use std::fs;
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Nothing listens at this address: what comes, comes from the disk.
fn locator(named: &Path, cache: &Path) -> Locator {
    let named = vec![("data".to_string(), named.to_path_buf())];
    let hub = Hub::at("http://127.0.0.1:1", cache);
    let project = cache.join("no project");
    Locator { named, assets: project.join(".assets"), project, hub }
}

fn load(task: &str, named: &Path, cache: &Path) -> Result<Dataset, DataError> {
    let task: Task = task.parse().unwrap();
    locator(named, cache).load(task.labels().unwrap(), &mut |_, _| {})
}

#[test]
fn the_hubs_parquet_is_read_from_a_named_folder_and_from_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    let snapshot = cache
        .path()
        .join("datasets--nyu-mll--glue/snapshots/bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c/mrpc");
    fs::create_dir_all(&snapshot).unwrap();
    for file in fs::read_dir(fixtures().join("hub/mrpc")).unwrap().flatten() {
        fs::copy(file.path(), snapshot.join(file.file_name())).unwrap();
    }
    let nowhere = cache.path().join("nowhere");
    for dataset in [
        load("mrpc", &fixtures().join("hub"), &nowhere).unwrap(),
        load("mrpc", &nowhere, cache.path()).unwrap(),
    ] {
        let example =
            |a: &str, b: &str, label| Example { text_a: a.into(), text_b: Some(b.into()), label };
        assert_eq!(dataset.train, [example("a train", "b", 1.0), example("q\"uote", "ü", 0.0)]);
        assert_eq!(dataset.evals[0].0, "dev");
        assert_eq!(dataset.evals[0].1[0].text_a, "a validation");
        assert_eq!(dataset.sources.len(), 2);
    }
    let scores = load("stsb", &fixtures().join("hub"), &nowhere).unwrap();
    assert_eq!(scores.train.iter().map(|e| e.label).collect::<Vec<_>>(), [4.5, 0.0]);
    let mnli = load("mnli", &fixtures().join("hub"), &nowhere).unwrap();
    let splits: Vec<&str> = mnli.evals.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(splits, ["matched", "mismatched"]);
}

#[test]
fn a_folder_is_found_as_itself_as_its_parent_and_as_the_parent_of_that() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("glue_data/SST-2");
    fs::create_dir_all(&folder).unwrap();
    for split in ["train", "dev"] {
        let text = "sentence\tlabel\ngood \t1\nbad \t0\n";
        fs::write(folder.join(format!("{split}.tsv")), text).unwrap();
    }
    for named in [folder.clone(), place.path().join("glue_data"), place.path().to_path_buf()] {
        let dataset = load("sst2", &named, place.path()).unwrap();
        assert_eq!(dataset.train.len(), 2, "{}", named.display());
    }
    fs::remove_file(folder.join("train.tsv")).unwrap();
    let error = load("sst2", place.path(), place.path()).unwrap_err().to_string();
    assert!(error.contains("neither train.tsv nor train-00000-of-00001.parquet"), "{error}");
}

#[test]
fn a_damaged_parquet_file_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("mrpc");
    fs::create_dir_all(&folder).unwrap();
    let whole = fs::read(fixtures().join("hub/mrpc/train-00000-of-00001.parquet")).unwrap();
    for bytes in [&whole[..whole.len() / 2], b"PAR1", b""] {
        fs::write(folder.join("train-00000-of-00001.parquet"), bytes).unwrap();
        let error = load("mrpc", place.path(), place.path()).unwrap_err().to_string();
        assert!(error.contains("not a readable parquet file"), "{error}");
    }
}

#[test]
fn a_label_that_is_none_is_told_with_its_file_and_row_in_parquet_and_jsonl_too() {
    let place = tempfile::tempdir().unwrap();
    let rte = place.path().join("rte");
    fs::create_dir(&rte).unwrap();
    // Scores of 0 to 5, where RTE has two classes.
    for split in ["train", "validation"] {
        let name = format!("{split}-00000-of-00001.parquet");
        fs::copy(fixtures().join("hub/stsb").join(&name), rte.join(&name)).unwrap();
    }
    let error = load("rte", place.path(), place.path()).unwrap_err().to_string();
    let words = "train-00000-of-00001.parquet, line 1: the label is 4.5, but must be 0 to 1";
    assert!(error.ends_with(words), "{error}");

    let lines = place.path().join("lines");
    fs::create_dir(&lines).unwrap();
    let good = "{\"input\": \"a\", \"target\": \"b\"}\r\n";
    fs::write(lines.join("dev.jsonl"), good).unwrap();
    let Task::Text(spec) = "lines".parse().unwrap() else { panic!("it asks for text") };
    for (row, words) in [
        ("{\"input\": \"a\", \"target\": 3}", "line 3: `target` is 3, but must be a text"),
        ("{\"input\": \"a\"}", "line 3: there is no `target`, only [\"input\"]"),
        ("{\"input\": \"a\", \"target\": nul}", "line 3: no JSON object, column 29: expected"),
    ] {
        fs::write(lines.join("train.jsonl"), format!("{good}\r\n{row}\r\n")).unwrap();
        let locator = locator(place.path(), place.path());
        let error = locator.load_text(spec, &mut |_, _| {}).unwrap_err().to_string();
        assert!(error.contains(&format!("train.jsonl, {words}")), "{error}");
    }
}

#[test]
fn the_embedded_reviews_are_split_as_documented() {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.assets");
    assert!(assets.is_dir(), "run `make assets` first, or `make test`, which does");
    let nowhere = tempfile::tempdir().unwrap();
    let hub = Hub::at("http://127.0.0.1:1", nowhere.path());
    let project = assets.join("..");
    let locator = Locator { named: Vec::new(), assets, project, hub };
    let reviews = "reviews".parse::<Task>().unwrap().labels().unwrap();
    let dataset = locator.load(reviews, &mut |_, _| {}).unwrap();
    let fresh = |rows: &[Example]| rows.iter().filter(|e| e.label == 1.0).count();
    let dev = &dataset.evals[0].1;
    assert_eq!((dataset.train.len(), dev.len()), (10_220, 2_532));
    assert_eq!(fresh(&dataset.train) + fresh(dev), 7_368, "of 12,752");
}

#[test]
fn an_unknown_task_is_told_with_the_nearest() {
    let error = "mpc".parse::<Task>().unwrap_err().to_string();
    assert!(error.contains("did you mean `mrpc`?"), "{error}");
}

#[test]
fn a_split_in_several_parquet_files_is_read_from_the_hubs_cache_as_one() {
    let cache = tempfile::tempdir().unwrap();
    let snapshot = cache.path().join(
        "datasets--abisee--cnn_dailymail/snapshots/96df5e686bee6baa90b8bee7c28b81fa3fa6223d/3.0.0",
    );
    fs::create_dir_all(&snapshot).unwrap();
    for file in fs::read_dir(fixtures().join("hub/cnn_dailymail/3.0.0")).unwrap().flatten() {
        fs::copy(file.path(), snapshot.join(file.file_name())).unwrap();
    }
    let Task::Text(spec) = "cnn_dailymail".parse().unwrap() else { panic!("it asks for text") };
    let nowhere = cache.path().join("nowhere");
    let load = || locator(&nowhere, cache.path()).load_text(spec, &mut |_, _| {});
    let dataset = load().unwrap();
    let inputs: Vec<&str> = dataset.train.iter().map(|pair| pair.input.as_str()).collect();
    assert_eq!(inputs, ["train 0", "ü", "train 1", "ü", "train 2", "ü"]);
    assert_eq!(dataset.train[0].target, "one\ntwo");
    assert_eq!((dataset.eval.0.as_str(), dataset.eval.1.len()), ("validation", 2));
    assert_eq!(dataset.sources.len(), 4);
    fs::remove_file(snapshot.join("train-00001-of-00003.parquet")).unwrap();
    let error = load().unwrap_err().to_string();
    assert!(error.contains("train-00001-of-00003.parquet"), "{error}");
}

//! Finding and reading data: GLUE's own layout, the hub's, and the embedded reviews.

use aflora_run::config;
use aflora_run::feed::{DataError, Dataset, Locator};
use aflora_run::hub::Hub;
use aflora_run::metrics::Answer;
use aflora_run::task::{Example, TaskSpec};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Nothing listens at this address: what comes, comes from the disk.
fn locator(named: &Path, cache: &Path) -> Locator {
    let named = vec![("data".to_string(), named.to_path_buf())];
    let hub = Hub::at("http://127.0.0.1:1", cache);
    Locator { named, projects: vec![cache.join("no project")], hub }
}

/// A task of `configs/tasks`.
fn task(name: &str) -> Arc<TaskSpec> {
    let run_file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/experiment.yaml");
    config::load(&run_file, &[format!("task={name}")]).unwrap().task
}

fn load(name: &str, named: &Path, cache: &Path) -> Result<Dataset<Example>, DataError> {
    task(name).load(&locator(named, cache), &mut |_, _| {})
}

/// The rows of a file `name` of a task, which is its training and its evaluation split at once; or
/// what is wrong with it.
fn rows(name: &str, file: &str, content: &[u8]) -> Result<(Vec<Example>, usize), String> {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join(name);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(file), content).unwrap();
    if file == "train.tsv" {
        fs::write(folder.join("dev.tsv"), content).unwrap();
    }
    let clean =
        |e: DataError| e.to_string().replace(&folder.join(file).display().to_string(), "FILE");
    let dataset = load(name, place.path(), place.path()).map_err(clean)?;
    Ok((dataset.train, dataset.files[0].skipped))
}

/// The texts of pairs, and their classes.
fn example(text_a: &str, text_b: Option<&str>, class: i64) -> Example {
    let texts = [Some(text_a), text_b].into_iter().flatten().map(str::to_string).collect();
    Example { texts, right: Answer::Class(class) }
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
        let expected = [example("a train", Some("b"), 1), example("q\"uote", Some("ü"), 0)];
        assert_eq!(dataset.train, expected);
        assert_eq!(dataset.evals[0].0, "dev");
        assert_eq!(dataset.evals[0].1[0].texts[0], "a validation");
        assert_eq!(dataset.files.len(), 2);
    }
    let scores = load("stsb", &fixtures().join("hub"), &nowhere).unwrap();
    let right: Vec<Answer> = scores.train.into_iter().map(|example| example.right).collect();
    assert_eq!(right, [Answer::Score(4.5), Answer::Score(0.0)]);
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
    fs::write(folder.join("validation-00000-of-00001.parquet"), &whole).unwrap();
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
    for (row, words) in [
        ("{\"input\": \"a\", \"target\": 3}", "line 3: `target` is 3, but must be a text"),
        ("{\"input\": \"a\"}", "line 3: there is no `target`, only [\"input\"]"),
        ("{\"input\": \"a\", \"target\": nul}", "line 3: no JSON object, column 29: expected"),
    ] {
        fs::write(lines.join("train.jsonl"), format!("{good}\r\n{row}\r\n")).unwrap();
        let error = load("lines", place.path(), place.path()).unwrap_err().to_string();
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
    // As where a release runs in a folder that holds nothing of the project.
    let projects = vec![nowhere.path().to_path_buf(), project];
    let locator = Locator { named: Vec::new(), projects, hub };
    let dataset = task("reviews").load(&locator, &mut |_, _| {}).unwrap();
    let is_fresh = |e: &&Example| e.right == Answer::Class(1);
    let fresh = |rows: &[Example]| rows.iter().filter(is_fresh).count();
    let dev = &dataset.evals[0].1;
    assert_eq!((dataset.train.len(), dev.len()), (10_220, 2_532));
    assert_eq!(fresh(&dataset.train) + fresh(dev), 7_368, "of 12,752");
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
    let nowhere = cache.path().join("nowhere");
    let load = || load("cnn_dailymail", &nowhere, cache.path());
    let dataset = load().unwrap();
    let inputs: Vec<&str> = dataset.train.iter().map(|example| example.texts[0].as_str()).collect();
    assert_eq!(inputs, ["train 0", "ü", "train 1", "ü", "train 2", "ü"]);
    assert_eq!(dataset.train[0].right, Answer::Text("one\ntwo".into()));
    assert_eq!((dataset.evals[0].0.as_str(), dataset.evals[0].1.len()), ("validation", 2));
    assert_eq!(dataset.files.len(), 4);
    fs::remove_file(snapshot.join("train-00001-of-00003.parquet")).unwrap();
    let error = load().unwrap_err().to_string();
    assert!(error.contains("train-00001-of-00003.parquet"), "{error}");
}

const MRPC: &str = "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n";

#[test]
fn quotes_are_characters_and_a_byte_order_mark_is_none() {
    let content = format!("{MRPC}1\t1\t2\t\"A\t\"B\" said\"\n0\t1\t2\ta\tb\n");
    let (found, _) = rows("mrpc", "train.tsv", content.as_bytes()).unwrap();
    assert_eq!(found[0], example("\"A", Some("\"B\" said\""), 1));
}

#[test]
fn columns_without_a_header_go_by_their_numbers() {
    let content = b"gj04\t1\t\tWe sail.\ngj04\t0\t*\tSail we.\r\n";
    let (found, _) = rows("cola", "train.tsv", content).unwrap();
    assert_eq!(found, [example("We sail.", None, 1), example("Sail we.", None, 0)]);
}

#[test]
fn broken_rows_are_errors_with_a_place() {
    for (task, content, expected) in [
        ("mrpc", format!("{MRPC}1\t1\t2\ta\tb\n1\t1\t2\ta\n"), "FILE, line 3: 4 columns"),
        ("mrpc", format!("{MRPC}2\t1\t2\ta\tb\n"), "FILE, line 2: the label is `2`"),
        ("mrpc", "a\tb\n".into(), "FILE, line 1: no column `Quality`"),
        ("cola", "a\tb\n".into(), "FILE, line 1: the first line has 2 columns, but column 4"),
        ("mrpc", MRPC.into(), "FILE: there are no examples"),
        ("rte", String::new(), "FILE: there are no examples"),
        (
            "stsb",
            "sentence1\tsentence2\tscore\na\tb\tNaN\n".into(),
            "FILE, line 2: the score is `NaN`, but must be between 0 and 5",
        ),
        ("stsb", "sentence1\tsentence2\tscore\na\tb\t5.5\n".into(), "the score is `5.5`"),
        (
            "rte",
            "sentence1\tsentence2\tlabel\na\tb\tentailment\n".into(),
            "all 1 examples have the label entailment; there is nothing to learn",
        ),
    ] {
        let error = rows(task, "train.tsv", content.as_bytes()).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let error = rows("sst2", "train.tsv", b"sentence\tlabel\nok\t1\n\xff\t0\n").unwrap_err();
    assert!(error.contains("line 3"), "{error}");
}

#[test]
fn a_label_of_a_megabyte_is_told_by_its_start() {
    let long = "x".repeat(1 << 20);
    let content = format!("sentence1\tsentence2\tlabel\na\tb\t{long}\n");
    let error = rows("rte", "train.tsv", content.as_bytes()).unwrap_err();
    assert!(error.contains("xxx…`, but must be one of") && error.len() < 300, "{error}");
}

/// Rows of the published QQP, of which some are broken.
fn qqp(good: usize, broken: usize) -> String {
    let header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n".to_string();
    let rows: String = (0..good).map(|i| format!("1\t2\t3\ta\tb\t{}\n", i % 2)).collect();
    header + &rows + &"1\t2\ta\n".repeat(broken)
}

#[test]
fn the_known_broken_rows_of_qqp_are_counted() {
    let (found, skipped) = rows("qqp", "train.tsv", qqp(198, 2).as_bytes()).unwrap();
    assert_eq!((found.len(), skipped), (198, 2));
}

#[test]
fn a_file_of_mostly_broken_rows_is_refused() {
    let error = rows("qqp", "train.tsv", qqp(3, 37).as_bytes()).unwrap_err();
    assert_eq!(
        error,
        "FILE, line 5: 3 columns, but the first line has 6; 37 of 40 rows are broken like \
         that, and at most 1 in 100 is passed over"
    );
    let error = rows("qqp", "train.tsv", qqp(0, 3).as_bytes()).unwrap_err();
    assert!(error.contains("3 of 3 rows"), "{error}");
}

#[test]
fn a_label_that_is_none_is_an_error_where_broken_rows_are_forgiven() {
    let text = qqp(300, 0) + "1\t2\t3\ta\tb\tduplicate\n";
    let error = rows("qqp", "train.tsv", text.as_bytes()).unwrap_err();
    assert!(error.starts_with("FILE, line 302: the label is `duplicate`, but"), "{error}");
}

const REVIEWS: &str = "rotten_tomatoes_corpus_full.csv";

#[test]
fn plots_and_repeated_texts_are_dropped_and_films_stay_together() {
    let mut content = "category,text,movie_name,has_plot_and_reviews\n".to_string();
    for film in 0..200 {
        content += &format!("plot,story {film},film{film},True\n");
        content += &format!("fresh,\"good, {film}\",film{film},True\n");
        content += &format!("rotten,bad {film},film{film},True\nfresh,again,film{film},True\n");
    }
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join(REVIEWS), content).unwrap();
    let dataset = load("reviews", place.path(), place.path()).unwrap();
    let (train, dev) = (&dataset.train, &dataset.evals[0].1);
    assert_eq!(train.len() + dev.len(), 401, "two a film, and `again` once");
    let number = |e: &Example| e.texts[0].split(' ').nth(1).map(str::to_string);
    let films: HashSet<_> = train.iter().filter_map(number).collect();
    assert!(dev.iter().filter_map(number).all(|film| !films.contains(&film)));
    assert!((20..60).contains(&(dev.len() / 2)), "about a fifth is held out: {}", dev.len());
    let files: Vec<(&str, usize)> =
        dataset.files.iter().map(|file| (file.split.as_str(), file.rows)).collect();
    assert_eq!(files, [("train", train.len()), ("dev", dev.len())]);
}

#[test]
fn a_category_that_is_none_is_told_with_its_line() {
    let content = b"category,text,movie_name\r\nfresh,a,x\r\nstale,b,y\r\n";
    let error = rows("reviews", REVIEWS, content).unwrap_err();
    assert!(error.contains("line 3: the label is `stale`, but must be one of"), "{error}");
}

#[test]
fn a_file_of_another_kind_is_refused() {
    assert!(rows("reviews", &format!("{REVIEWS}.bz2"), b"no bzip2").is_err());
    let error = rows("reviews", REVIEWS, b"a,b\n1,2\n").unwrap_err();
    assert!(error.contains("no column `category`"), "{error}");
}

//! Files of the user's own are a task: `train=reviews.csv text=body label=stars`.

mod hub;
mod inspected;
mod kinds;
mod wrong;

use crate::common::{self, aflora, json, outcome, refused, text, workplace, CONFIG};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Output;

/// Settings of a small run without a run file.
const RUN: [&str; 10] = [
    "run",
    "model=minilm",
    "data=.",
    "device=cpu",
    "max_length=32",
    "epochs=2",
    "batch_size=16",
    "threads=1",
    "precision=fp32",
    "run_dir=out",
];

fn write(place: &Path, file: &str, content: impl AsRef<[u8]>) {
    let path = place.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn run(place: &Path, more: &[&str]) -> Output {
    aflora(place, &[&RUN[..], more].concat())
}

/// Rows of a film each, with stars as they may be written.
fn reviews(stars: [&str; 3]) -> String {
    let words = ["bad", "good", "very good"];
    (0..90).fold("body,stars\n".into(), |rows, i| {
        rows + &format!("\"film {i}, we saw, is {}\",{}\n", words[i % 3], stars[i % 3])
    })
}

fn task(place: &Path) -> Value {
    let config = fs::read_to_string(place.join("out/config.yaml")).unwrap();
    serde_saphyr::from_str::<Value>(&config).unwrap()["task"].clone()
}

#[test]
fn a_file_of_rows_is_trained_on_and_predicted_with_without_a_yaml_of_one_s_own() {
    let place = workplace();
    write(place.path(), "data/reviews.csv", reviews(["1", "3", "5"]));
    write(place.path(), "data/check.csv", reviews(["1", "3", "5"]));
    write(place.path(), "data/test.csv", reviews(["1", "3", "5"]));
    let split = "test=data/test.csv";
    let keys = ["train=data/reviews.csv", "dev=data/check.csv", split, "text=body", "label=stars"];
    let output = run(place.path(), &keys);
    ok(&output);
    let told = text(&output.stderr);
    let words = "data/reviews.csv: `stars` holds 3 different whole numbers, few enough for \
                 classes: 1, 3, 5 (kind=score asks for a number)";
    assert!(told.contains(words), "{told}");
    for words in ["train: 90 of 90 rows", "dev: 90 of 90 rows", "test: 90 of 90 rows"] {
        assert!(told.contains(words), "missing: {words}\n--- in:\n{told}");
    }

    let task = task(place.path());
    assert_eq!((&task["task"], &task["kind"]), (&"reviews".into(), &"classify".into()));
    assert_eq!(task["labels"], serde_json::json!(["1", "3", "5"]));
    assert_eq!(task["dataset"]["test_on"], "test");
    let files = &task["dataset"]["sources"]["own"]["files"];
    let whole = place.path().join("data/reviews.csv").canonicalize().unwrap();
    assert_eq!(Path::new(files["train"].as_str().unwrap()).canonicalize().unwrap(), whole);

    // The same command tells the result again, and so does the run's own configuration.
    let result = ok(&run(place.path(), &keys));
    assert!(result.contains("accuracy"), "{result}");
    // A row without the text is told what its column may be called.
    write(place.path(), "other.csv", "words\na film\n");
    let output = aflora(place.path(), &["predict", "out", "other.csv"]);
    refused(&output, 1, "`reviews` wants `body`, or `text`");
    assert!(!text(&output.stderr).contains("text_a"), "{}", text(&output.stderr));
    // What it takes to predict and merge is in the run.
    fs::remove_dir_all(place.path().join("data")).unwrap();
    assert_eq!(ok(&aflora(place.path(), &["run", "out/config.yaml"])), result);
    write(place.path(), "new.csv", "body\na good film\n");
    let asked = ["predict", "out", "new.csv", "--output-format", "jsonl"];
    let answer = ok(&aflora(place.path(), &asked));
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let scores = answer["scores"].as_object().unwrap();
    assert_eq!(scores.keys().collect::<Vec<_>>(), ["1", "3", "5"]);
    ok(&aflora(place.path(), &["merge", "out", "merged"]));
    let merged = json(&place.path().join("merged/config.json"));
    assert_eq!(merged["id2label"]["1"], "3");
}

#[test]
fn a_run_file_s_task_gives_way_to_the_files_and_its_yaml_may_name_them() {
    let place = workplace();
    write(place.path(), "data/reviews.csv", reviews(["low", "mid", "high"]));
    let more = ["train=data/reviews.csv", "text=body", "label=stars"];
    let arguments = [&["run", CONFIG], &RUN[1..], &more[..]].concat();
    ok(&aflora(place.path(), &arguments));
    let first = outcome(&place.path().join("out"));
    fs::rename(place.path().join("out"), place.path().join("first")).unwrap();

    // Seen from the file that names it.
    let yaml = "train: reviews.csv\ntext: body\nlabel: stars\n";
    write(place.path(), "data/mine.yaml", yaml);
    ok(&aflora(place.path(), &[&["run", "data/mine.yaml"], &RUN[1..]].concat()));
    common::assert_same(&first, &outcome(&place.path().join("out")), "the same run");
    fs::remove_dir_all(place.path().join("out")).unwrap();

    // As a task's file, whose settings can be set over.
    ok(&run(place.path(), &["task=data/mine.yaml", "task.metrics=[matthews]", "task.task=film"]));
    let metrics = json(&place.path().join("out/metrics.json"));
    assert_eq!((&metrics["task"], &metrics["selection"]), (&"film".into(), &"matthews".into()));
}

#[test]
fn without_a_dev_split_a_share_of_each_class_is_held_out() {
    let place = workplace();
    write(place.path(), "reviews.csv", reviews(["1", "3", "5"]));
    let keys = ["train=reviews.csv", "text=body", "label=stars"];
    let told = |more: &[&str]| {
        let _ = fs::remove_dir_all(place.path().join("out"));
        let output = run(place.path(), &[&keys[..], more].concat());
        ok(&output);
        text(&output.stderr)
    };
    let shown = told(&[]);
    assert!(
        shown.contains("train: 81 of 81 rows") && shown.contains("dev: 9 of 9 rows"),
        "{shown}"
    );
    let shown = told(&["dev=20%"]);
    assert!(shown.contains("train: 72 of 72 rows"), "{shown}");
    // Every seed of the run is judged on the same rows; the draw has its own.
    let digest = || json(&place.path().join("out/metrics.json"))["best"]["metrics"].clone();
    let first = digest();
    told(&["dev=20%"]);
    assert_eq!(digest(), first);
}

#[test]
fn shares_are_held_out_to_evaluate_on_and_to_judge_the_end_by() {
    let place = workplace();
    write(place.path(), "part_1.csv", reviews(["1", "3", "5"]));
    let more = reviews(["1", "3", "5"]).replace("film", "tale");
    write(place.path(), "part_2.csv", more);
    write(place.path(), ".part_3.csv", "not looked at");
    let keys = ["train=part_*.csv", "text=body", "label=stars", "dev=20%", "test=10%"];
    let output = run(place.path(), &keys);
    ok(&output);
    let shown = text(&output.stderr);
    for words in
        ["train: 126 of 126 rows", "dev: 36 of 36 rows", "part_1.csv and 1 more: `stars` holds 3"]
    {
        assert!(shown.contains(words), "missing: {words}\n--- in:\n{shown}");
    }
    let task = task(place.path());
    let own = &task["dataset"]["sources"]["own"];
    assert_eq!(
        (&own["hold_out"]["percent"], &own["hold_out"]["test_percent"]),
        (&20.into(), &10.into())
    );
    assert_eq!(own["files"]["train"].as_array().map(Vec::len), Some(2));
    assert_eq!(task["task"], "part_1", "the first file's name");
    // The run's own configuration names the same rows.
    ok(&aflora(place.path(), &["run", "out/config.yaml"]));
    for share in ["0%", "100%", "2.5%"] {
        let output = run(place.path(), &[&keys[..4], &[&format!("test={share}")[..]]].concat());
        refused(&output, 2, &format!("`test` is {share}, but a share is 1% to 99%, whole"));
    }
    let output = run(place.path(), &[&keys[..3], &["dev=60%", "test=50%"]].concat());
    refused(&output, 2, "1 to 99 percent together");
    refused(&run(place.path(), &["train=other_*.csv"]), 2, "there is no file other_*.csv");
}

#[test]
fn rows_of_one_text_are_held_out_together_and_told() {
    let place = workplace();
    let validate = |rows: String| {
        write(place.path(), "rows.csv", format!("body,stars\n{rows}"));
        let keys = ["train=rows.csv", "text=body", "label=stars", "data=.", "max_length=32"];
        aflora(place.path(), &[&["validate", "model=minilm"], &keys[..]].concat())
    };
    // 80 rows, of which two have each text.
    let rows = (0..80).map(|i| format!("film {},{}\n", i / 2, ["low", "high"][i / 2 % 2]));
    let told = text(&validate(rows.collect()).stderr);
    let words = "80 of 80 rows have the text of another; rows of one text and label are held out \
                 together: 8 for dev, where 10% were asked for";
    assert!(told.contains(words), "{told}");
    let equal = validate("a film,3\nno film,5\n".repeat(20));
    refused(&equal, 1, "no row can be held out for dev: there are 40 rows with 2 different texts");
    // A text that has two labels.
    let rows = (0..40).map(|i| format!("film {},{}\n", i.max(1), ["low", "high"][i % 2]));
    let told = text(&validate(rows.collect()).stderr);
    let words = "2 of 40 rows have the text of a row with another label: first";
    assert!(told.contains(words) && told.contains("rows.csv, line 2"), "{told}");
}

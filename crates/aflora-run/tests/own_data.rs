//! Files of the user's own are a task: `train=reviews.csv text=body label=stars`.

mod common;

use common::{aflora, json, outcome, refused, text, workplace, CONFIG};
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

#[test]
fn scores_pairs_and_texts_are_told_by_columns_and_rows() {
    let place = workplace();
    write(place.path(), "reviews.csv", reviews(["1.5", "3.25", "5"]));
    ok(&run(place.path(), &["train=reviews.csv", "text=body", "label=stars"]));
    assert_eq!(task(place.path())["kind"], "score");
    let validate = |more: &[&str]| {
        let arguments = [&["validate", "model=minilm", "data=.", "max_length=32"], more].concat();
        aflora(place.path(), &arguments)
    };
    let pairs = (0..40).map(|i| {
        format!("{{\"a\": \"film {i}\", \"b\": \"it is good\", \"same\": {}}}\n", i % 2 == 0)
    });
    write(place.path(), "pairs.jsonl", pairs.collect::<String>());
    let output = validate(&["train=pairs.jsonl", "text=[a, b]", "label=same"]);
    assert!(ok(&output).contains("fine, pairs-minilm"));
    assert!(text(&output.stderr).contains("each a class: false, true"));
    // 1.0 is 1, and a number where it is said to be.
    write(place.path(), "floats.csv", reviews(["0.0", "1.0", "2.0"]));
    let floats = ["train=floats.csv", "text=body", "label=stars"];
    assert!(text(&validate(&floats).stderr).contains("classes: 0, 1, 2"));
    ok(&validate(&floats));
    ok(&validate(&[&floats[..], &["kind=score"]].concat()));
    ok(&validate(&[&floats[..], &["labels=[0, 1, 2, 3]"]].concat()));
    refused(
        &validate(&[&floats[..], &["labels=[0, 1]"]].concat()),
        1,
        "floats.csv, line 4: the label is `2.0`, but must be one of [\"0\", \"1\"]",
    );
    let models = format!("data={}", common::root().join("configs/models").display());
    let writes = ["train=reviews.csv", "input=body", "target=stars", "model=tiny-bart", &models];
    let writes = [&["inspect"], &writes[..]].concat();
    assert!(ok(&aflora(place.path(), &writes)).contains("reviews-tiny-bart"));
}

#[test]
fn labels_of_all_kinds_are_told_by_the_form_of_the_rows() {
    let place = workplace();
    let shows = |more: &[&str], words: &[&str]| {
        let first = ["validate", "model=minilm", "data=.", "max_length=32"];
        let output = aflora(place.path(), &[&first[..], more].concat());
        let shown = ok(&output) + &text(&output.stderr);
        for words in words {
            assert!(shown.contains(words), "missing: {words}\n--- in:\n{shown}");
        }
    };
    let rows = |row: &dyn Fn(usize) -> String| (0..30).map(|i| row(i) + "\n").collect::<String>();

    let label = ["[\"rude\"]", "[\"rude\", \"loud\"]", "[]"];
    let lists = rows(&|i| format!("{{\"text\": \"row {i}\", \"label\": {}}}", label[i % 3]));
    write(place.path(), "lists.jsonl", lists);
    let any = "`label` holds lists: any of several labels";
    shows(&["train=lists.jsonl"], &[any, "2 different labels: loud, rude"]);

    let cell = ["rude", "rude; loud", ""];
    let cells = rows(&|i| format!("row {i}\t{}", cell[i % 3]));
    write(place.path(), "cells.tsv", format!("text\tlabel\n{cells}"));
    let keys = ["train=cells.tsv", "kind=multilabel", "task.label_separator=;"];
    shows(&keys, &["2 different labels: loud, rude"]);

    let columns = rows(&|i| format!("row {i},{},{}.0,{}", i % 2, i / 3 % 2, i % 7));
    write(place.path(), "columns.csv", format!("text,rude,loud,stars\n{columns}"));
    let keys = ["train=columns.csv", "label=[rude, loud]"];
    shows(&keys, &["rude, loud hold 0 and 1: any of 2 labels"]);
    let keys = ["train=columns.csv", "label=[loud, stars]"];
    shows(&keys, &["loud, stars hold numbers: 2 scores"]);

    let words = "{\"tokens\": [\"Ann\", \"ran\"], \"ner_tags\": [\"B-PER\", \"O\"]}";
    let other = "{\"tokens\": [\"it\", \"ran\"], \"ner_tags\": [\"O\", \"O\"]}";
    write(
        place.path(),
        "words.jsonl",
        rows(&|i| [words, other][i % 2].replace("ran", &format!("ran {i}"))),
    );
    let tags = "`ner_tags` holds 2 different tags: O, B-PER";
    shows(&["train=words.jsonl"], &["`tokens` holds lists of words", tags]);
    let sentences = rows(&|i| format!("A{i} NNP B-PER\n{}", ["ran VBD O\n", ""][i % 2]));
    write(place.path(), "words.conll", sentences);
    shows(&["train=words.conll"], &["a word a line", "`3` holds 2 different tags: O, B-PER"]);
    shows(&["train=words.conll", "label=2"], &["`2` holds 2 different tags: NNP, VBD"]);
    let task = ["train=words.conll", "label=2"];
    ok(&run(place.path(), &task));
    let metrics = json(&place.path().join("out/metrics.json"));
    assert_eq!(metrics["selection"], "tag_accuracy", "there are no entities among NNP and VBD");

    let lines = rows(&|i| format!("It is {i} o'clock.\n"));
    write(place.path(), "clock.txt", lines);
    let models = format!("data={}", common::root().join("configs/models").display());
    let text = ["model=tiny-llama", &models, "train=clock.txt", "dev=20%"];
    shows(&text, &["plain text, to go on writing like it", "fine, clock-tiny-llama"]);
}

#[test]
fn labels_with_columns_of_their_own_are_learned_predicted_and_judged() {
    let place = workplace();
    let words = ["it is rude", "it is loud", "it is rude and loud", "it is fine"];
    let row = |i: usize| {
        format!("{i} {},{},{}\n", words[i % 4], [1, 0, 1, 0][i % 4], [0, 1, 1, 0][i % 4])
    };
    let rows = "text,rude,loud\n".to_string() + &(0..240).map(row).collect::<String>();
    write(place.path(), "rows.csv", &rows);
    let keys = ["train=rows.csv", "label=[rude, loud]", "epochs=12", "lr=1e-2"];
    ok(&run(place.path(), &keys));
    let task = task(place.path());
    assert_eq!((&task["kind"], &task["labels_in_columns"]), (&"multilabel".into(), &true.into()));
    let metrics = json(&place.path().join("out/metrics.json"));
    let best = &metrics["best"]["metrics"];
    assert!(best["multilabel_f1_micro"].as_f64().unwrap() > 0.8, "{best}");
    let classes = &metrics["by_class"][0]["classes"];
    assert_eq!((&classes[0]["label"], &classes[1]["label"]), (&"rude".into(), &"loud".into()));
    assert!(classes[0]["right"].as_u64() > Some(5), "{classes}");
    let judged = ok(&aflora(place.path(), &["evaluate", "out", "rows.csv"]));
    assert!(judged.contains("precision"), "{judged}");
    assert!(judged.contains("multilabel_f1_micro"), "{judged}");
    write(place.path(), "new.csv", "text\n41 it is loud\n");
    let answer =
        ok(&aflora(place.path(), &["predict", "out", "new.csv", "--output-format", "jsonl"]));
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["labels"], serde_json::json!(["loud"]), "{answer}");
    write(place.path(), "wrong.csv", rows.replacen(",1,0", ",1,2", 1));
    let output = aflora(place.path(), &["evaluate", "out", "wrong.csv"]);
    refused(&output, 1, "wrong.csv, line 2: `loud` is `2`, but must be 0 or 1");
}

#[test]
fn classes_go_by_the_names_that_a_parquet_file_or_the_labels_have_for_their_numbers() {
    let place = workplace();
    let file = common::root().join("crates/aflora-run/tests/fixtures/forms/classes.parquet");
    fs::copy(file, place.path().join("rows.parquet")).unwrap();
    let rows: String = (0..40)
        .map(|i| {
            format!(
                "{{\"tokens\": [\"Ann\", \"left\", \"{i}\"], \"ner_tags\": [1, 0, {}]}}\n",
                i % 2
            )
        })
        .collect();
    write(place.path(), "rows.jsonl", rows);
    let told = |more: &[&str], words: &[&str]| {
        let first = ["validate", "model=minilm", "data=.", "max_length=32"];
        let output = aflora(place.path(), &[&first[..], more].concat());
        ok(&output);
        for words in words {
            let told = text(&output.stderr);
            assert!(told.contains(words), "missing: {words}\n--- in:\n{told}");
        }
    };
    let tags = "rows.parquet: the classes have names: O, B-PER, I-PER";
    told(
        &["train=rows.parquet", "kind=classify"],
        &["rows.parquet: the classes have names: neg, pos"],
    );
    told(&["train=rows.parquet", "text=tokens", "label=ner_tags"], &[tags]);
    told(&["train=rows.parquet", "text=text", "label=topics"], &["names: art, law, sea"]);

    let keys = ["train=rows.jsonl", "labels=[O, B-PER]"];
    ok(&run(place.path(), &keys));
    let task = task(place.path());
    assert_eq!(task["dataset"]["sources"]["own"]["numbered_labels"], true);
    assert_eq!(task["metrics"][0], "entity_f1");
    write(place.path(), "new.jsonl", "{\"tokens\": [\"Ann\", \"left\"]}\n");
    let answer: Value =
        serde_json::from_str(&ok(&aflora(place.path(), &["predict", "out", "new.jsonl"]))).unwrap();
    for tag in answer["tags"].as_array().unwrap() {
        assert!(["O", "B-PER"].contains(&tag.as_str().unwrap()), "{answer}");
    }
}

#[test]
fn what_is_wrong_with_the_keys_is_told_with_what_would_be_right() {
    let place = workplace();
    write(place.path(), "reviews.csv", reviews(["1", "3", "5"]));
    let validate =
        |more: &[&str]| aflora(place.path(), &[&["validate", "model=minilm"], more].concat());
    for (more, words) in [
        (&["train=revews.csv"][..], "there is no file revews.csv"),
        (&["train=revews.csv"], ". holds reviews.csv"),
        (&["train=configs"], "configs is a folder; name the files in it"),
        (&["train=configs/experiment.yaml"], "does not tell its form"),
        (&["label=stars"], "name them: `train=FILE`, in place of a task"),
        (&["train=reviews.csv", "text=body"], "reviews.csv has no column `label`"),
        (
            &["train=reviews.csv", "text=boddy", "label=stars"],
            "did you mean `body`? Known: body, stars",
        ),
        (&["train=reviews.csv", "text=body", "label=STARS"], "did you mean `stars`?"),
        (
            &["train=reviews.csv", "text=body", "label=[stars, body]"],
            "line 2: the label in `body` is film 0, we saw, is bad, but several columns hold numbers",
        ),
        // The caret is below the key that is wrong.
        (&["train=reviews.csv", "text=body", "label=STARS"], "| label=STARS"),
        (&["train=reviews.csv", "text=[a, b, c]"], "`text` has 3 columns, but a pair has two"),
        (&["train=reviews.csv", "text=body", "target=stars"], "`text` has no say here"),
        (&["task=sst2", "train=reviews.csv"], "the task `sst2` says by itself where its rows lie"),
        (&["trian=reviews.csv", "task=sst2"], "did you mean `train`?"),
        (
            &["train=reviews.csv", "label=stars", "kind=several"],
            "known: chat, classify, multilabel, score, text, tokens, write",
        ),
        (
            &["train=reviews.csv", "kind=text", "text=body", "label=stars"],
            "`label` has no say here",
        ),
        (&["train=reviews.csv", "kind=text", "text=[body, stars]"], "2 columns, but one is read"),
        (
            &["train=reviews.csv", "kind=tokens", "text=body", "label=[stars, body]"],
            "`label` has several columns, but a task that asks for tags of words has one",
        ),
    ] {
        refused(&validate(more), 2, words);
    }
}

#[test]
fn a_row_without_a_label_is_told_by_its_line_whatever_stands_for_none() {
    let place = workplace();
    let validate = |rows: &str, more: &[&str]| {
        write(place.path(), "none.csv", format!("body,stars\n{rows}"));
        let first = ["validate", "model=minilm", "train=none.csv", "text=body", "label=stars"];
        aflora(place.path(), &[&first[..], &["data=.", "max_length=32"], more].concat())
    };
    let told = |rows: &str, words: &str| refused(&validate(rows, &[]), 2, words);
    let rows = |label: &str| format!("a,1\nb,{label}\n{}", "c,0\nd,1\n".repeat(20));
    for none in ["", "nan", "NaN", "NA", "N/A", "null", "None", "<NA>"] {
        told(&rows(none), "none.csv, line 3: there is no label in `stars`");
        let scores: String = (0..58).map(|i| format!("film {i},{i}.5\n")).collect();
        told(&format!("{scores}x,{none}\n"), "none.csv, line 60: there is no label in `stars`");
    }
    // What is called so outright is a class.
    let named = |labels: &str| {
        let rows: String = (0..40).map(|i| format!("f {i},{}\n", ["NA", "EU"][i % 2])).collect();
        validate(&rows, &[labels])
    };
    ok(&named("labels=['NA', EU]"));
    let scores: String = (0..58).map(|i| format!("film {i},{i}.5\n")).collect();
    let words = "none.csv, line 60: the label in `stars` is inf, but most are numbers";
    told(&format!("{scores}x,inf\n"), words);
}

#[test]
fn what_is_odd_about_rows_is_counted_and_told_with_file_and_line() {
    let place = workplace();
    write(place.path(), "train.csv", "body,stars\na film,low\n,high\nbad film,low\n\" \",high\n");
    write(place.path(), "dev.csv", "body,stars\na film,low\ngood,high\n");
    let validate = |more: &[&str]| {
        let first = ["validate", "model=minilm", "data=.", "max_length=32"];
        let keys = ["train=train.csv", "text=body", "label=stars", "task.task=odd"];
        aflora(place.path(), &[&first[..], &keys, more].concat())
    };
    let output = validate(&["dev=dev.csv", "labels=[low, mid, high, top]"]);
    ok(&output);
    let told = text(&output.stderr);
    for words in [
        "train.csv: 2 texts are empty: lines 3, 5",
        "1 of 2 rows of dev has the text of a training row",
        "no training row has these labels, which cannot be learned: mid, top",
    ] {
        assert!(told.contains(words), "missing: {words}\n--- in:\n{told}");
    }
    write(place.path(), "dev.csv", "body,stars\na film,low\ngood,top\n");
    let words = "dev.csv, line 3: the label is `top`, but must be one of [\"high\", \"low\"]";
    refused(&validate(&["dev=dev.csv"]), 1, words);
}

#[test]
fn inspect_shows_the_rows_with_labels_lengths_and_tokens() {
    let place = workplace();
    write(place.path(), "reviews.csv", reviews(["1", "3", "5"]));
    let arguments = ["inspect", "train=reviews.csv", "text=body", "label=stars", "model=minilm"];
    let shown = ok(&aflora(place.path(), &[&arguments[..], &["data=.", "max_length=9"]].concat()));
    for words in
        ["train               81  1 27, 3 27, 5 27", "dev                  9  1 3, 3 3, 5 3"]
    {
        assert!(shown.contains(words), "missing: {words}\n--- in:\n{shown}");
    }
    for words in ["tokens of a training row: ", "cut to max_length=9: ", "  row 1: [CLS] "] {
        assert!(shown.contains(words), "missing: {words}\n--- in:\n{shown}");
    }
    // Where no rows are at hand, the layers are shown all the same.
    let shown =
        ok(&aflora(place.path(), &["inspect", CONFIG, "task=rte", "model=minilm", "data=."]));
    assert!(shown.contains("rows: not at hand"), "{shown}");
}

#[test]
fn inspect_of_damaged_rows_shows_the_layers_and_ends_as_a_run_would() {
    let place = workplace();
    write(place.path(), "reviews.csv", reviews(["1", "3", "5"]));
    write(place.path(), "dev.csv", "body,stars\na film,1\na bad one,maybe\n");
    let arguments =
        ["train=reviews.csv", "dev=dev.csv", "text=body", "label=stars", "model=minilm", "data=."];
    for command in ["inspect", "validate"] {
        let output = aflora(place.path(), &[&[command, "max_length=32"], &arguments[..]].concat());
        refused(&output, 1, "dev.csv, line 3: the label is `maybe`");
        assert_eq!(text(&output.stdout).contains("trainable at the start"), command == "inspect");
    }
}

#[test]
fn inspect_counts_labels_and_tags_and_gives_the_ranges_of_several_scores() {
    let place = workplace();
    let shown = |file: &str, more: &[&str]| {
        let named = format!("train={file}");
        let fixed = ["inspect", &named, "model=minilm", "data=.", "max_length=32"];
        ok(&aflora(place.path(), &[&fixed[..], more].concat()))
    };
    let sets = ["[\"good\"]", "[\"good\", \"very\"]", "[]"];
    let rows = (0..60).map(|i| format!("{{\"text\": \"film {i}\", \"label\": {}}}\n", sets[i % 3]));
    write(place.path(), "sets.jsonl", rows.collect::<String>());
    let found = shown("sets.jsonl", &["dev=sets.jsonl"]);
    assert!(found.contains("train               60  good 40, very 20; none of them 20"), "{found}");
    let rows = (0..30).map(|i| format!("film O\nnumber {}\n\n", ["B-A", "B-B", "O"][i % 3]));
    write(place.path(), "tags.conll", rows.collect::<String>());
    let found = shown("tags.conll", &["dev=tags.conll"]);
    assert!(found.contains("train               30  words: O 40, B-A 10, B-B 10"), "{found}");
    let rows = (0..40).map(|i| format!("film {i},{},{}\n", i as f64 / 8.0, 40 - i));
    write(place.path(), "scores.csv", "text,style,plot\n".to_string() + &rows.collect::<String>());
    let found = shown("scores.csv", &["dev=scores.csv", "label=[style, plot]", "kind=score"]);
    let words = "style 0 to 4.875, 2.438 on average; plot 1 to 40, 20.500 on average";
    assert!(found.contains(words), "{found}");
}

#[test]
fn rows_of_one_sequence_of_tags_can_be_learned_and_rows_of_one_tag_cannot() {
    let place = workplace();
    let validate = |file: &str| {
        let (train, dev) = (format!("train={file}"), format!("dev={file}"));
        aflora(place.path(), &["validate", &train, &dev, "model=minilm", "data=.", "max_length=32"])
    };
    let sequence = (0..20).map(|i| format!("film I-A\nnumber{i} I-A\nis O\n\n"));
    write(place.path(), "same.conll", sequence.collect::<String>());
    ok(&validate("same.conll"));
    let one = (0..20).map(|i| "film O\n".repeat(1 + i % 3) + "\n");
    write(place.path(), "one.conll", one.collect::<String>() + "film I-A\n\n");
    let text = fs::read_to_string(place.path().join("one.conll")).unwrap();
    write(place.path(), "only.conll", text.replace("I-A", "O"));
    ok(&validate("one.conll"));
    let output = aflora(
        place.path(),
        &[
            "validate",
            "train=only.conll",
            "dev=one.conll",
            "labels=[O, I-A]",
            "model=minilm",
            "data=.",
            "max_length=32",
        ],
    );
    refused(&output, 1, "all 21 examples have the label O");
}

#[test]
fn inspect_of_plain_texts_tells_of_the_pieces_and_packs_that_a_run_makes_of_them() {
    let place = workplace();
    let lines = (0..60).map(|i| "three hundred and four ".repeat(1 + i % 20) + "\n");
    write(place.path(), "lines.txt", lines.collect::<String>());
    let settings = ["train=lines.txt", "kind=text", "model=tiny-llama", "max_length=24"];
    let found = ok(&aflora(place.path(), &[&["inspect"], &settings[..]].concat()));
    assert!(found.contains("  cut in pieces of max_length=24: "), "{found}");
    let packs = found.split("packs of at most max_length tokens: ").nth(1).expect(&found);
    let packs = packs.lines().next().unwrap();
    // As many as a run says.
    let run = [&["run", "epochs=1", "max_steps=1", "run_dir=out"], &settings[..]].concat();
    let output = aflora(place.path(), &run);
    ok(&output);
    let told = text(&output.stderr);
    assert!(told.contains(&format!(", in {packs} packs")), "{packs}\n{told}");
    // A row is shown by itself.
    let rows: Vec<&str> = found.lines().filter(|line| line.starts_with("  row ")).collect();
    assert!(rows.len() == 3 && rows.iter().all(|row| row.matches("<s>").count() == 1), "{found}");
}

/// A hub of one data set, whose files are `files`: it answers until the test ends.
fn hub(files: Vec<(&'static str, String)>) -> String {
    use std::io::{BufRead, BufReader, Write};
    const COMMIT: &str = "1111111111111111111111111111111111111111";
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let path = request.first().and_then(|line| line.split(' ').nth(1)).unwrap_or("");
            let body = match path {
                "/api/datasets/owner/films/revision/main" => {
                    let names =
                        files.iter().map(|(name, _)| serde_json::json!({"rfilename": name}));
                    let siblings: Vec<Value> = names.collect();
                    Some(serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string())
                }
                path => {
                    let name =
                        path.strip_prefix(&format!("/datasets/owner/films/resolve/{COMMIT}/"));
                    let file = files.iter().find(|(file, _)| Some(*file) == name);
                    file.map(|(_, content)| content.clone())
                }
            };
            let (status, code, body) = match body {
                Some(body) => ("200 OK", String::new(), body),
                None => ("404 Not Found", "X-Error-Code: EntryNotFound\r\n".into(), String::new()),
            };
            let tag = format!("{:x}", body.len() as u64 * 7919 + 1);
            let answer = format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\nX-Repo-Commit: {COMMIT}\r\nETag: \"{tag}\"\r\n\
                 {code}Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = (&stream).write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn a_data_set_of_the_hub_is_trained_on_by_its_name() {
    let place = workplace();
    let readme = "---\nconfigs:\n- config_name: short\n  data_files:\n  - split: train\n    path: \
                  short/train-*\n  - split: validation\n    path: short/val.csv\n- config_name: long\n  \
                  data_files: long/*\ndataset_info:\n- config_name: short\n  features:\n  - name: stars\n    \
                  dtype:\n      class_label:\n        names:\n          '0': low\n          '1': mid\n          \
                  '2': high\n---\n# Films\n";
    let address = hub(vec![
        ("README.md", readme.to_string()),
        ("short/train-0.csv", reviews(["0", "1", "2"])),
        ("short/train-1.csv", reviews(["0", "1", "2"]).replace("film", "one")),
        ("short/val.csv", reviews(["0", "1", "2"]).replace("film", "it")),
    ]);
    let command = |offline: &str, more: &[&str]| {
        let mut command = common::command(place.path(), &[&RUN[..], more].concat());
        command.env("HF_ENDPOINT", &address).env("HF_HUB_OFFLINE", offline);
        command.output().unwrap()
    };
    let keys = ["train=hub:owner/films/short", "text=body", "label=stars"];
    let output = command("0", &keys);
    ok(&output);
    let told = text(&output.stderr);
    assert!(
        told.contains("train: 180 of 180 rows")
            && told.contains(" and 1 further file")
            && told.contains("dev: 90 of 90 rows"),
        "{told}"
    );
    assert!(told.contains("the classes have names: low, mid, high"), "{told}");
    let task = task(place.path());
    assert_eq!((&task["task"], &task["kind"]), (&"films".into(), &"classify".into()));
    assert_eq!(task["label_names"], serde_json::json!(["low", "mid", "high"]));
    assert!(task["dataset"]["sources"]["own"]["revision"].as_str().unwrap().starts_with("1111"));
    // From the cache, once it is there.
    fs::remove_dir_all(place.path().join("out")).unwrap();
    ok(&command("1", &keys));
    for (name, words) in [
        ("hub:owner/films", "name one of its configurations, behind a slash: short, long"),
        ("hub:owner/films/none", "it has no configuration `none`, but short, long"),
        ("hub:owner/films/short/none", "the data set has no split `none`, but train, validation"),
        ("hub:films", "`films` is no data set; write hub:owner/name"),
    ] {
        refused(&command("0", &[&format!("train={name}")]), 2, words);
    }
}

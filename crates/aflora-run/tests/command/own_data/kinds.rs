//! What kind of task the rows are for, told by what stands in them.

use super::{ok, reviews, run, task, write};
use crate::common::{aflora, json, refused, root, text, workplace};
use serde_json::Value;
use std::fs;

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
    let models = format!("data={}", root().join("configs/models").display());
    let writes = ["train=reviews.csv", "input=body", "target=stars", "model=tiny-bart", &models];
    let writes = [&["inspect"], &writes[..]].concat();
    assert!(ok(&aflora(place.path(), &writes)).contains("reviews-tiny-bart"));
}

#[test]
fn a_label_that_is_probably_misspelt_is_told_with_its_row() {
    let place = workplace();
    let rows = |odd: &str| {
        let label = |i: usize| if i == 5 { odd } else { ["positive", "negative"][i % 2] };
        (0..40).map(|i| format!("film {i},{}\n", label(i))).collect::<String>()
    };
    let validate = |more: &[&str]| {
        let own = ["validate", "train=mine.csv", "model=minilm", "data=.", "max_length=32"];
        let output = aflora(place.path(), &[&own[..], more].concat());
        ok(&output);
        text(&output.stderr)
    };
    write(place.path(), "mine.csv", format!("text,label\n{}", rows("postive")));
    let told = validate(&[]);
    assert!(told.contains("one row has the label `postive` (") && told.contains("mine.csv:7)"));
    assert!(told.contains("if `positive` is meant"), "{told}");
    let told = validate(&["labels=[negative, positive, postive]"]);
    assert!(!told.contains("is meant"), "{told}");
    write(place.path(), "mine.csv", format!("text,label\n{}", rows("neutral")));
    let told = validate(&[]);
    assert!(!told.contains("is meant"), "{told}");
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
    let models = format!("data={}", root().join("configs/models").display());
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
    let file = root().join("crates/aflora-run/tests/fixtures/forms/classes.parquet");
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

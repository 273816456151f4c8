//! What is wrong or odd about keys and rows.

use super::{ok, reviews, write};
use crate::common::{aflora, refused, text, workplace};

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

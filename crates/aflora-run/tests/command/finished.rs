//! What a finished run is good for: from any folder, after it was moved, merged and exported, by
//! every method.

use crate::common::{aflora, command, json, refused, root, text, workplace, Forked, CONFIG, SMALL};
use serde_json::{json, Value};
use std::fs;
use std::path::Path;
use std::process::Output;

fn ok(output: &Output, what: &str) -> String {
    assert!(output.status.success(), "{what}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// A short run in `place`, of the model and data there.
fn run(place: &Path, more: &[&str]) {
    let first = ["run", CONFIG, "task=mrpc", "limit=32", "eval_limit=8", "method=lora"];
    ok(&aflora(place, &[&first, &SMALL[..], &["epochs=2"], more].concat()), "run");
}

/// A file of rows in a folder that knows nothing of the project.
fn elsewhere() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let row = json!({ "text_a": "the film is good", "text_b": "it was very bad" });
    fs::write(folder.path().join("new.jsonl"), format!("{row}\n")).unwrap();
    folder
}

#[test]
fn a_finished_run_is_used_from_any_folder_and_after_it_was_moved() {
    let (place, other) = (workplace(), elsewhere());
    run(place.path(), &["data=.", "run_dir=out"]);
    let out = place.path().join("out");
    let predict = |run: &str| ok(&aflora(other.path(), &["predict", run, "new.jsonl"]), run);
    let first = predict(out.to_str().unwrap());
    assert!(first.contains("\"scores\""), "{first}");
    let config = out.join("config.yaml");
    let again = ok(&aflora(other.path(), &["run", config.to_str().unwrap()]), "run");
    assert!(again.starts_with(out.to_str().unwrap()), "{again}");

    fs::rename(&out, other.path().join("moved")).unwrap();
    assert_eq!(predict("moved"), first);
    let inspected = ok(&aflora(other.path(), &["inspect", "moved"]), "inspect");
    assert!(inspected.starts_with("moved/adapter\n"), "{inspected}");
    assert!(inspected.contains("base model: ") && inspected.contains("layers:"), "{inspected}");
    // A run that has none yet is its configuration, and no name on the hub.
    let begun = other.path().join("begun");
    fs::create_dir(&begun).unwrap();
    fs::copy(other.path().join("moved/config.yaml"), begun.join("config.yaml")).unwrap();
    let inspected = ok(&aflora(other.path(), &["inspect", "begun"]), "inspect");
    assert!(inspected.contains("adapters on"), "{inspected}");
    let again = ok(&aflora(other.path(), &["run", "moved"]), "run");
    assert!(again.starts_with("moved\n"), "{again}");
    ok(&aflora(other.path(), &["merge", "moved", "merged"]), "merge");
    ok(&aflora(other.path(), &["export", "moved", "exported"]), "export");
    // It is finished where it is, and nothing goes back to where it was.
    let again = ok(&aflora(other.path(), &["run", "moved/config.yaml"]), "run");
    assert!(again.starts_with("moved\n"), "{again}");
    assert!(!out.exists());
    // But its result is not told for settings that it never had.
    let config = other.path().join("moved/config.yaml");
    let settings = fs::read_to_string(&config).unwrap();
    fs::write(&config, settings.replace("epochs: 2", "epochs: 3")).unwrap();
    let again = aflora(other.path(), &["run", "moved/config.yaml"]);
    refused(&again, 2, "config.yaml was changed since the run there began");
}

/// Runs of earlier versions wrote down the task's name, and not what it is.
#[test]
fn a_run_that_only_names_its_task_is_used_with_the_file_of_that_name() {
    let (place, other) = (workplace(), elsewhere());
    run(place.path(), &["data=.", "run_dir=out"]);
    fs::rename(place.path().join("out"), other.path().join("moved")).unwrap();
    let first = ok(&aflora(other.path(), &["predict", "moved", "new.jsonl"]), "whole");
    let config = other.path().join("moved/config.yaml");
    let whole = fs::read_to_string(&config).unwrap();
    let (_, rest) = whole.split_once("\nmodel:").unwrap();
    fs::write(&config, format!("task:\n  task: mrpc\nmodel:{rest}")).unwrap();
    assert_eq!(ok(&aflora(other.path(), &["predict", "moved", "new.jsonl"]), "named"), first);
    ok(&aflora(other.path(), &["merge", "moved", "merged"]), "merge");
    // Where the project is gone, or of an earlier version, too: its tasks said less.
    let at = |line: &str, project: &str| match line.starts_with("project:") {
        true => format!("project: {project}\n"),
        false => format!("{line}\n"),
    };
    let old = other.path().join("old/configs/tasks");
    fs::create_dir_all(&old).unwrap();
    fs::write(old.join("mrpc.yaml"), "task: mrpc\nmodel: deberta-v3-base\n").unwrap();
    for project in ["/nowhere", other.path().join("old").to_str().unwrap()] {
        let rest: String = rest.lines().map(|line| at(line, project)).collect();
        fs::write(&config, format!("task:\n  task: mrpc\nmodel:{rest}")).unwrap();
        assert_eq!(ok(&aflora(other.path(), &["predict", "moved", "new.jsonl"]), project), first);
    }
    fs::write(&config, format!("task:\n  task: mrcp\nmodel:{rest}")).unwrap();
    let output = aflora(other.path(), &["predict", "moved", "new.jsonl"]);
    refused(&output, 2, "there is no task `mrcp`");
    refused(&output, 2, "did you mean `mrpc`?");
}

#[test]
fn a_run_that_did_not_finish_goes_on_in_the_folder_of_its_configuration() {
    let (place, other) = (workplace(), elsewhere());
    run(place.path(), &["data=."]);
    let moved = other.path().join("moved");
    fs::rename(place.path().join("runs/mrpc-minilm-lora-seed42"), &moved).unwrap();
    fs::remove_file(moved.join("metrics.json")).unwrap();
    ok(&aflora(other.path(), &["run", "moved/config.yaml"]), "run");
    assert!(moved.join("metrics.json").is_file());
    assert!(!other.path().join("runs").exists());
    // Elsewhere it is run again only if it is told where.
    ok(&aflora(other.path(), &["run", "moved/config.yaml", "run_dir=again"]), "run");
    assert!(other.path().join("again/metrics.json").is_file());
}

#[test]
fn a_model_that_was_found_by_the_environment_is_found_without_it() {
    let (place, other) = (workplace(), elsewhere());
    let arguments = ["run", CONFIG, "task=mrpc", "limit=32", "method=lora", "run_dir=out"];
    let arguments = [&arguments, &SMALL[..], &["epochs=2"]].concat();
    let output = command(place.path(), &arguments).env("AFLORA_DATA", ".").forked();
    ok(&output, "run");
    let out = place.path().join("out");
    ok(&aflora(other.path(), &["predict", out.to_str().unwrap(), "new.jsonl"]), "predict");
}

#[test]
fn data_that_the_environment_named_are_those_of_the_run_without_it() {
    let place = workplace();
    let first = ["task=mrpc", "limit=32", "method=lora", "run_dir=out"];
    let arguments = [&["run", CONFIG], &first[..], &SMALL[..], &["epochs=2"]].concat();
    let output = command(place.path(), &arguments).env("AFLORA_DATA", ".").forked();
    ok(&output, "run");
    let config = fs::read_to_string(place.path().join("out/config.yaml")).unwrap();
    let data = place.path().canonicalize().unwrap();
    assert!(config.contains(&format!("data: {}\n", data.display())), "{config}");
    // Other data in another folder do not come between, with the variable or without it.
    let other = place.path().join("other/MRPC");
    fs::create_dir_all(&other).unwrap();
    for split in ["train.tsv", "dev.tsv"] {
        let rows = fs::read_to_string(place.path().join("glue/MRPC").join(split)).unwrap();
        fs::write(other.join(split), rows.replace("good", "fine")).unwrap();
    }
    let read = |run: &str| json(&place.path().join(run).join("provenance.json"))["data"].clone();
    for (run, variable) in [("without", None), ("with", Some("other"))] {
        let folder = format!("run_dir={run}");
        let mut command = command(place.path(), &["run", "out/config.yaml", &folder]);
        command.envs(variable.map(|folder| ("AFLORA_DATA", folder)));
        ok(&command.forked(), run);
        assert_eq!(read(run), read("out"), "{run}");
    }
    // A folder holds one of them alone: then it is told what the other was taken for.
    fs::create_dir(place.path().join("empty")).unwrap();
    let arguments = [&arguments[..], &["data=empty", "run_dir=both"]].concat();
    let output = command(place.path(), &arguments).env("AFLORA_DATA", ".").forked();
    ok(&output, "both");
    let said = text(&output.stderr);
    assert!(said.contains("config.yaml does not name"), "{said}");
}

#[test]
fn a_place_where_a_model_was_looked_for_is_told_once() {
    let place = workplace();
    let gone = place.path().join("gone");
    let model = format!("model.path={}", gone.display());
    let arguments = ["run", CONFIG, "task=mrpc", "model=minilm", "data=glue", &model];
    let output = command(place.path(), &arguments).env("AFLORA_DATA", "glue").forked();
    let said = text(&output.stderr);
    assert_eq!(said.matches(&*gone.join("config.json").to_string_lossy()).count(), 1, "{said}");
    assert_eq!(said.matches("glue/minilm/config.json").count(), 1, "{said}");
}

#[test]
fn a_model_of_the_project_is_found_by_a_run_that_left_it() {
    let (place, other) = (workplace(), elsewhere());
    run(place.path(), &["data=.", "model=tiny-deberta", "run_dir=out"]);
    fs::rename(place.path().join("out"), other.path().join("moved")).unwrap();
    ok(&aflora(other.path(), &["predict", "moved", "new.jsonl"]), "predict");
    // And by one that moved together with its project.
    fs::rename(other.path().join("moved"), place.path().join("moved")).unwrap();
    let project = other.path().join("project");
    fs::rename(place.path(), &project).unwrap();
    ok(&aflora(other.path(), &["predict", "project/moved", "new.jsonl"]), "predict");
}

#[test]
fn merging_and_exporting_keep_what_the_model_came_with() {
    let place = workplace();
    let model = place.path().join("minilm");
    let files = [
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
        "additional_chat_templates/rag.jinja",
    ];
    fs::create_dir(model.join("additional_chat_templates")).unwrap();
    let of_model = ["generation_config.json", "LICENSE.txt", "NOTICE"];
    for file in files.iter().chain(&of_model) {
        fs::write(model.join(file), "{}").unwrap();
    }
    let path = model.join("config.json");
    let mut config = json(&path);
    config["architectures"] = json!(["BertModel"]);
    config["transformers_version"] = json!("4.8.2");
    config["_name_or_path"] = json!("nreimers/MiniLM-L6-H384-uncased");
    fs::write(&path, config.to_string()).unwrap();
    run(place.path(), &["data=.", "run_dir=out"]);

    ok(&aflora(place.path(), &["merge", "out", "merged"]), "merge");
    ok(&aflora(place.path(), &["export", "out", "exported"]), "export");
    let has = |folder: &str, file: &str| place.path().join(folder).join(file).is_file();
    for file in files.iter().chain(&["tokenizer.json"]) {
        assert!(has("merged", file) && has("exported", file), "{file}");
    }
    for file in of_model {
        assert!(has("merged", file), "{file}");
    }
    assert!(!has("exported", "config.json"));

    let merged = json(&place.path().join("merged/config.json"));
    assert_eq!(merged["architectures"], json!(["BertForSequenceClassification"]));
    assert_eq!(merged["id2label"], json!({ "0": "not_equivalent", "1": "equivalent" }));
    assert_eq!(merged["label2id"], json!({ "not_equivalent": 0, "equivalent": 1 }));
    for key in ["transformers_version", "_name_or_path"] {
        assert_eq!(merged[key], Value::Null, "{key}");
    }
    for folder in ["exported", "out/adapter"] {
        let config = json(&place.path().join(folder).join("adapter_config.json"));
        let base = Path::new(config["base_model_name_or_path"].as_str().unwrap());
        assert_eq!(base, model.canonicalize().unwrap(), "{folder}");
    }
}

/// From the run to predictions, a merged model and an exported adapter, by each of `methods`.
fn goes_round(place: &Path, model: &str, task: &str, methods: &[&str]) {
    for &name in methods {
        // A model that writes has no head of its own.
        if name == "head" && task == "lines" {
            continue;
        }
        let what = format!("{name} on {model}");
        let [out, merged, exported] =
            ["out", "merged", "exported"].map(|folder| format!("{folder}-{name}"));
        let own = [("model", model), ("task", task), ("method", name), ("run_dir", &out)];
        let own = own.map(|(key, value)| format!("{key}={value}"));
        let mut arguments = [&["run", CONFIG], &SMALL[..]].concat();
        arguments.extend(own.iter().map(String::as_str));
        arguments.extend(["data=.", "limit=8", "eval_limit=2", "batch_size=2"]);
        if task == "lines" {
            arguments.push("task.generation.max_new_tokens=2");
        }
        if matches!(name, "vera" | "elora") {
            arguments.push("method.rank=8");
        }
        ok(&aflora(place, &arguments), &what);
        let input = if task == "lines" { "lines/dev.jsonl" } else { "pairs.jsonl" };
        let answers = ok(&aflora(place, &["predict", &out, input]), &what);
        assert_eq!(answers.lines().count(), 2, "{what}");
        ok(&aflora(place, &["merge", &out, &merged]), &what);
        let export = aflora(place, &["export", &out, &exported]);
        match name {
            "full" | "bitfit" | "head" => refused(&export, 2, "no adapters"),
            _ => {
                ok(&export, &what);
                // The run's own folder of an adapter, and the exported one, answer as the run does.
                for folder in [format!("{out}/adapter"), exported] {
                    let more = ["--model", model, "--data", "."];
                    let again = aflora(place, &[&["predict", &folder, input], &more[..]].concat());
                    alike(&answers, &ok(&again, &what), &what);
                }
            }
        }
    }
}

/// Whether an adapter answers as its run did: to 1e-4, for what is folded into other matrices is
/// rounded anew, whatever classes are called; and a text as far as the run wrote it.
fn alike(run: &str, adapter: &str, what: &str) {
    let rows = |text: &str| -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let scores = |row: &Value| -> Vec<f64> {
        let scores = row["scores"].as_object().into_iter().flat_map(|scores| scores.values());
        scores.chain(row.get("score")).map(|score| score.as_f64().unwrap()).collect()
    };
    let (run, adapter) = (rows(run), rows(adapter));
    assert_eq!(run.len(), adapter.len(), "{what}");
    for (run, adapter) in run.iter().zip(&adapter) {
        match (run["prediction"].as_str(), adapter["prediction"].as_str()) {
            (Some(run), Some(adapter)) => {
                assert!(adapter.starts_with(run), "{what}: {run:?}, {adapter:?}");
            }
            _ => {
                let (run, adapter) = (scores(run), scores(adapter));
                assert!(!run.is_empty() && run.len() == adapter.len(), "{what}");
                let close = run.iter().zip(&adapter).all(|(a, b)| (a - b).abs() < 1e-4);
                assert!(close, "{what}: {run:?}, {adapter:?}");
            }
        }
    }
}

const METHODS: [&str; 11] = [
    "aflora",
    "aflora-rank",
    "lora",
    "dora",
    "vera",
    "elora",
    "adalora",
    "sora",
    "full",
    "bitfit",
    "head",
];

/// A workplace with rows to write from, and a tiny model that writes: the one of `configs/models`
/// that is named, with the configuration `config` if one is given.
fn writing(model: &str, kind: &str, config: Option<Value>) -> tempfile::TempDir {
    let place = workplace();
    let models = place.path().join("configs/models");
    let shipped = root().join("configs/models").join(model);
    fs::create_dir(models.join("tiny")).unwrap();
    for file in ["config.json", "tokenizer.json"] {
        fs::copy(shipped.join(file), models.join("tiny").join(file)).unwrap();
    }
    if let Some(config) = config {
        fs::write(models.join("tiny/config.json"), config.to_string()).unwrap();
    }
    let block = format!(
        "model: tiny\nbackbone: {kind}\npath: configs/models/tiny\nweights: random\n\
         target_modules: '.*'\n"
    );
    fs::write(models.join("tiny.yaml"), block).unwrap();
    let line = |i| json!({ "input": format!("say {i}"), "target": "yes" }).to_string() + "\n";
    fs::create_dir(place.path().join("lines")).unwrap();
    for (file, rows) in [("train.jsonl", 8), ("dev.jsonl", 2)] {
        let lines: String = (0..rows).map(line).collect();
        fs::write(place.path().join("lines").join(file), lines).unwrap();
    }
    place
}

#[test]
fn every_method_goes_from_the_run_to_an_exported_adapter_on_gpt2() {
    let fixtures = root().join("crates/aflora-models/tests/fixtures");
    let mut config = json(&fixtures.join("writers/gpt2/config.json"));
    config["vocab_size"] = json!(1024);
    let place = writing("tiny-llama", "gpt2", Some(config));
    goes_round(place.path(), "tiny", "lines", &METHODS);
}

#[test]
fn every_method_goes_from_the_run_to_an_exported_adapter_on_bart() {
    let place = writing("tiny-bart", "bart", None);
    goes_round(place.path(), "tiny", "lines", &METHODS);
}

#[test]
fn every_method_goes_from_the_run_to_an_exported_adapter_on_bert() {
    let place = workplace();
    let pair = json!({ "text_a": "the film is good", "text_b": "it was very bad" });
    fs::write(place.path().join("pairs.jsonl"), format!("{pair}\n{pair}\n")).unwrap();
    goes_round(place.path(), "minilm", "mrpc", &METHODS);
}

#[test]
fn decoders_and_bart_go_from_labels_to_an_exported_adapter() {
    let fixtures = root().join("crates/aflora-models/tests/fixtures");
    for (shipped, kind, module, class) in [
        ("tiny-llama", "llama", "score", "LlamaForSequenceClassification"),
        ("tiny-llama", "gpt2", "score", "GPT2ForSequenceClassification"),
        ("tiny-bart", "bart", "classification_head", "BartForSequenceClassification"),
    ] {
        let config = (kind == "gpt2").then(|| {
            let mut config = json(&fixtures.join("models/gpt2/config.json"));
            (config["vocab_size"], config["pad_token_id"]) = (json!(1024), json!(null));
            config
        });
        let place = writing(shipped, kind, config);
        let pair = json!({ "text_a": "the film is good", "text_b": "it was very bad" });
        fs::write(place.path().join("pairs.jsonl"), format!("{pair}\n{pair}\n")).unwrap();
        goes_round(place.path(), "tiny", "mrpc", &["aflora", "head"]);
        let read = |path: &str| json(&place.path().join(path));
        let merged = read("merged-aflora/config.json");
        assert_eq!(merged["architectures"], json!([class]));
        assert_eq!(merged["id2label"], json!({ "0": "not_equivalent", "1": "equivalent" }));
        for folder in ["out-aflora/adapter", "exported-aflora"] {
            let adapter = read(&format!("{folder}/adapter_config.json"));
            assert_eq!(adapter["task_type"], "SEQ_CLS", "{kind}");
            assert_eq!(adapter["modules_to_save"], json!([module]), "{kind}");
        }
        goes_round(place.path(), "tiny", "stsb", &["lora"]);
        assert_eq!(read("merged-lora/config.json")["problem_type"], "regression", "{kind}");
    }
}

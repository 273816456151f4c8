//! The `aflora` command, end to end on a tiny random model, and on everything that can be wrong.

use crate::common::{self, aflora, json, refused, root, run, text, workplace, CONFIG, SMALL};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn a_run_learns_and_leaves_a_whole_folder() {
    let place = workplace();
    let output =
        run(place.path(), &["task=mrpc", "epochs=30", "lr=3e-2", "max_grad_norm=1", "run_dir=out"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("accuracy"), "{}", text(&output.stdout));
    let out = place.path().join("out");
    for file in ["config.yaml", "provenance.json", "events.jsonl", "freeze.csv"] {
        assert!(out.join(file).is_file(), "{file}");
    }
    for file in ["adapter/adapter_config.json", "adapter/adapter_model.safetensors"] {
        assert!(out.join(file).is_file(), "{file}");
    }
    let metrics = json(&out.join("metrics.json"));
    assert!(metrics["best"]["metrics"]["accuracy"].as_f64().unwrap() > 0.9, "{metrics}");
    assert_eq!(metrics["steps"], 180);
    let counts = &metrics["parameters"];
    // Two layers: vectors 2 (6·4 + 5·32 + 64) = 496, feed-forward matrices 2·2·4·96 = 1,536.
    assert_eq!((&counts["at_start"], &counts["at_end"]), (&2032.into(), &496.into()));
    let average = counts["time_average"].as_f64().unwrap();
    assert!(average > 496.0 && average < 2032.0);

    let frozen = fs::read_to_string(out.join("freeze.csv")).unwrap();
    assert_eq!(frozen.lines().count(), 1 + 8, "{frozen}");
    assert!(frozen.lines().skip(1).all(|l| l.contains(",ffn,") && !l.ends_with(',')), "{frozen}");
    let events = fs::read_to_string(out.join("events.jsonl")).unwrap();
    let losses: Vec<f64> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|e| e["event"] == "step")
        .map(|e| e["loss"].as_f64().unwrap())
        .collect();
    assert!(losses.last().unwrap() < &(0.7 * losses[0]), "{losses:?}");
    let provenance = json(&out.join("provenance.json"));
    assert_eq!(provenance["data"][0]["rows"], 96);
    assert_eq!(provenance["weights"][0]["sha256"].as_str().unwrap().len(), 64);

    let listed = aflora(place.path(), &["ls", "."]);
    assert!(text(&listed.stdout).contains("f1 "), "{}", text(&listed.stdout));
}

/// libtorch's destructors take as long as a third of a short command.
#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn the_program_ends_without_the_ends_of_its_libraries() {
    let place = tempfile::tempdir().unwrap();
    let output =
        common::command(place.path(), &["--version"]).env("LD_DEBUG", "files").output().unwrap();
    assert!(output.status.success());
    assert!(text(&output.stdout).starts_with("aflora "), "{}", text(&output.stdout));
    let loaded = text(&output.stderr);
    assert!(loaded.contains("calling init: ") && !loaded.contains("calling fini: "), "{loaded}");
}

#[test]
fn the_same_seed_gives_the_same_run_bit_for_bit() {
    let place = workplace();
    for (name, seed) in [("a", "seed=1"), ("b", "seed=1"), ("c", "seed=2")] {
        let output = run(place.path(), &["task=mrpc", seed, &format!("run_dir={name}")]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let bytes = |name: &str, file: &str| fs::read(place.path().join(name).join(file)).unwrap();
    for file in ["adapter/adapter_model.safetensors", "freeze.csv"] {
        assert_eq!(bytes("a", file), bytes("b", file), "{file}");
    }
    assert_ne!(
        bytes("a", "adapter/adapter_model.safetensors"),
        bytes("c", "adapter/adapter_model.safetensors")
    );
}

#[test]
fn regression_accumulation_bf16_and_every_method_run() {
    let place = workplace();
    for (name, more) in [
        ("score", vec!["task=stsb", "accumulate=2"]),
        ("bf16", vec!["task=mrpc", "precision=bf16"]),
        ("lora", vec!["task=mrpc", "method=lora"]),
        ("head", vec!["task=mrpc", "method=head"]),
        ("text", vec!["task=mrpc", "method=aflora-text", "method.dropout=0.1"]),
        ("frozen", vec!["task=mrpc", "method=aflora-frozen"]),
    ] {
        let run_dir = format!("run_dir={name}");
        let output = run(place.path(), &[&more[..], &[&run_dir]].concat());
        assert!(output.status.success(), "{name}: {}", text(&output.stderr));
        let metrics = json(&place.path().join(name).join("metrics.json"));
        let frozen_only = matches!(name, "frozen" | "head");
        let counts = &metrics["parameters"];
        assert_eq!(counts["at_start"] == counts["at_end"], frozen_only || name == "lora", "{name}");
    }
}

#[test]
fn a_run_folder_is_never_overwritten_and_numbers_go_on() {
    let place = workplace();
    let short = ["task=mrpc", "method=head", "epochs=1"];
    for _ in 0..2 {
        assert!(run(place.path(), &short).status.success());
    }
    let name = "runs/mrpc-minilm-head-seed42";
    assert!(place.path().join(name).join("metrics.json").is_file());
    assert!(place.path().join(format!("{name}-2")).join("metrics.json").is_file());
    let named = format!("run_dir={name}");
    let again = run(place.path(), &[&short[..], &[&named, "lr=1e-5"]].concat());
    refused(&again, 2, "lr: ");
    fs::create_dir(place.path().join("other")).unwrap();
    fs::write(place.path().join("other/file"), "").unwrap();
    let again = run(place.path(), &[&short[..], &["run_dir=other"]].concat());
    refused(&again, 2, "already holds something");
    // The resolved configuration is a run file itself.
    let config = format!("{name}/config.yaml");
    let output = aflora(place.path(), &["run", &config, "run_dir=again"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn data_or_models_that_are_nowhere_are_told_quickly_with_a_remedy() {
    let place = workplace();
    let started = Instant::now();
    let output = run(place.path(), &["task=rte", "run_dir=out", "data=glue"]);
    refused(&output, 2, "the model `minilm`");
    refused(&output, 2, "`make assets MODEL=minilm`");
    let output = run(place.path(), &["task=rte", "run_dir=out"]);
    refused(&output, 2, "no RTE/ in it");
    refused(&output, 2, "AFLORA_DATA");
    // Within moments, where a lookup that waits would take its connection's time-out; a busy machine
    // has its time, too.
    assert!(started.elapsed() < Duration::from_secs(20), "it waited for something");
    assert!(!place.path().join("out").exists(), "nothing is written");
}

#[test]
fn wrong_settings_are_refused_with_code_2_before_anything_is_written() {
    let place = workplace();
    for (more, words) in [
        (vec!["max_length=128"], "reads at most 64 tokens; set max_length=64"),
        (vec!["method.freeze.t_i=60%"], "freeze.t_i + freeze.t_f"),
        (vec!["model.target_modules=[qurey]"], "the nearest are: "),
        (vec!["model.target_modules='('"], "regular expression"),
        (vec!["device=cuda:99"], "device `cuda:99`"),
        (vec!["model.backbone=xlnet"], "`xlnet` are not built"),
        (vec!["method.rank=0"], "`rank` is 0"),
    ] {
        let output = run(place.path(), &[&["task=mrpc", "run_dir=out"], &more[..]].concat());
        refused(&output, 2, words);
        assert!(!place.path().join("out").exists(), "{words}");
    }
    let output = aflora(place.path(), &["run", "absent.yaml"]);
    refused(&output, 2, "absent.yaml");
    refused(&aflora(place.path(), &["walk"]), 2, "unrecognized subcommand");
}

#[test]
fn damaged_files_are_refused_with_their_place() {
    let damage: [(&str, &[u8], &str); 7] = [
        ("glue/MRPC/train.tsv", b"", "there are no examples"),
        (
            "glue/MRPC/dev.tsv",
            b"Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n9\t1\t2\ta\tb\n",
            "dev.tsv, line 2: the label is `9`",
        ),
        (
            "glue/MRPC/train.tsv",
            b"Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t1\t2\ta\tb\n1\t1\t2\tc\td\n",
            "all 2 examples have the label 1",
        ),
        ("glue/STS-B/dev.tsv", b"sentence1\tsentence2\tscore\na\tb\tnan\n", "the score is `nan`"),
        ("minilm/model.safetensors", b"\x10\0\0\0\0\0\0\0{}", "not a readable safetensors file"),
        ("minilm/tokenizer.json", b"{", "damaged tokenizer"),
        ("minilm/config.json", b"[]", "not a Hugging Face config.json"),
    ];
    for (file, bytes, words) in damage {
        let place = workplace();
        fs::write(place.path().join(file), bytes).unwrap();
        let task = if file.contains("STS-B") { "task=stsb" } else { "task=mrpc" };
        refused(&run(place.path(), &[task, "run_dir=out"]), 1, words);
        assert!(!place.path().join("out").exists(), "{words}");
    }
    for (file, words) in [
        ("minilm/tokenizer.json", "no tokenizer here"),
        ("minilm/model.safetensors", "minilm: no weights here; looked for model.safetensors"),
        ("glue/MRPC/train.tsv", "neither train.tsv nor"),
    ] {
        let place = workplace();
        fs::remove_file(place.path().join(file)).unwrap();
        refused(&run(place.path(), &["task=mrpc", "run_dir=out"]), 2, words);
    }
}

#[test]
fn a_folder_that_cannot_be_written_ends_the_run_in_words() {
    let place = workplace();
    fs::write(place.path().join("file"), "").unwrap();
    refused(&run(place.path(), &["task=mrpc", "run_dir=file/out"]), 2, "cannot be");
    refused(&run(place.path(), &["task=mrpc", "run_dir=/proc/aflora"]), 2, "cannot be made");
    fs::write(place.path().join("runs"), "").unwrap();
    refused(
        &run(place.path(), &["task=mrpc", "data=none"]),
        2,
        "the run folder runs cannot be made",
    );
}

#[test]
fn a_full_disk_ends_the_run_in_words_and_leaves_nothing_that_looks_whole() {
    let place = workplace();
    // A limit of 8 KiB a file stands for the full disk: the adapter needs more.
    let limited = "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\"";
    let output = Command::new("bash")
        .args(["-c", limited, env!("CARGO_BIN_EXE_aflora"), "run", CONFIG])
        .args(SMALL)
        .args(["task=mrpc", "data=.", "run_dir=out"])
        .current_dir(place.path())
        .output()
        .unwrap();
    refused(&output, 1, "adapter_model.safetensors: ");
    refused(&output, 1, "File too large");
    for name in ["metrics.json", "adapter", "adapter.tmp"] {
        assert!(!place.path().join("out").join(name).exists(), "{name}");
    }
}

#[test]
fn a_diverging_run_fails_and_is_no_finished_run() {
    let place = workplace();
    let hot = ["task=mrpc", "lr=1e30", "head_lr=1e30", "max_grad_norm=null", "warmup=0 steps"];
    let output = run(place.path(), &[&hot[..], &["run_dir=out", "log_every=1"]].concat());
    refused(&output, 1, "not finite in 10 steps in a row");
    assert!(!place.path().join("out/metrics.json").exists());
    let events = fs::read_to_string(place.path().join("out/events.jsonl")).unwrap();
    assert!(events.lines().last().unwrap().contains("\"event\":\"failed\""), "{events}");
    let listed = aflora(place.path(), &["ls", "."]);
    assert!(text(&listed.stdout).contains("not finished"));
}

#[test]
fn inspect_needs_no_weights_and_counts_by_the_closed_formula() {
    let place = workplace();
    fs::remove_file(place.path().join("minilm/model.safetensors")).unwrap();
    let arguments = ["inspect", CONFIG, "task=mrpc", "model=minilm", "data=."];
    let output = aflora(place.path(), &arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    assert!(table.contains("adapters on 12 of 12 linear layers"), "{table}");
    assert_eq!(table.matches("2,032").count(), 2, "counted and by formula: {table}");
}

/// The config.json of microsoft/deberta-v3-base.
const DEBERTA_V3_BASE: &str = r#"{
  "model_type": "deberta-v2", "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu",
  "hidden_dropout_prob": 0.1, "hidden_size": 768, "initializer_range": 0.02,
  "intermediate_size": 3072, "max_position_embeddings": 512, "relative_attention": true,
  "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": true,
  "pos_att_type": "p2c|c2p", "layer_norm_eps": 1e-7, "max_relative_positions": -1,
  "position_biased_input": false, "num_attention_heads": 12, "num_hidden_layers": 12,
  "type_vocab_size": 0, "vocab_size": 128100
}"#;

#[test]
fn the_counts_on_deberta_v3_base_are_the_paper_s() {
    let place = workplace();
    let folder = place.path().join("deberta-v3-base");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("config.json"), DEBERTA_V3_BASE).unwrap();
    for (method, counts) in [
        ("lora", ["1,327,104", "72 of 72", "1,538"].as_slice()),
        ("aflora", ["368,640", "83,232", "451,872"].as_slice()),
    ] {
        let method = format!("method={method}");
        let output = aflora(place.path(), &["inspect", CONFIG, "task=mrpc", "data=.", &method]);
        let table = text(&output.stdout);
        for count in counts {
            assert!(table.contains(count), "{method}: {count}: {table}");
        }
    }
}

#[test]
fn a_tiny_deberta_with_random_weights_trains_without_a_download() {
    let place = workplace();
    let mut arguments = SMALL.to_vec();
    arguments.extend(["task=mrpc", "model=tiny-deberta", "data=.", "run_dir=out"]);
    let output = run(place.path(), &arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("starts from random weights"));
    let adapter = place.path().join("out/adapter/adapter_config.json");
    // The pooler starts at random and stays so: without it the adapter would mean nothing.
    assert_eq!(json(&adapter)["modules_to_save"], serde_json::json!(["classifier", "pooler"]));
    assert_eq!(json(&place.path().join("out/provenance.json"))["weights"], serde_json::json!([]));
}

#[test]
fn help_and_validate_say_what_there_is() {
    let place = workplace();
    let help = text(&aflora(place.path(), &["--help"]).stdout);
    for word in ["run", "validate", "inspect", "ls", "Keys", "method.freeze.rule", "Exit codes"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    let arguments =
        ["validate", CONFIG, "task=mrpc", "model=minilm", "data=.", "max_length=64", "seed=7"];
    let output = aflora(place.path(), &arguments);
    assert!(text(&output.stdout).contains("fine, mrpc-minilm-aflora-seed7"));
}

/// A small finished run in `out`, by method.
fn finished(place: &Path, method: &str) {
    let mut arguments = SMALL.to_vec();
    let method = format!("method={method}");
    arguments.extend(["task=mrpc", "data=.", "run_dir=out", &method]);
    let output = run(place, &arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn a_finished_run_predicts_what_it_was_evaluated_to() {
    let place = workplace();
    finished(place.path(), "aflora");
    // The dev set, once as JSONL and once as CSV.
    let dev = fs::read_to_string(place.path().join("glue/MRPC/dev.tsv")).unwrap();
    let rows: Vec<Vec<&str>> = dev.lines().skip(1).map(|l| l.split('\t').collect()).collect();
    let jsonl: String = rows
        .iter()
        .map(|r| {
            serde_json::json!({ "id": r[1], "text_a": r[3], "text_b": r[4] }).to_string() + "\n"
        })
        .collect();
    fs::write(place.path().join("dev.jsonl"), jsonl).unwrap();
    let csv: String = rows.iter().map(|r| format!("\"{}\",\"{}\"\n", r[3], r[4])).collect();
    fs::write(place.path().join("dev.csv"), format!("sentence1,sentence2\n{csv}")).unwrap();

    let predict = |arguments: &[&str]| {
        let output =
            aflora(place.path(), &[&["predict", "out", "--data", "."], arguments].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let from_jsonl = predict(&["dev.jsonl", "--batch-size", "3"]);
    predict(&["dev.csv", "--output", "judged.jsonl"]);
    let from_csv = fs::read_to_string(place.path().join("judged.jsonl")).unwrap();
    let parse = |text: &str| -> Vec<Value> {
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    };
    let (a, b) = (parse(&from_jsonl), parse(&from_csv));
    assert_eq!((a.len(), b.len()), (rows.len(), rows.len()));
    let mut right = 0;
    for ((a, b), row) in a.iter().zip(&b).zip(&rows) {
        assert_eq!((&a["label"], a["id"].as_str()), (&b["label"], Some(row[1])));
        let score = |name: &str| a["scores"][name].as_f64().unwrap();
        let (yes, no) = (score("equivalent"), score("not_equivalent"));
        assert!((yes + no - 1.0).abs() < 1e-5);
        assert_eq!(a["label"] == "equivalent", yes > no);
        right += usize::from((a["label"] == "equivalent") == (row[0] == "1"));
    }
    let metrics = json(&place.path().join("out/metrics.json"));
    let accuracy = metrics["best"]["metrics"]["accuracy"].as_f64().unwrap();
    assert!((right as f64 / rows.len() as f64 - accuracy).abs() < 1e-9, "{right}, {accuracy}");

    for (name, content, expected) in [
        ("bad.jsonl", "{\"text_a\": \"x\", \"text_b\": \"y\"}\n{oops\n", "bad.jsonl, line 2"),
        ("keys.jsonl", "{\"text\": \"x\"}\n", "`mrpc` wants `#1 String` and `#2 String`, or `sentence1` and `sentence2`, or `text_a` and `text_b`"),
        ("bad.csv", "text_a,text_b\n1,2\n3\n", "bad.csv"),
    ] {
        fs::write(place.path().join(name), content).unwrap();
        let arguments = ["predict", "out", name, "--data", ".", "--output", "never.jsonl"];
        let output = aflora(place.path(), &arguments);
        refused(&output, 1, expected);
        assert!(!place.path().join("never.jsonl").exists());
    }
    refused(&aflora(place.path(), &["predict", "nowhere", "dev.csv"]), 2, "no finished run");
}

#[test]
fn a_merged_run_is_a_plain_model_and_an_exported_one_a_lora() {
    for method in ["aflora", "adalora", "elora", "bitfit"] {
        let place = workplace();
        finished(place.path(), method);
        let ok = |arguments: &[&str]| {
            let output = aflora(place.path(), arguments);
            assert!(output.status.success(), "{method}: {}", text(&output.stderr));
        };
        ok(&["merge", "out", "merged", "--data", "."]);
        let merged = place.path().join("merged");
        assert_eq!(json(&merged.join("config.json"))["label2id"]["equivalent"], 1);
        assert!(merged.join("tokenizer.json").is_file());
        refused(&aflora(place.path(), &["merge", "out", "merged", "--data", "."]), 2, "exists");

        // As the model of a run that trains nothing at all, it scores what the run scored.
        fs::rename(place.path().join("minilm"), place.path().join("old")).unwrap();
        fs::rename(&merged, place.path().join("minilm")).unwrap();
        let mut arguments = SMALL.to_vec();
        arguments.extend(["task=mrpc", "data=.", "run_dir=plain", "method=head", "head_lr=0"]);
        arguments.push("epochs=1");
        assert!(run(place.path(), &arguments).status.success());
        let best = |run: &str| json(&place.path().join(run).join("metrics.json"))["best"].clone();
        let (merged, adapted) = (best("plain"), best("out"));
        assert_eq!(merged["metrics"], adapted["metrics"], "{method}");
        let loss = |v: &Value| v["loss"].as_f64().unwrap();
        assert!((loss(&merged) - loss(&adapted)).abs() < 1e-4, "{method}");

        if method != "bitfit" {
            fs::rename(place.path().join("old"), place.path().join("model")).unwrap();
            fs::remove_dir_all(place.path().join("minilm")).unwrap();
            fs::rename(place.path().join("model"), place.path().join("minilm")).unwrap();
            ok(&["export", "out", "lora", "--as", "lora", "--data", "."]);
            let config = json(&place.path().join("lora/adapter_config.json"));
            assert_eq!(config["peft_type"], "LORA", "{method}");
        }
    }
}

#[test]
fn a_method_that_trains_the_model_s_own_weights_stays_in_single_precision() {
    let place = workplace();
    for method in ["method=full", "method=bitfit"] {
        let arguments = ["task=mrpc", method, "precision=bf16", "run_dir=out"];
        refused(&run(place.path(), &arguments), 2, "set precision=fp32");
        assert!(!place.path().join("out").exists());
    }
}

/// A commit of the hub's.
const COMMIT: &str = "0123abc0123abc0123abc0123abc0123abc01234";

/// Serves the files below a folder as the hub does until the test ends; gives its address.
fn serve(folder: PathBuf) -> String {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines();
            let Some(Ok(request)) = lines.next() else { continue };
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let path = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
            let (status, body) = match fs::read(folder.join(path)) {
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found\r\nX-Error-Code: EntryNotFound", Vec::new()),
            };
            let tag = path.rsplit('/').next().unwrap_or_default();
            let head = format!(
                "HTTP/1.1 {status}\r\nX-Repo-Commit: {COMMIT}\r\nETag: \"{tag}\"\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = (&stream).write_all(head.as_bytes()).and_then(|()| (&stream).write_all(&body));
        }
    });
    address
}

#[test]
fn a_model_comes_from_the_hub_in_whatever_form_it_has_there_and_then_from_the_cache() {
    let place = workplace();
    // As DeBERTa-v3 lies there: a PyTorch file and a SentencePiece model.
    let hub = place.path().join("hub/owner/tiny/resolve").join(COMMIT);
    fs::create_dir_all(&hub).unwrap();
    let fixtures = root().join("crates/aflora-models/tests/fixtures");
    for (from, to) in [
        (fixtures.join("hub/config.json"), "config.json"),
        (fixtures.join("hub/pytorch_model.bin"), "pytorch_model.bin"),
        (root().join("configs/models/tiny-deberta/spm.model"), "spm.model"),
    ] {
        fs::copy(from, hub.join(to)).unwrap();
    }
    let model = format!(
        "model: tiny\nbackbone: deberta-v2\nrepo: owner/tiny\nrevision: {COMMIT}\n\
         target_modules: [query_proj, intermediate.dense, output.dense]\n"
    );
    fs::write(place.path().join("configs/models/tiny.yaml"), model).unwrap();
    let mut arguments = vec!["run", CONFIG];
    arguments.extend(SMALL);
    arguments.extend(["task=mrpc", "model=tiny", "data=.", "epochs=4"]);
    let fetched = |endpoint: &str, offline: &str, run_dir: &str| {
        Command::new(env!("CARGO_BIN_EXE_aflora"))
            .args(&arguments)
            .arg(run_dir)
            .current_dir(place.path())
            .env_remove("AFLORA_DATA")
            .env("HF_HUB_OFFLINE", offline)
            .env("HF_ENDPOINT", endpoint)
            .env("HF_HOME", place.path().join("hf"))
            .output()
            .unwrap()
    };
    let address = serve(place.path().join("hub"));
    let output = fetched(&address, "0", "run_dir=one");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let used = json(&place.path().join("one/provenance.json"))["weights"][0]["path"].clone();
    let expected = format!("snapshots/{COMMIT}/pytorch_model.bin");
    assert!(used.as_str().unwrap().ends_with(&expected), "{used}");
    // What is not there was remembered: neither a network nor a question is needed any more.
    for (endpoint, offline, run_dir) in
        [("http://127.0.0.1:1", "0", "run_dir=two"), (&address, "1", "run_dir=three")]
    {
        let output = fetched(endpoint, offline, run_dir);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let metrics = |run: &str| json(&place.path().join(run).join("metrics.json"))["best"].clone();
    assert_eq!(metrics("one")["loss"], metrics("two")["loss"]);
    // Others find the model there, too.
    let adapter = json(&place.path().join("one/adapter/adapter_config.json"));
    assert_eq!(adapter["base_model_name_or_path"], "owner/tiny");
    assert_eq!(adapter["revision"], COMMIT);
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let place = tempfile::tempdir().unwrap();
    let printed = |arguments: &[&str]| {
        let output = aflora(place.path(), arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let page = printed(&["man"]);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell]);
        for command in ["doctor", "evaluate", "batch-size"] {
            assert!(script.contains(command), "{shell} lacks {command}");
        }
    }
    assert!(page.contains(".TH aflora 1"), "{page}");
    assert!(page.contains("aflora\\-doctor(1)"), "{page}");
    let page = printed(&["man", "evaluate"]);
    assert!(page.contains(".TH aflora-evaluate 1") && page.contains("confusion matrix"), "{page}");
    refused(&aflora(place.path(), &["man", "nothing"]), 2, "there is no command `nothing`");
    refused(&aflora(place.path(), &["completions", "nothing"]), 2, "possible values: bash");
}

//! Tasks that ask for text, end to end through the `aflora` command on tiny random models.

use crate::common::{aflora, refused, root, text};
use aflora_models::weights::read_tensors;
use aflora_models::TextEncoder;
use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;
use tch::{Kind, Tensor};
use tempfile::TempDir;

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A project of its own, with what ships with this one.
fn workplace() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&root().join("configs"), &folder.path().join("configs"));
    folder
}

fn rows(place: &Path, file: &str, rows: impl Iterator<Item = Value>) {
    let path = place.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let lines: Vec<String> = rows.map(|row| row.to_string()).collect();
    fs::write(path, lines.join("\n")).unwrap();
}

fn run(place: &Path, more: &[&str]) -> Output {
    let arguments = [&["run", "configs/experiment.yaml", "device=cpu", "threads=1"], more].concat();
    aflora(place, &arguments)
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", text(&output.stderr));
}

fn jsonl(path: &Path) -> Vec<Value> {
    let lines = fs::read_to_string(path).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn best(place: &Path, run: &str, metric: &str) -> f64 {
    let metrics = fs::read(place.join(run).join("metrics.json")).unwrap();
    let metrics: Value = serde_json::from_slice(&metrics).unwrap();
    metrics["best"]["metrics"][metric].as_f64().unwrap()
}

/// Four letters, to be written backwards: the model must look at every one of them.
fn backwards(place: &Path) {
    // All of them in an order without a pattern.
    let mut numbers: Vec<u64> = (0..4096).collect();
    numbers.sort_by_key(|n| (n ^ 0x5bd1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23));
    let letter =
        |n: u64, place: u32| char::from(b'a' + (n / 8u64.pow(place) % 8) as u8).to_string();
    let word = |n: u64| (0..4).map(|place| letter(n, place)).collect::<Vec<_>>().join(" ");
    let words: Vec<String> = numbers.into_iter().map(word).collect();
    let row = |word: &String| {
        let target: String = word.chars().rev().collect();
        json!({ "input": format!("{word} >"), "target": target })
    };
    rows(place, "lines/train.jsonl", words[..1000].iter().map(row));
    rows(place, "lines/dev.jsonl", words[1000..1060].iter().map(row));
}

#[test]
fn a_small_decoder_learns_to_write_from_nothing() {
    let place = workplace();
    backwards(place.path());
    let settings = [
        "task=lines",
        "model=tiny-llama",
        "method=full",
        "data=.",
        "epochs=10",
        "lr=3e-3",
        "warmup=10%",
        "task.generation.max_new_tokens=12",
    ];
    succeeded(&run(place.path(), &[&settings[..], &["run_dir=greedy"]].concat()));
    assert!(best(place.path(), "greedy", "exact_match") > 0.95);
    let predictions = jsonl(&place.path().join("greedy/predictions-dev-epoch10.jsonl"));
    assert_eq!(predictions.len(), 60);
    assert_eq!(predictions[7]["prediction"], predictions[7]["target"]);
    assert_eq!(predictions[7]["exact_match"], 1.0);

    // What was learned is in the folder: written again, for new rows, it is the same.
    let predicted = aflora(
        place.path(),
        &["predict", "greedy", "lines/dev.jsonl", "--output", "again.jsonl", "--device", "cpu"],
    );
    succeeded(&predicted);
    let again = jsonl(&place.path().join("again.jsonl"));
    let right = again.iter().filter(|row| row["prediction"] == row["target"]).count();
    assert!(right as f64 > 0.95 * 60.0);
    assert_eq!(again.len(), 60);

    // The loss on the prompt, too, is another one.
    succeeded(&run(
        place.path(),
        &[&settings[..], &["epochs=1", "task.train_on_inputs=true", "run_dir=all"]].concat(),
    ));
    let first = |run: &str| {
        let events = jsonl(&place.path().join(run).join("events.jsonl"));
        events.iter().find(|e| e["event"] == "evaluation").unwrap()["loss"].as_f64().unwrap()
    };
    assert_ne!(first("all"), first("greedy"));
}

/// A run reads a model's files for its shape, its network, its weights and its tokens.
#[test]
fn a_run_warns_of_each_odd_setting_of_the_model_once() {
    let place = workplace();
    backwards(place.path());
    let model = place.path().join("configs/models/tiny-llama");
    let config = fs::read_to_string(model.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["rope_parameters"] = json!({ "rope_type": "default", "rope_theta": 500.0 });
    fs::write(model.join("config.json"), config.to_string()).unwrap();
    let asks = json!({ "do_sample": true, "suppress_tokens": [5], "max_new_tokens": 4 });
    fs::write(model.join("generation_config.json"), asks.to_string()).unwrap();
    let keys = json!({ "do_lower_case": true, "add_prefix_space": false });
    fs::write(model.join("tokenizer_config.json"), keys.to_string()).unwrap();
    let settings = ["task=lines", "model=tiny-llama", "data=.", "limit=8", "eval_limit=2"];
    let output = run(place.path(), &[&settings[..], &["epochs=1", "run_dir=out"]].concat());
    succeeded(&output);
    let log = text(&output.stderr);
    for once in [
        "config.json: `rope_theta` is 10000, but 500 within `rope_parameters`",
        "generation_config.json: `do_sample` is true; tokens are only drawn where",
        "generation_config.json: `suppress_tokens` is [5]; this is not built",
        "tokenizer_config.json: `do_lower_case` is true, which does not count",
    ] {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(once)).collect();
        let [line] = &lines[..] else { panic!("{once}: {lines:?}\n{log}") };
        assert!(line.contains("WARN"), "{line}");
    }
}

#[test]
fn gsm8k_runs_with_the_released_variant_and_stores_every_answer() {
    let place = workplace();
    let row = |i: usize| {
        let question = format!("Ann has {i} apples and buys {} more. How many has she?", i + 3);
        let sum = 2 * i + 3;
        json!({ "question": question, "answer": format!("{i}+{}=<<{sum}>>{sum}\n#### {sum}", i + 3) })
    };
    rows(place.path(), "gsm8k/train.jsonl", (0..64).map(row));
    rows(place.path(), "gsm8k/test.jsonl", (64..72).map(row));
    let settings = [
        "task=gsm8k",
        "model=tiny-llama",
        "data=.",
        "batch_size=8",
        "task.generation.max_new_tokens=6",
        "lr=1e-2",
    ];
    succeeded(&run(place.path(), &[&settings[..], &["run_dir=out"]].concat()));
    let out = place.path().join("out");
    let losses: Vec<f64> = jsonl(&out.join("events.jsonl"))
        .iter()
        .filter(|e| e["event"] == "evaluation")
        .map(|e| e["loss"].as_f64().unwrap())
        .collect();
    assert!(losses[1] < losses[0], "{losses:?}");
    let predictions = jsonl(&out.join("predictions-test-epoch2.jsonl"));
    assert_eq!(predictions.len(), 8);
    assert!(predictions.iter().all(|p| p["number_match"].is_number()), "{predictions:?}");
    // 3 layers of 5 targets: every matrix trained at first and froze.
    let frozen = fs::read_to_string(out.join("freeze.csv")).unwrap();
    assert_eq!(frozen.lines().count(), 1 + 3 * 5 * 2, "{frozen}");
    assert!(frozen.lines().skip(1).all(|line| !line.ends_with(',')), "{frozen}");
    // The resolved configuration runs again, and gives the same texts.
    succeeded(&aflora(place.path(), &["run", "out/config.yaml", "run_dir=again"]));
    let again = jsonl(&place.path().join("again/predictions-test-epoch2.jsonl"));
    assert_eq!(again, predictions);
}

#[test]
fn an_encoder_decoder_writes_with_beams_and_becomes_a_plain_model() {
    let place = workplace();
    let settings = [
        "task=lines",
        "model=tiny-bart",
        "epochs=2",
        "limit=200",
        "eval_limit=12",
        "method.freeze=never",
        "task.label_smoothing=0.1",
        "task.generation={num_beams: 3, max_new_tokens: 8, early_stopping: full, no_repeat_ngram_size: 2}",
        "task.metrics=[rougeL, rouge1, rouge2, rougeLsum, exact_match]",
        "run_dir=out",
    ];
    succeeded(&run(place.path(), &settings));
    assert_eq!(jsonl(&place.path().join("out/predictions-dev-epoch2.jsonl")).len(), 12);
    let config = fs::read_to_string(place.path().join("out/adapter/adapter_config.json")).unwrap();
    assert!(config.contains("\"task_type\": \"SEQ_2_SEQ_LM\""), "{config}");
    succeeded(&aflora(place.path(), &["merge", "out", "plain"]));
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        assert!(place.path().join("plain").join(file).is_file(), "{file}");
    }
    succeeded(&aflora(place.path(), &["export", "out", "lora"]));

    // Merged, it is a model like any other, and starts where the run ended.
    let block = "model: plain\nbackbone: bart\npath: plain\ntarget_modules: [q_proj]\n";
    fs::write(place.path().join("configs/models/plain.yaml"), block).unwrap();
    let more = ["model=plain", "method=lora", "epochs=1", "lr=0", "run_dir=merged"];
    succeeded(&run(place.path(), &[&settings[..5], &settings[6..9], &more].concat()));
    let texts = |run: &str, epoch: usize| {
        let file = format!("{run}/predictions-dev-epoch{epoch}.jsonl");
        jsonl(&place.path().join(file)).iter().map(|p| p["prediction"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(texts("merged", 1), texts("out", 2));
}

#[test]
fn long_texts_are_cut_counted_and_said_once() {
    let place = workplace();
    let long = "one two three four five six seven ".repeat(60);
    let row = |i: usize| match i % 4 {
        0 => json!({ "input": long, "target": "7" }),
        _ => json!({ "input": format!("say {i}"), "target": i.to_string() }),
    };
    rows(place.path(), "lines/train.jsonl", (0..16).map(row));
    rows(place.path(), "lines/dev.jsonl", (0..4).map(row));
    // 1,024 positions, so that a prompt has 24 at most.
    let output = run(
        place.path(),
        &[
            "task=lines",
            "model=tiny-llama",
            "method=lora",
            "data=.",
            "epochs=1",
            "max_length=32",
            "task.generation.max_new_tokens=1000",
        ],
    );
    succeeded(&output);
    let said = text(&output.stderr);
    let left_out = "4 training texts have their whole target behind the cut: left out";
    assert_eq!(said.matches(left_out).count(), 1, "{said}");
    assert_eq!(said.matches("leave no room for 1000 new tokens").count(), 1, "{said}");
}

#[test]
fn what_cannot_work_is_said_before_anything_is_written() {
    let place = workplace();
    let lines = |file: &str, line: &str| {
        let path = place.path().join("lines").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, line).unwrap();
    };
    let run = |more: &[&str]| run(place.path(), &[more, &["run_dir=out"]].concat());
    refused(&run(&["task=gsm8k", "model=tiny-llama", "data=nowhere"]), 2, "gsm8k/train.jsonl and");
    refused(&run(&["task=gsm8k", "model=minilm"]), 2, "the task wants a model that writes");
    refused(
        &run(&["task=lines", "model=tiny-llama", "task.generation.max_new_tokens=2000"]),
        2,
        "the model has 1024 positions; set it to 1016 or less",
    );
    refused(
        &run(&["task=lines", "task.prompt=none", "task.label_smoothing=1"]),
        2,
        "a text with `{input}` in it",
    );
    refused(&run(&["task=mrpc", "task.prompt=x {input}"]), 2, "`prompt` has no say in the task");

    lines("train.jsonl", "{\"input\": \"a\", \"target\": \"b\"}\n");
    refused(
        &run(&["task=lines", "data=."]),
        2,
        "neither dev.jsonl, dev.parquet, dev.tsv, dev.csv nor dev.conll lies in it",
    );
    lines("dev.jsonl", "\n");
    refused(&run(&["task=lines", "data=."]), 1, "there are no examples in it");
    lines("dev.jsonl", "{\"input\": \"a\"}\n");
    refused(&run(&["task=lines", "data=."]), 1, "dev.jsonl, line 1: there is no `target`, only");
    lines("dev.jsonl", "{\"input\": \"a\", \"target\": 3}\n");
    refused(&run(&["task=lines", "data=."]), 1, "`target` is 3, but must be a text");
    lines("dev.jsonl", "{\"input\": \"a\", \"tar\n");
    refused(&run(&["task=lines", "data=."]), 1, "dev.jsonl, line 1: no JSON object");
    lines("dev.jsonl", "{\"input\": \"a\", \"target\": \"b\"}\n");
    lines("train.jsonl", &json!({ "input": "word ".repeat(99), "target": "b" }).to_string());
    refused(
        &run(&["task=lines", "model=tiny-llama", "data=.", "max_length=16"]),
        2,
        "none has its target within max_length=16",
    );
    assert!(!place.path().join("out").exists());
}

#[test]
fn checkpointed_training_gives_the_same_run() {
    let place = workplace();
    let settings = ["task=lines", "model=tiny-llama", "method=lora", "limit=64", "eval_limit=8"];
    for (name, on) in [("plain", "false"), ("checkpointed", "true")] {
        let own = [format!("model.gradient_checkpointing={on}"), format!("run_dir={name}")];
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        succeeded(&run(place.path(), &[&settings[..], &["epochs=2"], &own].concat()));
    }
    let adapter = |run: &str| {
        fs::read(place.path().join(run).join("adapter/adapter_model.safetensors")).unwrap()
    };
    assert_eq!(adapter("plain"), adapter("checkpointed"));
}

#[test]
fn a_gguf_file_is_a_model_in_every_command() {
    let place = workplace();
    let file = root().join("crates/aflora-models/tests/fixtures/gguf/smollm.gguf");
    fs::create_dir(place.path().join("files")).unwrap();
    fs::copy(file, place.path().join("files/mine.gguf")).unwrap();
    backwards(place.path());
    let settings = ["model=files/mine.gguf", "train=lines/train.jsonl", "dev=lines/dev.jsonl"];
    let more = ["input=input", "target=target", "method=lora", "max_length=64", "limit=16"];
    let settings = [&settings[..], &more, &["task.generation.max_new_tokens=4"]].concat();
    let table = aflora(place.path(), &[&["inspect"], &settings[..]].concat());
    let words = text(&table.stdout);
    assert!(words.contains("adapters on 5 of 7 linear layers"), "{words}{}", text(&table.stderr));
    assert!(!words.contains("the tokenizer is not at hand"), "{words}");
    succeeded(&aflora(place.path(), &[&["validate"], &settings[..]].concat()));
    let small = ["run_dir=out", "epochs=1", "batch_size=8", "eval_limit=4", "device=cpu"];
    succeeded(&aflora(place.path(), &[&["run"], &settings[..], &small].concat()));
    let written = aflora(place.path(), &["generate", "out", "--prompt", "a b"]);
    succeeded(&written);

    succeeded(&aflora(place.path(), &["merge", "out", "merged"]));
    let merged = place.path().join("merged");
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        assert!(merged.join(file).is_file(), "{file}");
    }
    let config: Value =
        serde_json::from_slice(&fs::read(merged.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["architectures"], json!(["LlamaForCausalLM"]));
    // A folder with nothing but the file says which name would be right.
    let output = aflora(place.path(), &["inspect", "model=./files", "task=gsm8k"]);
    refused(&output, 2, "name the GGUF file in it: ");
}

/// A file's tensors in single precision.
fn tensors(path: &Path) -> BTreeMap<String, Tensor> {
    read_tensors(path).unwrap()
}

#[test]
fn a_run_becomes_gguf_files_that_hold_its_model_and_its_adapter() {
    let place = workplace();
    backwards(place.path());
    let fixture = |name: &str| root().join("crates/aflora-models/tests/fixtures").join(name);
    fs::copy(fixture("gguf/smollm.gguf"), place.path().join("base.gguf")).unwrap();
    let settings = ["run", "train=lines/train.jsonl", "dev=lines/dev.jsonl", "input=input"];
    let more = ["target=target", "max_length=64", "limit=32", "task.generation.max_new_tokens=4"];
    let small = ["epochs=1", "batch_size=8", "eval_limit=4", "device=cpu", "lr=1e-2"];
    let train = |model: &str, run: &str, method: &str| {
        let named =
            [format!("model={model}"), format!("run_dir={run}"), format!("method={method}")];
        let named: Vec<&str> = named.iter().map(String::as_str).collect();
        succeeded(&aflora(place.path(), &[&settings[..], &more, &small, &named].concat()));
    };
    train("./base.gguf", "out", "aflora");
    succeeded(&aflora(place.path(), &["merge", "out", "merged", "--as", "f32"]));
    let merged = tensors(&place.path().join("merged/model.safetensors"));
    for (form, kind) in [("f32", Kind::Float), ("f16", Kind::Half), ("bf16", Kind::BFloat16)] {
        let file = format!("{form}.gguf");
        succeeded(&aflora(place.path(), &["merge", "out", &file, "--as", form]));
        let found = tensors(&place.path().join(&file));
        assert!(found.keys().eq(merged.keys()), "{:?}", found.keys());
        for (name, weight) in &merged {
            let kind = if weight.dim() > 1 { kind } else { Kind::Float };
            let expected = weight.to_kind(kind).to_kind(Kind::Float);
            assert!(found[name].equal(&expected), "{form}: {name}");
        }
    }
    let q8 = aflora(place.path(), &["merge", "out", "q8.gguf", "--as", "q8_0"]);
    succeeded(&q8);
    let told = text(&q8.stderr);
    assert!(told.contains("each rounded once") && told.contains("it moves a logit by"), "{told}");
    for (name, found) in tensors(&place.path().join("q8.gguf")) {
        let apart = (&found - &merged[&name]).abs().max().double_value(&[]);
        let scale = merged[&name].abs().max().double_value(&[]) / 127.0;
        // Half a step, and what rounding the scale to half precision adds.
        assert!(apart <= 0.6 * scale, "{name}: {apart} {scale}");
    }
    refused(&aflora(place.path(), &["merge", "out", "q8.gguf"]), 2, "exists already");
    refused(
        &aflora(place.path(), &["merge", "out", "more", "--as", "q8_0"]),
        2,
        "--as q8_0 is of a GGUF",
    );

    // The file is a model again, with the same tokenizer; and so is the file of the folder.
    train("./f16.gguf", "again", "lora");
    train("./merged", "third", "lora");
    succeeded(&aflora(place.path(), &["merge", "third", "third.gguf"]));
    let text = "Straße 123 <tool> it's\n\n <|im_end|> ok";
    let encode = |model: &str| {
        let encoder = TextEncoder::from_folder(&place.path().join(model), 64).unwrap();
        (encoder.encode(&[(text, None)]).unwrap(), encoder.vocab_size(), encoder.pad_id())
    };
    for model in ["f16.gguf", "merged", "third.gguf"] {
        assert_eq!(encode(model), encode("base.gguf"), "{model}");
    }
    let config = |model: &str| {
        let path = place.path().join(model).join("config.json");
        aflora_models::kind_of(&path).unwrap()
    };
    assert_eq!(config("third.gguf"), config("base.gguf"));

    // And the adapter is a file of its own.
    succeeded(&aflora(place.path(), &["export", "out", "adapter.gguf"]));
    let adapter = fs::read(place.path().join("adapter.gguf")).unwrap();
    for words in ["adapter.lora.alpha", "blk.0.attn_q.weight.lora_a", "blk.0.ffn_up.weight.lora_b"]
    {
        assert!(adapter.windows(words.len()).any(|window| window == words.as_bytes()), "{words}");
    }
}

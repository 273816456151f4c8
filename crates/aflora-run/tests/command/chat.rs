//! Tasks of conversations, end to end through the `aflora` command on a tiny random decoder.

use crate::common::{aflora, command, json, refused, root, text, workplace};
use serde_json::{json, Value};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

/// Two dozen conversations: of two turns, of four, some with a system's message.
fn conversations() -> Vec<Vec<Value>> {
    let said = |role: &str, text: String| json!({ "role": role, "content": text });
    let one = |i: usize| {
        let (a, b) = (i % 5, i / 5);
        let mut turns = match i % 3 {
            0 => vec![said("system", "You count.".into())],
            _ => Vec::new(),
        };
        turns.push(said("user", format!("count from {a}")));
        turns.push(said("assistant", format!("{a} {} {}", a + 1, a + 2)));
        if i.is_multiple_of(2) {
            turns.push(said("user", format!("and from {b}?")));
            turns.push(said("assistant", format!("{b} {} {}", b + 1, b + 2)));
        }
        turns
    };
    (0..24).map(one).collect()
}

fn write(place: &Path, file: &str, rows: impl IntoIterator<Item = Value>) {
    let lines: Vec<String> = rows.into_iter().map(|row| row.to_string()).collect();
    fs::write(place.join(file), lines.join("\n") + "\n").unwrap();
}

fn rows() -> impl Iterator<Item = Value> {
    conversations().into_iter().map(|messages| json!({ "messages": messages }))
}

/// What is on the command line, and no run file.
fn run(place: &Path, more: &[&str]) -> Output {
    let few = ["run", "train=chats.jsonl", "model=tiny-llama", "device=cpu", "threads=1"];
    aflora(place, &[&few, more].concat())
}

const FULL: [&str; 6] =
    ["method=full", "dev=chats.jsonl", "lr=3e-3", "batch_size=4", "epochs=12", "max_length=128"];

fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn with_input(place: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = command(place, arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn losses(run: &Path) -> Vec<f64> {
    let events = fs::read_to_string(run.join("events.jsonl")).unwrap();
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|e| e["event"] == "evaluation").map(|e| e["loss"].as_f64().unwrap()).collect()
}

#[test]
fn a_decoder_learns_its_turns_of_conversations_and_stops_behind_them() {
    let place = workplace();
    let place = place.path();
    write(place, "chats.jsonl", rows());
    let metrics = "task.metrics=[exact_match, perplexity]";
    let longer = [metrics, "epochs=60", "eval_every=20 epochs", "run_dir=out"];
    let output = run(place, &[&FULL[..], &longer].concat());
    ok(&output);
    let log = text(&output.stderr);
    assert!(log.contains("`messages`: conversations"), "{log}");
    assert!(log.contains("conversations are written as `plain` has it"), "{log}");
    let losses = losses(&place.join("out"));
    assert!(losses[losses.len() - 1] < 0.2 * losses[0], "{losses:?}");
    let best = json(&place.join("out/metrics.json"))["best"]["metrics"].clone();
    assert!(best["exact_match"].as_f64().unwrap() > 0.9, "{best}");
    assert!(best["perplexity"].as_f64().unwrap() < 2.0, "{best}");
    let predictions = fs::read_dir(place.join("out")).unwrap().flatten();
    let mut names: Vec<String> =
        predictions.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.starts_with("predictions-dev"));
    names.sort();
    let told = fs::read_to_string(place.join("out").join(&names[0])).unwrap();
    let told: Value = serde_json::from_str(told.lines().next().unwrap()).unwrap();
    assert_eq!(told["messages"].as_array().unwrap().len(), 4, "{told}");
    assert_eq!(told["target"], "0 1 2");

    // The last turn is the one to be written, where it is there.
    let asked = conversations().swap_remove(4);
    let (_, without) = asked.split_last().unwrap();
    write(place, "ask.jsonl", [json!({ "messages": asked }), json!({ "messages": without })]);
    let predict = ["predict", "out", "ask.jsonl", "--device", "cpu"];
    let answers = ok(&aflora(place, &predict));
    for line in answers.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        assert_eq!(row["prediction"], asked[asked.len() - 1]["content"], "{row}");
    }
    assert_eq!(answers.lines().count(), 2);
    let judged = command(place, &["evaluate", "out", "chats.jsonl", "--device", "cpu"]);
    let judged = ok(&{ judged }.output().unwrap());
    assert!(judged.contains(&format!("{:.4}", best["exact_match"].as_f64().unwrap())), "{judged}");

    // In a conversation at a terminal the answer ends where it ended in training.
    let chat = ["chat", "out", "--device", "cpu", "--max-new-tokens", "60"];
    let talked = ok(&with_input(place, &chat, "count from 2\n"));
    assert_eq!(talked, "2 3 4\n");
    let generate = ["generate", "out", "--device", "cpu", "--prompt", "count from 2"];
    assert_eq!(ok(&aflora(place, &generate)), "2 3 4\n");
}

#[test]
fn a_merged_model_has_the_template_and_the_token_that_ends_a_turn() {
    let place = workplace();
    let place = place.path();
    write(place, "chats.jsonl", rows());
    let settings = [&FULL[..4], &["epochs=1", "max_length=128", "method=lora"]].concat();
    ok(&run(place, &[&settings[..], &["run_dir=out"]].concat()));
    ok(&aflora(place, &["merge", "out", "plain"]));
    ok(&aflora(place, &["export", "out", "lora"]));
    let merged = fs::read_to_string(place.join("plain/chat_template.jinja")).unwrap();
    assert_eq!(merged, fs::read_to_string(place.join("lora/chat_template.jinja")).unwrap());
    assert!(merged.contains("\"</s>\"") && merged.contains("'Assistant:'"), "{merged}");

    // A template of one's own, whose turns end with another token than texts.
    let own =
        "{% for m in messages %}{{ '<s>' + m.role + '\\n' + m.content + '<pad>\\n' }}{% endfor %}\
               {% if add_generation_prompt %}{{ '<s>assistant\\n' }}{% endif %}";
    fs::write(place.join("own.jinja"), own).unwrap();
    let named = ["task.chat_template=own.jinja", "run_dir=own"];
    ok(&run(place, &[&settings[..], &named].concat()));
    fs::remove_file(place.join("own.jinja")).unwrap();
    ok(&aflora(place, &["merge", "own", "merged"]));
    assert_eq!(fs::read_to_string(place.join("merged/chat_template.jinja")).unwrap(), own);
    let generation = json(&place.join("merged/generation_config.json"));
    let vocabulary = json(&place.join("merged/tokenizer.json"))["added_tokens"].clone();
    let vocabulary = vocabulary.as_array().unwrap().clone();
    let id = |token: &str| vocabulary.iter().find(|t| t["content"] == token).unwrap()["id"].clone();
    assert_eq!(generation["eos_token_id"], json!([id("</s>"), id("<pad>")]));
}

#[test]
fn a_template_that_refuses_a_conversation_is_told_by_validate_as_by_a_run() {
    let place = workplace();
    let place = place.path();
    write(place, "chats.jsonl", rows());
    let own =
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}\
               {% endif %}{{ '<s>' + m.role + '\\n' + m.content + '</s>\\n' }}{% endfor %}";
    fs::write(place.join("own.jinja"), own).unwrap();
    let settings = [
        "train=chats.jsonl",
        "dev=chats.jsonl",
        "model=tiny-llama",
        "method=lora",
        "max_length=96",
    ];
    let of =
        |command: &str, more: &[&str]| aflora(place, &[&[command], &settings[..], more].concat());
    for command in ["validate", "run"] {
        let output = of(command, &["task.chat_template=own.jinja", "run_dir=out"]);
        let code = output.status.code().unwrap();
        refused(&output, code, "no system");
        refused(&output, code, "line 1 (");
        assert_ne!(code, 0);
    }
    assert!(!place.join("out").exists());
    // Nor is there anything to learn in what a run would cut off.
    for command in ["validate", "run"] {
        refused(
            &of(command, &["max_length=8"]),
            2,
            "none has anything to learn within max_length=8",
        );
    }
}

#[test]
fn packed_conversations_have_the_losses_of_those_by_themselves() {
    let place = workplace();
    let place = place.path();
    write(place, "chats.jsonl", rows());
    // Before the first step and behind it: all rows are one batch.
    let settings = [&FULL[..3], &["epochs=1", "batch_size=24", "max_length=96"]].concat();
    let of = |name: &str, more: &[&str]| {
        let dir = format!("run_dir={name}");
        ok(&run(place, &[&settings[..], &[dir.as_str()], more].concat()));
        losses(&place.join(name))
    };
    let (plain, packed) = (of("plain", &[]), of("packed", &["task.packing=true"]));
    assert_eq!(plain.len(), packed.len());
    for (a, b) in plain.iter().zip(&packed) {
        assert!((a - b).abs() < 2e-4 * a, "{plain:?} {packed:?}");
    }
    let rows = |name: &str| json(&place.join(name).join("metrics.json"));
    assert_ne!(rows("plain")["tokens_per_second"], rows("packed")["tokens_per_second"]);
    // What is learned decides what is reached.
    let [last, all] = ["last", "all"].map(|on| of(on, &[&format!("task.loss_on={on}")]));
    assert!(last[0] != plain[0] && all[0] != plain[0], "{last:?} {all:?} {plain:?}");
}

/// Forms of the same conversations.
#[test]
fn conversations_of_sharegpt_and_alpaca_are_found_from_the_rows() {
    let place = workplace();
    let place = place.path();
    let few = |more: &[&str]| {
        let all = [&["method=lora", "epochs=1", "limit=16", "max_length=128"], more].concat();
        run(place, &all)
    };
    let share_gpt = |messages: Vec<Value>| {
        let name = |role: &Value| match role.as_str().unwrap() {
            "user" => "human",
            "assistant" => "gpt",
            _ => "system",
        };
        let turns: Vec<Value> = messages
            .iter()
            .map(|m| json!({ "from": name(&m["role"]), "value": m["content"] }))
            .collect();
        json!({ "conversations": turns, "id": "x" })
    };
    write(place, "share.jsonl", conversations().into_iter().map(share_gpt));
    write(place, "chats.jsonl", rows());
    let same = ["dev=chats.jsonl", "run_dir=a"];
    ok(&few(&same));
    ok(&few(&["train=share.jsonl", "dev=share.jsonl", "run_dir=b"]));
    assert_eq!(losses(&place.join("a")), losses(&place.join("b")));

    let alpaca = |i: usize| {
        json!({
            "instruction": "Add them.", "input": format!("{i} and 2"), "output": (i + 2).to_string(),
        })
    };
    write(place, "alpaca.jsonl", (0..20).map(alpaca));
    let output = few(&["train=alpaca.jsonl", "run_dir=c"]);
    ok(&output);
    let log = text(&output.stderr);
    assert!(log.contains("`instruction` and `output`: conversations"), "{log}");
    assert!(!log.contains("empty") && !log.contains("texts of training rows"), "{log}");
    let pairs: String = (0..10).map(|i| format!("\"a, {i}?\",b{i}\n")).collect();
    fs::write(place.join("pairs.csv"), format!("question,answer\n{pairs}")).unwrap();
    let named = ["train=pairs.csv", "kind=chat", "text=[question, answer]", "run_dir=d"];
    ok(&few(&named));
    fs::write(place.join("q.csv"), "question\na?\n").unwrap();
    let answered = ok(&aflora(place, &["predict", "d", "q.csv", "--device", "cpu"]));
    assert!(answered.starts_with("question,prediction\n"), "{answered}");
    fs::write(place.join("bad.csv"), "question,answer\n,b\n").unwrap();
    let judged = command(place, &["evaluate", "d", "bad.csv", "--device", "cpu"]).output();
    refused(&judged.unwrap(), 1, "bad.csv, line 2: `question` is empty");
}

#[test]
fn a_row_that_is_no_conversation_is_told_with_file_and_line() {
    let place = workplace();
    let place = place.path();
    let good = json!({ "messages": [
        { "role": "user", "content": "a" }, { "role": "assistant", "content": "b" },
    ] });
    let user = json!({ "role": "user", "content": "a" });
    for (bad, words) in [
        (json!({ "messages": [] }), "`messages` is empty"),
        (json!({ "messages": "a" }), "`messages` is \"a\", but must be a list"),
        (json!({ "text": "a" }), "there is no `messages`, only"),
        (json!({ "messages": ["a"] }), "message 1 of `messages` is \"a\", but must be an object"),
        (
            json!({ "messages": [user, { "role": "bot", "content": "b" }] }),
            "message 2 of `messages` has the role \"bot\", which is none of: system, developer",
        ),
        (
            json!({ "messages": [user, { "role": "assistant", "content": 3 }] }),
            "message 2 of `messages` has a `content` that is 3",
        ),
        (
            json!({ "messages": [user, { "role": "assistant" }] }),
            "message 2 of `messages` has no `content`",
        ),
        (
            json!({ "messages": [user, { "content": "b" }] }),
            "message 2 of `messages` has no `role`",
        ),
        (
            json!({ "messages": [{ "from": "bot", "value": "b" }] }),
            "has the from \"bot\", which is none of: human",
        ),
        (json!({ "messages": [user] }), "has no turn of the assistant to learn from"),
        (json!({ "messages": [{ "role": "assistant", "content": "b" }] }), "nothing before it"),
    ] {
        write(place, "chats.jsonl", [good.clone(), bad]);
        let output = run(place, &["run_dir=out"]);
        refused(&output, 1, "chats.jsonl, line 2: ");
        refused(&output, 1, words);
    }
    // What the template refuses, and what it does not tell.
    let turns = |first: &str| {
        json!({ "messages": [
        { "role": "user", "content": first }, { "role": "user", "content": "c" },
        { "role": "assistant", "content": "b" },
    ] })
    };
    write(place, "chats.jsonl", [good.clone(), good.clone(), turns("twice")]);
    let strict = "{% for m in messages %}{% if loop.index0 > 0 and m.role == 'user' %}\
                  {{ raise_exception('take turns') }}{% endif %}<s>{{ m.role }}:{{ m.content }}</s>\
                  {% endfor %}{% if add_generation_prompt %}<s>assistant:{% endif %}";
    fs::write(place.join("own.jinja"), strict).unwrap();
    let own = ["task.chat_template=own.jinja", "run_dir=out", "dev=chats.jsonl"];
    let output = run(place, &own);
    refused(&output, 1, "train: line 3 (\"twice\"): ");
    refused(&output, 1, "take turns");
    let thinks = strict.replace("<s>assistant:{% endif %}", "<s>assistant:<think>{% endif %}");
    fs::write(place.join("own.jinja"), thinks).unwrap();
    refused(&run(place, &own), 1, "does not tell where what the assistant writes begins");
    fs::write(place.join("own.jinja"), strict.replace("</s>", "\n")).unwrap();
    refused(&run(place, &own), 2, "the model would not learn to stop");
    fs::write(place.join("own.jinja"), "words").unwrap();
    refused(&run(place, &own), 2, "own.jinja holds no Jinja template");
    refused(&run(place, &["task.chat_template=none.jinja"]), 2, "or one of: plain, chatml");
    refused(
        &run(place, &["model=tiny-bart", "max_length=64", "dev=chats.jsonl", "run_dir=out"]),
        2,
        "by a mere decoder alone",
    );
    assert!(!place.join("out").exists());
}

#[test]
fn conversations_that_are_cut_are_counted() {
    let place = workplace();
    let place = place.path();
    let long = json!({ "messages": [
        { "role": "user", "content": "one two three ".repeat(30) },
        { "role": "assistant", "content": "four" },
    ] });
    write(place, "chats.jsonl", rows().chain([long]));
    let settings = ["dev=chats.jsonl", "method=lora", "epochs=1", "run_dir=out"];
    let output = run(place, &[&settings[..], &["max_length=80"]].concat());
    ok(&output);
    let log = text(&output.stderr);
    let words =
        "1 training conversations have all that is learned of them behind the cut: left out";
    assert!(log.contains(words), "{log}");
    let output = run(place, &[&settings[..], &["max_length=8", "run_dir=none"]].concat());
    refused(
        &output,
        2,
        "of 25 training conversations, none has anything to learn within max_length=8",
    );
}

/// Lists of structs, in which a key that some messages have is null in the others.
#[test]
fn conversations_are_read_from_parquet() {
    let place = workplace();
    let place = place.path();
    let fixtures = root().join("crates/aflora-run/tests/fixtures/chats");
    let of = |name: &str| {
        fs::copy(fixtures.join(name), place.join(name)).unwrap();
        let (train, dev) = (format!("train={name}"), format!("dev={name}"));
        let dir = format!("run_dir={}", &name[..4]);
        let settings = ["method=lora", "epochs=1", "max_length=128", &train, &dev, &dir];
        ok(&run(place, &settings));
        losses(&place.join(&name[..4]))
    };
    assert_eq!(of("messages.parquet"), of("conversations.parquet"));
}

/// By the library itself, where `AFLORA_PEFT_PYTHON` names a Python that has it.
#[test]
fn transformers_writes_a_conversation_with_the_merged_model_s_template_as_it_was_learned() {
    let Some(python) = std::env::var_os("AFLORA_PEFT_PYTHON") else {
        let words = "skipped, it needs a Python with transformers: AFLORA_PEFT_PYTHON=python";
        let _ = writeln!(std::io::stderr(), "{words}");
        return;
    };
    let place = workplace();
    let place = place.path();
    write(place, "chats.jsonl", rows());
    let settings = [&FULL[..], &["epochs=20", "eval_every=never", "run_dir=out"]].concat();
    ok(&run(place, &settings));
    ok(&aflora(place, &["merge", "out", "merged"]));
    let messages = conversations().swap_remove(6);
    let asked = Value::from(messages.clone()).to_string();
    let script = root().join("crates/aflora-run/tests/fixtures/chat_of.py");
    let mut theirs = std::process::Command::new(python);
    theirs.arg(script).args(["merged", &asked]).current_dir(place);
    let theirs = ok(&theirs.env_remove("LD_LIBRARY_PATH").output().unwrap());
    let theirs: Value = serde_json::from_str(theirs.lines().last().unwrap()).unwrap();
    let said = messages.iter().map(|message| {
        let content = message["content"].as_str().unwrap();
        match message["role"].as_str().unwrap() {
            "assistant" => format!("Assistant: {content}</s>\n"),
            "user" => format!("User: {content}\n"),
            _ => format!("System: {content}\n"),
        }
    });
    assert_eq!(theirs["text"], format!("<s>{}", said.collect::<String>()));
    write(place, "ask.jsonl", [json!({ "messages": messages })]);
    let predict = ["predict", "out", "ask.jsonl", "--device", "cpu"];
    let ours = ok(&aflora(place, &predict));
    let ours: Value = serde_json::from_str(ours.lines().next().unwrap()).unwrap();
    assert_eq!(ours["prediction"], theirs["answer"]);
    assert!(!ours["prediction"].as_str().unwrap().is_empty());
}

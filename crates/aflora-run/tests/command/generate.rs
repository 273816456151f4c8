//! `aflora generate` and `aflora chat` on a tiny decoder that was trained a little.

use crate::common::{self, aflora};
use serde_json::{json, Value};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

/// The tokenizer puts `<s>` before a text by itself, but not before a conversation.
const TEMPLATE: &str = "\
<s>{% for message in messages %}{{ message.role[0] }}: {{ message.content }}
{% endfor %}{% if add_generation_prompt %}a:{% endif %}";

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

fn command(arguments: &[&str], place: &Path) -> Command {
    let mut command = common::command(place, arguments);
    command.stdin(Stdio::null());
    command
}

/// A run that writes backwards, on the CPU.
fn run(place: &Path, more: &[&str]) {
    let all = [
        "run",
        "configs/experiment.yaml",
        "device=cpu",
        "threads=1",
        "task=lines",
        "data=.",
        "task.prompt='{input} >'",
        "task.generation.max_new_tokens=40",
    ];
    succeeded(&aflora(place, &[&all, more].concat()));
}

/// What `aflora predict` says for these inputs, so many at once.
fn predicted(run: &str, inputs: &[&str], batch_size: &str) -> Vec<String> {
    let rows = inputs.iter().map(|input| json!({ "input": input }).to_string() + "\n");
    let all = ["predict", run, "-", "--device", "cpu", "--batch-size", batch_size];
    let mut child = command(&all, place());
    let child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    child.stdin.take().unwrap().write_all(rows.collect::<String>().as_bytes()).unwrap();
    let lines = succeeded(&child.wait_with_output().unwrap());
    let row = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    lines.lines().map(|line| row(line)["prediction"].as_str().unwrap().to_string()).collect()
}

/// A place with a run `out`, whose model has a chat template.
fn place() -> &'static Path {
    static PLACE: OnceLock<TempDir> = OnceLock::new();
    PLACE
        .get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            let place = folder.path();
            let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
            copy_folder(&own.join("../../configs"), &place.join("configs"));
            let template = place.join("configs/models/tiny-llama/chat_template.jinja");
            fs::write(template, TEMPLATE).unwrap();
            fs::create_dir(place.join("lines")).unwrap();
            for file in ["train", "dev"] {
                let row = |n: usize| {
                    let word = ["ab", "cde", "fg", "hi j"][n % 4].repeat(1 + n % 3);
                    let target = word.chars().rev().collect::<String>();
                    json!({ "input": word, "target": target }).to_string() + "\n"
                };
                let rows: String = (0..48).map(row).collect();
                fs::write(place.join(format!("lines/{file}.jsonl")), rows).unwrap();
            }
            let more = ["epochs=8", "lr=3e-3", "task.generation.min_new_tokens=3", "run_dir=out"];
            run(place, &[&["model=tiny-llama", "method=full"], &more[..]].concat());
            folder
        })
        .path()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Starts the command with the run `out` on the CPU.
fn start(name: &str, arguments: &[&str]) -> Child {
    let all = [&[name, "out", "--device", "cpu"], arguments].concat();
    let mut command = command(&all, place());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn with(name: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = start(name, arguments);
    // It need not read it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn generate(arguments: &[&str]) -> String {
    succeeded(&with("generate", arguments, ""))
}

#[test]
fn generate_writes_what_predict_predicts() {
    let prompts = ["abab", "x", "hi j"];
    let found = prompts.map(|prompt| generate(&["--prompt", prompt]));
    assert_eq!(found.concat(), predicted("out", &prompts, "2").join("\n") + "\n");
    // Each line of standard input is a prompt, be the text told as it comes or as a whole.
    for beams in [&[][..], &["--beams", "2"]] {
        let one_by_one = prompts.map(|prompt| generate(&[&["--prompt", prompt], beams].concat()));
        let lines = succeeded(&with("generate", beams, "abab\nx\nhi j\n"));
        assert_eq!(lines, one_by_one.concat());
    }
    let file = place().join("prompt.txt");
    fs::write(&file, "abab\n").unwrap();
    let found = generate(&["--prompt-file", "prompt.txt"]);
    assert_eq!(found, generate(&["--prompt", "abab"]));
    assert_eq!(found, succeeded(&with("generate", &["--prompt-file", "-"], "abab\n")));
    assert_eq!(found, generate(&["--raw", "--prompt", "abab >"]));
}

#[test]
fn what_is_drawn_goes_by_its_seed() {
    let drawn = |more: &[&str]| generate(&[&["--prompt", "abab"], more].concat());
    let one = drawn(&["--temperature", "1.5", "--seed", "1"]);
    assert!(one.trim().len() > 1, "{one}");
    assert_eq!(one, drawn(&["--temperature", "1.5", "--seed", "1"]));
    assert_ne!(one, drawn(&["--temperature", "1.5", "--seed", "2"]));
    assert_eq!(drawn(&["--top-k", "1"]), drawn(&[]));
    assert_eq!(drawn(&["--greedy"]), drawn(&[]));
    assert_ne!(drawn(&["--repetition-penalty", "3"]), drawn(&[]));
    assert!(drawn(&["--max-new-tokens", "4"]).len() < drawn(&[]).len());
}

#[test]
fn predict_draws_as_the_task_says_whatever_else_is_in_the_batch() {
    let drawn = ["do_sample=true", "temperature=1.3", "seed=5"]
        .map(|setting| format!("task.generation.{setting}"));
    let drawn: Vec<&str> = drawn.iter().map(String::as_str).collect();
    let more = ["model=tiny-llama", "method=full", "epochs=1", "limit=8", "run_dir=drawn"];
    run(place(), &[&more[..], &drawn].concat());
    let inputs = ["abab", "x", "a longer one", "hi j"];
    let all = predicted("drawn", &inputs, "32");
    assert_eq!(all, predicted("drawn", &inputs, "1"));
    for (input, text) in inputs.iter().zip(&all) {
        let arguments = ["generate", "drawn", "--device", "cpu", "--prompt", input];
        let alone = succeeded(&aflora(place(), &arguments));
        assert_eq!(alone.strip_suffix('\n'), Some(text.as_str()));
    }
    assert!(all.iter().any(|text| !text.is_empty()), "{all:?}");
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    for (options, words) in [
        (&["--greedy", "--temperature", "2"][..], "ask for one"),
        (&["--beams", "2", "--top-k", "3"], "ask for one"),
        (&["--temperature", "0"], "temperature"),
        (&["--top-p", "1.5"], "top_p"),
        (&["--max-new-tokens", "100000"], "max_new_tokens"),
        (&["--no-repeat-ngram", "10000000"], "no_repeat_ngram_size"),
        (&["--prompt-file", "nowhere.txt"], "there is no such file"),
    ] {
        let refused = with("generate", &[&["--prompt", "a"], options].concat(), "");
        let stderr = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{options:?}: {stderr}");
        assert!(stderr.contains(words), "{options:?}: {stderr}");
    }
    let all = ["validate", "configs/experiment.yaml", "task=lines", "task.generation.top_k=3"];
    let refused = aflora(place(), &all);
    let words = text(&refused.stderr);
    assert!(words.contains("counts where tokens are drawn alone"), "{words}");
}

#[test]
fn a_conversation_is_written_by_the_models_template() {
    let answers = succeeded(&with("chat", &["--system", "S"], "one\ntwo\n"));
    // The same by hand, with the whole conversation as the prompt.
    let first = generate(&["--raw", "--prompt", "s: S\nu: one\na:"]);
    let first = first.trim_end();
    let second = generate(&["--raw", "--prompt", &format!("s: S\nu: one\na: {first}\nu: two\na:")]);
    assert_eq!(answers, format!("{first}\n{second}"));

    let output = with("chat", &[], "one\n/reset\n\none\n/nonsense\n/quit\nnever\n");
    let answers = succeeded(&output);
    let plain = generate(&["--raw", "--prompt", "u: one\na:"]);
    assert_eq!(answers, plain.repeat(2));
    assert!(text(&output.stderr).contains("there is no command /nonsense"));
}

#[test]
fn a_conversation_that_becomes_too_long_loses_its_first_turns() {
    let lines: String = (0..60).map(|n| format!("{n} {}\n", "word ".repeat(12))).collect();
    let output = with("chat", &["--max-new-tokens", "8"], &lines);
    let answers = succeeded(&output);
    assert!(answers.lines().count() >= 60, "{answers}");
    let words = text(&output.stderr);
    assert!(words.contains("1 turn at its beginning left out"), "{words}");
    let output = with("chat", &[], &format!("{}\n", "word ".repeat(5000)));
    assert_eq!(succeeded(&output), "");
    assert!(text(&output.stderr).contains("this alone is longer than the model reads"));
}

#[test]
fn ctrl_c_ends_an_answer_and_not_the_conversation() {
    let mut child =
        start("chat", &["--max-new-tokens", "200", "--temperature", "3", "--top-k", "0"]);
    let mut input = child.stdin.take().unwrap();
    let mut output = child.stdout.take().unwrap();
    input.write_all(b"one\n").unwrap();
    // The answer has begun.
    let mut first = [0];
    output.read_exact(&mut first).unwrap();
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    input.write_all(b"two\n/quit\n").unwrap();
    let mut answers = Vec::new();
    output.read_to_end(&mut answers).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(answers.ends_with(b"\n"));
}

#[test]
fn a_model_without_a_template_does_not_chat() {
    let template = place().join("configs/models/tiny-bart");
    assert!(template.is_dir() && !template.join("chat_template.jinja").exists());
    run(place(), &["epochs=1", "limit=8", "eval_limit=4", "run_dir=bart"]);
    let refused = aflora(place(), &["chat", "bart", "--device", "cpu"]);
    assert_eq!(refused.status.code(), Some(2));
    let words = text(&refused.stderr);
    assert!(words.contains("has no chat template") && words.contains("aflora generate"), "{words}");
    let generate = ["generate", "bart", "--prompt", "ab", "--device", "cpu"];
    succeeded(&aflora(place(), &generate));
}

#[test]
fn commands_that_print_end_quietly_with_their_reader() {
    let rows: String = (0..600)
        .map(|_| "{\"input\": \"ab\", \"filler\": \"".to_string() + &"x".repeat(200) + "\"}\n")
        .collect();
    fs::write(place().join("many.jsonl"), rows).unwrap();
    let aflora = env!("CARGO_BIN_EXE_aflora");
    for command in
        ["keys".to_string(), "predict out many.jsonl --device cpu --batch-size 64".to_string()]
    {
        // More than a pipe holds, of which one line is read.
        let script =
            format!("'{aflora}' {command} 2> stderr.txt | head -n 1; exit ${{PIPESTATUS[0]}}");
        let output =
            Command::new("bash").args(["-c", &script]).current_dir(place()).output().unwrap();
        let stderr = fs::read_to_string(place().join("stderr.txt")).unwrap();
        assert!(!stderr.contains("error") && !stderr.contains("panicked"), "{command}: {stderr}");
        let code = output.status.code().unwrap();
        // 128 and SIGPIPE, as of other programs; or it was done before.
        assert!(code == 141 || (code == 0 && command == "keys"), "{command}: {code}\n{stderr}");
    }
}

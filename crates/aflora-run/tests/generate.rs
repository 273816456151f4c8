//! `aflora generate` and `aflora chat` on a tiny decoder that was trained a little.

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
    let mut command = Command::new(env!("CARGO_BIN_EXE_aflora"));
    command
        .args(arguments)
        .current_dir(place)
        .env_remove("AFLORA_DATA")
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", place.join("hf"))
        .stdin(Stdio::null());
    command
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
            let run = [
                "run",
                "configs/experiment.yaml",
                "device=cpu",
                "threads=1",
                "task=lines",
                "model=tiny-llama",
                "method=full",
                "data=.",
                "epochs=8",
                "lr=3e-3",
                "task.prompt='{input} >'",
                "task.generation.max_new_tokens=40",
                "task.generation.min_new_tokens=3",
                "run_dir=out",
            ];
            succeeded(&command(&run, place).output().unwrap());
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
    let rows: String =
        prompts.iter().map(|prompt| json!({ "input": prompt }).to_string() + "\n").collect();
    let mut child = command(&["predict", "out", "-", "--device", "cpu"], place());
    let child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    child.stdin.take().unwrap().write_all(rows.as_bytes()).unwrap();
    let predicted = succeeded(&child.wait_with_output().unwrap());
    let predicted = predicted.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["prediction"].as_str().unwrap().to_string() + "\n"
    });
    let found = prompts.map(|prompt| generate(&["--prompt", prompt]));
    assert_eq!(found.to_vec(), predicted.collect::<Vec<_>>());
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
fn options_that_do_not_go_together_are_refused() {
    for (options, words) in [
        (&["--greedy", "--temperature", "2"][..], "ask for one"),
        (&["--beams", "2", "--top-k", "3"], "ask for one"),
        (&["--temperature", "0"], "temperature"),
        (&["--top-p", "1.5"], "top_p"),
        (&["--max-new-tokens", "100000"], "max_new_tokens"),
        (&["--prompt-file", "nowhere.txt"], "there is no such file"),
    ] {
        let refused = with("generate", &[&["--prompt", "a"], options].concat(), "");
        let stderr = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{options:?}: {stderr}");
        assert!(stderr.contains(words), "{options:?}: {stderr}");
    }
    let all = ["validate", "configs/experiment.yaml", "task=lines", "task.generation.top_k=3"];
    let refused = command(&all, place()).output().unwrap();
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
    let lines: String = (0..30).map(|n| format!("{n} {}\n", "word ".repeat(12))).collect();
    let output = with("chat", &["--max-new-tokens", "8"], &lines);
    let answers = succeeded(&output);
    assert!(answers.lines().count() >= 30, "{answers}");
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
    let run = [
        "run",
        "configs/experiment.yaml",
        "device=cpu",
        "threads=1",
        "task=lines",
        "data=.",
        "epochs=1",
        "limit=8",
        "eval_limit=4",
        "task.generation.max_new_tokens=4",
        "run_dir=bart",
    ];
    succeeded(&command(&run, place()).output().unwrap());
    let refused = command(&["chat", "bart", "--device", "cpu"], place()).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let words = text(&refused.stderr);
    assert!(words.contains("has no chat template") && words.contains("aflora generate"), "{words}");
    let generate = ["generate", "bart", "--prompt", "ab", "--device", "cpu"];
    succeeded(&command(&generate, place()).output().unwrap());
}

#[test]
fn commands_that_print_end_quietly_with_their_reader() {
    let rows: String = (0..3000)
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

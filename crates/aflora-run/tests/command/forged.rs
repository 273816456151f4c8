//! Folders and files that somebody else made: what they name, and what stands where a file should.

use crate::common::stopping::{checkpoints, stopped, OFTEN, RUN};
use crate::common::{self, aflora, command, json, refused, run, text, workplace};
use serde_json::{json, Value};
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A workplace with a run that was stopped, and a file that is nobody's to write.
fn begun() -> (tempfile::TempDir, PathBuf) {
    let place = workplace();
    stopped(place.path(), libc::SIGKILL, &[OFTEN]);
    let victim = place.path().join("victim");
    fs::write(&victim, "kept").unwrap();
    (place, victim)
}

/// A copy of the stopped run, under another name.
fn copy(place: &Path, name: &str) -> PathBuf {
    let copied = Command::new("cp").arg("-r").args([place.join("out"), place.join(name)]).status();
    assert!(copied.unwrap().success());
    place.join(name)
}

fn go_on(place: &Path, name: &str) -> Output {
    run(place, &[&RUN[..], &[OFTEN, &format!("run_dir={name}")]].concat())
}

/// Changes every checkpoint's state, and signs it again.
fn forge(run: &Path, change: impl Fn(&mut Value)) {
    for checkpoint in checkpoints(run) {
        let mut state = json(&checkpoint.join("state.json"));
        change(&mut state);
        let state = state.to_string();
        let digest = Sha256::digest(state.as_bytes());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(checkpoint.join("state.json"), state).unwrap();
        let mut manifest = json(&checkpoint.join("manifest.json"));
        manifest["files"]["state.json"] = json!(digest);
        fs::write(checkpoint.join("manifest.json"), manifest.to_string()).unwrap();
    }
}

#[test]
fn a_forged_checkpoint_overwrites_no_other_file() {
    let (place, victim) = begun();
    let absolute = victim.display().to_string();
    for (i, name) in ["../victim", &absolute, "config.yaml", "events.out.tfevents./../../victim"]
        .into_iter()
        .enumerate()
    {
        let folder = copy(place.path(), &format!("case{i}"));
        forge(&folder, |state| {
            state["lengths"]["scalars_file"] = json!(name);
            state["lengths"]["scalars"] = json!(0);
        });
        let output = go_on(place.path(), &format!("case{i}"));
        let said = text(&output.stderr);
        assert!(output.status.success(), "{name}: {said}");
        assert!(said.contains("is no name of an event file"), "{name}: {said}");
        assert!(said.contains("it starts anew"), "{name}: {said}");
        assert_eq!(fs::read(&victim).unwrap(), b"kept", "{name}");
        let config = fs::read_to_string(folder.join("config.yaml")).unwrap();
        assert!(config.contains("epochs: 16"), "{name}: {config}");
    }
}

#[test]
fn a_step_count_beyond_the_run_is_refused() {
    let (place, _) = begun();
    let folder = copy(place.path(), "beyond");
    forge(&folder, |state| state["position"]["step"] = json!(1_000_000));
    let output = go_on(place.path(), "beyond");
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("`step` is 1000000, expected 96 at most"), "{said}");
    assert!(said.contains("it starts anew"), "{said}");
    assert_eq!(json(&folder.join("metrics.json"))["steps"], 96);
}

#[test]
fn links_in_a_run_folder_are_not_written_through() {
    let (place, victim) = begun();
    let out = place.path().join("out");
    let names = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name());
    let scalars = names.map(|name| name.into_string().unwrap());
    let scalars = scalars.into_iter().find(|name| name.contains("tfevents")).unwrap();
    let link = |folder: &Path, name: &str, to: &Path| {
        let path = folder.join(name);
        aflora_files::write::remove(&path).unwrap();
        symlink(to, path).unwrap();
    };
    // Long enough to have been the log.
    fs::write(&victim, "kept".repeat(100_000)).unwrap();
    let kept = || assert_eq!(fs::read(&victim).unwrap(), "kept".repeat(100_000).as_bytes());

    let folder = copy(place.path(), "logs");
    link(&folder, "events.jsonl", &victim);
    link(&folder, &scalars, &victim);
    link(&folder, "adapter", place.path());
    let output = go_on(place.path(), "logs");
    assert!(output.status.success(), "{}", text(&output.stderr));
    kept();
    assert!(fs::read_to_string(folder.join("events.jsonl")).unwrap().contains("evaluation"));
    assert!(place.path().join("configs/experiment.yaml").is_file());

    let folder = copy(place.path(), "lock");
    link(&folder, ".lock", &victim);
    refused(&go_on(place.path(), "lock"), 1, "it is a link, no file of its own");
    kept();

    // Somebody's folder, in which a run would have tidied up.
    let home = place.path().join("home");
    fs::rename(folder.join("checkpoint"), &home).unwrap();
    fs::write(home.join(".bashrc"), "kept").unwrap();
    fs::create_dir(home.join("step-9999")).unwrap();
    let entries = || fs::read_dir(&home).unwrap().count();
    let before = entries();
    let folder = copy(place.path(), "checkpoints");
    link(&folder, "checkpoint", &home);
    refused(&go_on(place.path(), "checkpoints"), 2, "is a link, and a run writes");
    assert_eq!(entries(), before);
}

#[test]
fn second_names_in_a_run_folder_are_not_written_through() {
    let (place, _) = begun();
    let out = place.path().join("out");
    // Every file of the copy is a second name of the run's own.
    let linked = Command::new("cp").arg("-al").args([&out, &place.path().join("copy")]).status();
    assert!(linked.unwrap().success());
    let contents = || {
        let entries = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
        files.sort();
        files.into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect::<Vec<_>>()
    };
    let before = contents();
    assert!(["tfevents", ".lock", "events.jsonl"]
        .iter()
        .all(|name| before.iter().any(|(_, path)| path.to_string_lossy().contains(name))));
    let output = go_on(place.path(), "copy");
    let said = text(&output.stderr);
    assert!(output.status.success() && !said.contains("anew"), "{said}");
    assert_eq!(contents(), before);
    // And the run itself goes on as if there were no copy.
    let output = go_on(place.path(), "out");
    let said = text(&output.stderr);
    assert!(output.status.success() && !said.contains("anew"), "{said}");
    let ended = |name: &str| common::outcome(&place.path().join(name));
    common::assert_same(&ended("copy"), &ended("out"), "a copy and the run");
}

/// [`aflora`], which must end within some seconds and some hundred MB.
fn bounded(place: &Path, arguments: &[&str]) -> Output {
    let limited = "ulimit -v 4000000; exec timeout 60 \"$0\" \"$@\"";
    let program = command(place, &[]).get_program().to_owned();
    let output = Command::new("bash")
        .args(["-c", limited])
        .arg(program)
        .args(arguments)
        .current_dir(place)
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap();
    assert!(!matches!(output.status.code(), None | Some(124 | 134)), "{}", text(&output.stderr));
    output
}

#[test]
fn a_pipe_or_device_in_a_run_folder_is_told_and_not_waited_for() {
    let place = workplace();
    let pipe = |name: &str| {
        let path = place.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    let none = "it is a pipe or device";
    fs::create_dir(place.path().join("run")).unwrap();
    fs::write(place.path().join("run/config.yaml"), "").unwrap();
    symlink("/dev/zero", place.path().join("run/events.jsonl")).unwrap();
    symlink("/dev/zero", place.path().join("run/metrics.json")).unwrap();
    refused(&bounded(place.path(), &["watch", "run"]), 1, none);
    let listed = bounded(place.path(), &["ls", "."]);
    assert!(
        text(&listed.stdout).contains("run  its metrics.json is damaged"),
        "{}",
        text(&listed.stdout)
    );

    pipe("piped/config.yaml");
    pipe("piped/events.jsonl");
    refused(&bounded(place.path(), &["watch", "piped"]), 2, none);
    refused(&bounded(place.path(), &["run", "piped/config.yaml"]), 2, none);
    pipe("experiments/piped.yaml");
    refused(&bounded(place.path(), &["experiment", "experiments/piped.yaml"]), 2, none);
    pipe("run/gradients.bin");
    refused(&bounded(place.path(), &["replay", "run"]), 2, none);
    symlink("/dev/zero", place.path().join("results.json")).unwrap();
    refused(&bounded(place.path(), &["report", "results.json"]), 2, "there is no such file");
    let whole = fs::File::create(place.path().join("large.json")).unwrap();
    whole.set_len(1 << 40).unwrap();
    refused(&bounded(place.path(), &["report", "large.json"]), 1, "it holds more than");
}

#[test]
fn a_log_without_an_end_of_line_fills_no_memory() {
    let place = workplace();
    fs::create_dir(place.path().join("run")).unwrap();
    fs::write(place.path().join("run/config.yaml"), "").unwrap();
    let events = fs::File::create(place.path().join("run/events.jsonl")).unwrap();
    events.set_len(1 << 40).unwrap();
    refused(&bounded(place.path(), &["watch", "run"]), 1, "a line has more than");
}

#[test]
fn a_few_lines_do_not_make_more_cells_than_memory_holds() {
    let place = workplace();
    let write = |methods: &str, seeds: &str| {
        let text = format!(
            "{{title: t, models: [minilm], tasks: [mrpc], seeds: [{seeds}], show: [table],\n\
             methods: [{{method: lora, sweep: {{{methods}}}}}]}}\n"
        );
        fs::create_dir_all(place.path().join("experiments")).unwrap();
        fs::write(place.path().join("experiments/large.yaml"), text).unwrap();
    };
    let values = |n: usize| (1..=n).map(|v| v.to_string()).collect::<Vec<_>>().join(",");
    let keys = |n: usize, of: usize| {
        let key = |i| format!("key{i}: [{}]", values(of));
        (0..n).map(key).collect::<Vec<_>>().join(", ")
    };
    let ask = || bounded(place.path(), &["experiment", "experiments/large.yaml", "--dry-run"]);
    write(&keys(8, 20), "0");
    refused(&ask(), 2, "the combinations of their sweeps are 25600000000");
    write(&keys(60, 20), "0");
    refused(&ask(), 2, "more than can be counted");
    write(&keys(2, 100), &values(11));
    refused(&ask(), 2, "11 seeds × 1 model × 1 task × 10000 methods are more cells");
}

#[test]
fn escape_sequences_of_names_and_errors_do_not_reach_the_terminal() {
    const ESCAPE: &str = "\u{1b}[2J\u{202e}";
    let place = workplace();
    let quiet = |output: &Output| {
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(!said.contains('\u{1b}') && !said.contains('\u{202e}'), "{said:?}");
        said
    };
    let name = format!("a{ESCAPE}run");
    let folder = place.path().join("runs").join(&name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.yaml"), "").unwrap();
    let escaped = json!(ESCAPE).to_string();
    let evaluation = format!(
        r#"{{"event":"evaluation","step":4,"epoch":1.0,"metrics":{{{escaped}:0.5}},"loss":1.0,"seconds":1.0}}"#
    );
    let failed = format!(r#"{{"event":"failed","error":{escaped}}}"#);
    fs::write(folder.join("events.jsonl"), format!("{evaluation}\n{failed}\n")).unwrap();
    let watched = aflora(&place.path().join("runs"), &["watch", &name]);
    let said = quiet(&watched);
    assert_eq!(said.matches("\\u{1b}[2J\\u{202e}").count(), 3, "{said}");
    let best = json!({"step": 4, "epoch": 1, "metrics": {ESCAPE: 0.5}, "loss": 1, "seconds": 1});
    let none = json!({"forward": 0, "backward": 0});
    let metrics = json!({
        "task": "mrpc", "model": "minilm", "method": "lora", "seed": 1, "selection": ESCAPE,
        "best": best, "last": best, "evaluations": [],
        "parameters": {"at_start": 1, "at_end": 1, "time_average": 1, "head": 1}, "steps": 4,
        "flops_per_token":
            {"frozen_weights": none, "paths_at_start": none, "paths_at_end": none},
        "device": ESCAPE, "seconds": {"training": 1, "evaluation": 1, "median_step": 1},
        "tokens_per_second": 1,
    });
    fs::write(folder.join("metrics.json"), metrics.to_string()).unwrap();
    let said = quiet(&aflora(place.path(), &["ls"]));
    assert_eq!(said.matches("\\u{1b}[2J\\u{202e}").count(), 3, "{said}");

    let wrong = format!("{ESCAPE}.yaml");
    for arguments in [["validate", &wrong], ["watch", &wrong], ["report", &wrong]] {
        let said = quiet(&aflora(place.path(), &arguments));
        assert!(said.contains("\\u{202e}") || said.contains('\u{fffd}'), "{said}");
    }
    // In the log: the place of the data.
    let data = place.path().join(&name);
    fs::create_dir(&data).unwrap();
    for folder in ["glue", "minilm"] {
        fs::rename(place.path().join(folder), data.join(folder)).unwrap();
    }
    let given = format!("data={}", json!(name));
    let short = ["task=mrpc", "method=head", "epochs=1", "limit=16", &given];
    let output = run(place.path(), &short);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(quiet(&output).contains("\\u{202e}run/glue"), "{}", text(&output.stderr));
}

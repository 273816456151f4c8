//! Configurations: the shipped ones load, broken ones are explained, resolved ones load again.

use aflora_run::config::{load, MethodConfig};
use aflora_run::data::TASKS;
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/experiment.yaml")
}

fn names(kind: &str) -> Vec<String> {
    let folder = shipped().with_file_name(kind);
    let files = fs::read_dir(folder).unwrap().flatten().map(|e| e.path());
    let stem = |p: PathBuf| p.file_stem().unwrap().to_str().unwrap().to_string();
    let mut names: Vec<String> = files.map(stem).collect();
    names.sort();
    names
}

fn resolve(overrides: &[&str]) -> Result<aflora_run::config::Resolved, String> {
    let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
    load(&shipped(), &overrides).map_err(|e| e.to_string())
}

#[test]
fn every_shipped_block_loads_with_every_other() {
    let tasks = names("tasks");
    let mut known: Vec<&str> = TASKS.iter().map(|t| t.name).collect();
    known.sort_unstable();
    assert_eq!(tasks, known, "one file a task");
    for task in &tasks {
        for model in names("models") {
            for method in names("methods") {
                let choice =
                    [format!("task={task}"), format!("model={model}"), format!("method={method}")];
                let resolved = resolve(&choice.each_ref().map(String::as_str)).unwrap();
                assert_eq!(resolved.name(), format!("{task}-{model}-{method}-seed42"));
            }
        }
    }
}

#[test]
fn later_layers_win() {
    let mrpc = resolve(&["task=mrpc"]).unwrap();
    assert_eq!(mrpc.model.model, "deberta-v3-base", "the paper's model");
    assert_eq!((mrpc.run.epochs, mrpc.run.head_lr), (20, 8e-2), "the paper's settings");
    let small = resolve(&["task=mrpc", "model=minilm"]).unwrap();
    assert_eq!((small.run.epochs, small.run.batch_size), (8, 32), "run_for");
    let lora = resolve(&["task=mrpc", "model=minilm", "method=lora"]).unwrap();
    assert_eq!((lora.run.lr, lora.run.head_lr), (1e-3, 2e-3), "the method's own rate");
    let typed = resolve(&["task=mrpc", "method=lora", "lr=3e-4", "method.rank=2"]).unwrap();
    assert_eq!(typed.run.lr, 3e-4, "the command line");
    assert!(matches!(typed.method, MethodConfig::Lora(c) if c.rank == 2));
    let frozen = resolve(&["method.freeze=start"]).unwrap();
    let long = resolve(&["method.freeze.mode=start"]).unwrap();
    assert_eq!(frozen.method, long.method, "`freeze: start` is short for its mode");
}

#[test]
fn a_resolved_configuration_loads_again_from_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    for choice in [
        ["task=mrpc", "model=minilm", "method=aflora-text", "lr=7e-3"],
        ["task=stsb", "method=lora", "max_grad_norm=null", "warmup=100 steps"],
        ["task=reviews", "method=head", "limit=null", "model.layers=[1, 2]"],
    ] {
        let resolved = resolve(&choice).unwrap();
        fs::write(&path, resolved.to_yaml().unwrap()).unwrap();
        let again = load(&path, &[]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(again.run, resolved.run);
        assert_eq!(again.method, resolved.method);
        assert_eq!(again.task, resolved.task);
        assert_eq!(again.model.targets(), resolved.model.targets());
    }
}

#[test]
fn all_problems_are_told_at_once_each_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for kind in ["tasks", "models", "methods"] {
        fs::create_dir(root.join(kind)).unwrap();
    }
    fs::write(root.join("run.yaml"), "task: t\nmodel: m\nmethod: a\nepoch: 3\nlr: fast\n").unwrap();
    fs::write(root.join("tasks/t.yaml"), "task: mprc\nrun:\n  batch_size: -4\n").unwrap();
    fs::write(root.join("models/m.yaml"), "model: m\nbackbone: bert\n  path: x\n").unwrap();
    fs::write(root.join("methods/a.yaml"), "method: aflora\nrank: 0\nfreeze:\n  t_i: soon\n")
        .unwrap();
    let error = load(&root.join("run.yaml"), &["seed=x".into(), "nonsense".into()]).unwrap_err();
    let text = error.to_string().replace(&format!("{}/", root.display()), "");
    for expected in [
        "there is no key `epoch`\n --> run.yaml:4:1\n",
        "4 | epoch: 3\n  | ^^^^^\n  |\n  = help: did you mean `epochs`?",
        "`lr` is the text \"fast\", but must be a number\n --> run.yaml:5:5",
        "there is no task `mprc`; did you mean `mrpc`?",
        " --> tasks/t.yaml:1:7",
        "`batch_size` is -4, but must be a whole number, at least 0\n --> tasks/t.yaml:3:15",
        "this cannot be read as YAML: ",
        " --> models/m.yaml:3:7",
        "`rank` is 0, but must be a positive number\n --> methods/a.yaml:2:7",
        "`freeze.t_i`: `soon` is no span of training",
        " --> methods/a.yaml:4:8",
        "`seed` is the text \"x\", but must be a whole number",
        "1 | nonsense\n  | ^^^^^^^^\n  |\n  = help: write `key=value`",
    ] {
        assert!(text.contains(expected), "missing: {expected}\n--- in:\n{text}");
    }
}

#[test]
fn names_that_do_not_exist_are_told_with_those_that_do() {
    let error = resolve(&["task=mrcp"]).unwrap_err();
    assert!(error.contains("there is no task `mrcp` in "), "{error}");
    assert!(error.contains("help: did you mean `mrpc`? Known: mrpc, "), "{error}");
    let error = resolve(&["method=../../secret"]).unwrap_err();
    assert!(error.contains("there is no method `../../secret`"), "{error}");
    let error = resolve(&["model=3"]).unwrap_err();
    assert!(error.contains("must be the name of a model"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_text_makes_the_configuration_panic(content in "\\PC{0,200}|([a-z_.]{1,8}: ?[-\\[\\]{}&*!|>'\"%@`0-9a-z.]{0,12}\n){0,8}", typed in "\\PC{0,40}|[a-z.]{1,12}=\\PC{0,12}") {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.yaml");
        fs::write(&path, content).unwrap();
        let _ = load(&path, &[]).map_err(|e| e.to_string());
        let _ = load(&shipped(), &[typed]).map_err(|e| e.to_string());
    }
}

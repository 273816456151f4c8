//! Which settings win, and where blocks are found.

use super::*;

/// Settings of its own for a task of the project.
const TASK: &str = "task: mrpc\nmodel: minilm\nrun: {epochs: 21, lr: 0.1, seed: 1}\n\
                    run_for:\n  minilm: {epochs: 22, lr: 0.2}\n  deberta-v3-base: {seed: 5}\n";

#[test]
fn later_layers_win() {
    let model =
        ("models/minilm.yaml", "model: minilm\nbackbone: bert\nrun: {epochs: 20, eval_limit: 9}\n");
    let method = ("methods/aflora.yaml", "method: aflora\nrun: {lr: 0.3}\n");
    let (_keep, path) =
        folder("task: own\nlog_every: 7\n", &[("tasks/own.yaml", TASK), model, method]);
    let run = load(&path, &["log_every=8".into()]).unwrap().run;
    assert_eq!(run.eval_limit, Some(9), "the model's");
    assert_eq!(run.seed, 1, "the task's");
    assert_eq!(run.epochs, 22, "the task's for this model");
    assert_eq!(run.update.lr, 0.3, "the method's");
    assert_eq!(run.log_every, 8, "the command line's");
    assert_eq!(load(&path, &[]).unwrap().run.log_every, 7, "the run file's");
}

#[test]
fn settings_tried_at_once_are_those_that_are_tried_one_by_one() {
    for method in ["aflora", "aflora-late", "aflora-gsm8k", "lora"] {
        let method = format!("method={method}");
        let words = ["task=mrpc", &method, "method.rank=3", "lr=1e-4", "lr=2e-4", "epochs=30"];
        let with = |more: &[&str]| good(&[&words[..], more].concat()).settings();
        // A number for a text is tried alone, and so is an empty group.
        assert_eq!(with(&["run_dir='2024'"]), with(&["run_dir=2024"]), "{method}");
        if method != "method=lora" {
            assert_eq!(with(&[]), with(&["method.freeze={}"]), "{method}");
        }
    }
}

#[test]
fn a_value_is_judged_among_the_other_settings() {
    let words = ["task=mrpc", "method=lora", "method.init=pissa", "method.pissa_niter=16"];
    good(&words);
    good(&[&words[..3], &["method.pissa_niter=4", "method.pissa_niter=16"]].concat());
    let told = bad(&[&words[..], &["method.rnk=3"]].concat());
    assert!(told.contains("`rnk`") && !told.contains("pissa"), "{told}");
    let told = bad(&[&words[..2], &words[3..]].concat());
    assert!(told.contains("`init` is not `pissa`"), "{told}");
    let told = bad(&["task=mrpc", "lr=-1", "lr=1e-3"]);
    assert!(told.contains("`lr` is -1"), "what a later one replaces is told: {told}");
}

#[test]
fn a_method_can_choose_other_layers_than_the_model_says() {
    let method = ("methods/lora.yaml", "method: lora\ntarget_modules: [query, value]\n");
    let (_keep, path) = folder("task: reviews\nmethod: lora\n", &[method]);
    let model = load(&path, &[]).unwrap().model;
    assert_eq!(model.target_modules, Pattern::Names(vec!["query".into(), "value".into()]));
}

#[test]
fn a_name_may_have_a_dot_in_it() {
    let method = ("methods/lora-r0.5.yaml", "method: lora\n");
    let (_keep, path) = folder("task: reviews\nmethod: lora-r0.5\n", &[method]);
    assert_eq!(load(&path, &[]).unwrap().name(), "reviews-minilm-lora-r0.5-seed42");
}

#[test]
fn blocks_can_lie_anywhere() {
    let (keep, path) = folder("task: other/my-task.yaml\nmethod: aflora\n", &[]);
    fs::create_dir(keep.path().join("other")).unwrap();
    fs::write(keep.path().join("other/my-task.yaml"), TASK).unwrap();
    assert_eq!(load(&path, &[]).unwrap().run.epochs, 22);
    // On the command line a path starts from the working folder, as everywhere else.
    let typed = format!("task={}", keep.path().join("tasks/rte.yaml").display());
    assert_eq!(load(&path, &[typed]).unwrap().task.name(), "rte");
}

#[test]
fn a_run_file_elsewhere_in_the_project_finds_the_shipped_blocks() {
    let project = TempDir::new().unwrap();
    copy_blocks(&project.path().join("configs"));
    fs::create_dir_all(project.path().join("experiments/deep")).unwrap();
    let path = project.path().join("experiments/deep/one.yaml");
    fs::write(&path, "task: reviews\n").unwrap();
    let run = load(&path, &[]).unwrap();
    assert_eq!(run.name(), "reviews-minilm-aflora-seed42");
    assert_eq!(run.project, project.path().canonicalize().unwrap());
}

#[test]
fn outside_a_project_the_blocks_are_those_that_the_program_was_built_with() {
    let empty = TempDir::new().unwrap();
    let path = empty.path().join("one.yaml");
    fs::write(&path, "task: mrpc\nmodel: minilm\nmethod: aflora\n").unwrap();
    let (found, in_project) = (load(&path, &[]).unwrap(), good(&["task=mrpc", "model=minilm"]));
    assert_eq!((&found.task, found.run.epochs), (&in_project.task, in_project.run.epochs));
    assert_eq!(found.method, in_project.method);
    assert!(!found.own_spans, "nobody here wrote them");
    // A file of one's own comes first.
    fs::create_dir(empty.path().join("methods")).unwrap();
    fs::write(empty.path().join("methods/aflora.yaml"), "method: lora\n").unwrap();
    assert_ne!(load(&path, &[]).unwrap().method, in_project.method);
}

#[test]
fn whoever_wrote_the_spans_of_freezing_is_known() {
    let own = |overrides: &[&str]| good(overrides).own_spans;
    assert!(!own(&[]) && !own(&["method=aflora-rank"]), "the shipped methods'");
    assert!(own(&["method.freeze.t_i=1 epoch"]), "typed, though it is the default");
    assert!(!own(&["method.freeze.t_i=10%", "method.freeze.t_f=20%"]), "shares never give way");
    assert!(!own(&["method.freeze.t_f=20%"]), "what gives way is the shipped t_i");
    assert!(!own(&["method=lora"]));

    let project = TempDir::new().unwrap();
    let configs = project.path().join("configs");
    copy_blocks(&configs);
    let mine = project.path().join("mine");
    fs::create_dir_all(mine.join("methods")).unwrap();
    let path = mine.join("run.yaml");
    let of_file = |text: &str| {
        fs::write(&path, format!("task: reviews\n{text}")).unwrap();
        load(&path, &[]).unwrap().own_spans
    };
    assert!(!of_file("method: aflora\n"));
    assert!(of_file("method: {method: aflora, freeze: {t_i: 2 epochs}}\n"));
    assert!(!of_file("method: {method: aflora}\n"), "a built-in default");
    fs::write(mine.join("methods/late.yaml"), "method: aflora\nfreeze: {t_i: 9 epochs}\n").unwrap();
    assert!(of_file("method: late\n"), "a method beside the run file");
}

#[test]
fn what_was_resolved_can_be_loaded_again_from_the_runs_own_folder() {
    let project = TempDir::new().unwrap();
    let (configs, run) = (project.path().join("configs"), project.path().join("runs/one"));
    copy_blocks(&configs);
    fs::create_dir_all(&run).unwrap();
    fs::write(configs.join("experiment.yaml"), "task: reviews\n").unwrap();
    fs::write(run.join("provenance.json"), "{}").unwrap();
    let path = run.join("config.yaml");
    for overrides in [
        &["method=aflora-text", "method.freeze.t_i=100 steps", "adamw.eps=1e-12"][..],
        &["method=aflora-trainable", "data=some folder", "run_dir=2024", "threads=2"],
        &["method=lora", "task=mrpc", "model.target_modules='.*\\.query'", "lr=1.25e-5"],
        &["method=head", "task=stsb", "model=minilm", "limit=7", "max_grad_norm=null"],
    ] {
        let overrides: Vec<String> = overrides.iter().map(|o| o.to_string()).collect();
        let mut first = load(&configs.join("experiment.yaml"), &overrides).unwrap();
        fs::write(&path, first.to_yaml().unwrap()).unwrap();
        // It is of the run that it lies with, and does not say who wrote what.
        (first.run.run_dir, first.own_spans) = (Some(run.clone()), false);
        let again = load(&path, &[]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(again, first, "{}", first.to_yaml().unwrap());
        assert_eq!(again.name(), first.name());
    }
    // And a block named anew takes the place of the one that was written out.
    let other = load(&path, &["method=aflora".into()]).unwrap();
    assert_eq!(other.name(), "stsb-minilm-aflora-seed42");
}

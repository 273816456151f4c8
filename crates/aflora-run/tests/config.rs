//! The configuration: shipped files, overrides, layers, errors, and no panic on anything.

use aflora_core::freeze::{FreezeMode, Rule};
use aflora_core::Span;
use aflora_models::Pattern;
use aflora_run::config::{load, ConfigErrors, MethodConfig, Resolved};
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs")
}

/// The shipped run file with overrides.
fn shipped(overrides: &[&str]) -> Result<Resolved, ConfigErrors> {
    let overrides: Vec<String> = overrides.iter().map(|o| o.to_string()).collect();
    load(&configs().join("experiment.yaml"), &overrides)
}

fn good(overrides: &[&str]) -> Resolved {
    shipped(overrides).unwrap_or_else(|errors| panic!("{overrides:?}: {errors}"))
}

/// What is wrong, all of it as it is printed.
fn bad(overrides: &[&str]) -> String {
    match shipped(overrides) {
        Ok(resolved) => panic!("{overrides:?} passed as {}", resolved.name()),
        Err(errors) => errors.to_string(),
    }
}

fn names(kind: &str) -> Vec<String> {
    let files = fs::read_dir(configs().join(kind)).unwrap();
    let stem = |f: fs::DirEntry| f.path().file_stem().unwrap().to_str().unwrap().to_string();
    let mut names: Vec<String> = files.map(|f| stem(f.unwrap())).collect();
    names.sort();
    names
}

/// A folder with a run file, and with blocks as they are shipped but for those given.
fn folder(run_file: &str, blocks: &[(&str, &str)]) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    for kind in ["tasks", "models", "methods"] {
        fs::create_dir(folder.path().join(kind)).unwrap();
        for name in names(kind) {
            let file = format!("{kind}/{name}.yaml");
            fs::copy(configs().join(&file), folder.path().join(&file)).unwrap();
        }
    }
    for (file, text) in blocks {
        fs::write(folder.path().join(file), text).unwrap();
    }
    let path = folder.path().join("run.yaml");
    fs::write(&path, run_file).unwrap();
    (folder, path)
}

mod shipped_files {
    use super::*;

    #[test]
    fn every_task_model_and_method_can_be_combined() {
        let (tasks, models, methods) = (names("tasks"), names("models"), names("methods"));
        assert_eq!((tasks.len(), models.len(), methods.len()), (9, 2, 6));
        for task in &tasks {
            for model in &models {
                for method in &methods {
                    let run = good(&[
                        &format!("task={task}"),
                        &format!("model={model}"),
                        &format!("method={method}"),
                    ]);
                    assert_eq!(run.name(), format!("{task}-{model}-{method}-seed42"));
                }
            }
        }
    }

    #[test]
    fn a_file_and_what_it_says_carry_one_name() {
        for task in names("tasks") {
            assert_eq!(good(&[&format!("task={task}")]).task.name(), task);
        }
        for model in names("models") {
            assert_eq!(good(&[&format!("model={model}")]).model.model, model);
        }
    }

    #[test]
    fn the_default_run_is_the_embedded_one() {
        assert_eq!(good(&[]).name(), "reviews-minilm-aflora-seed42");
    }

    #[test]
    fn a_glue_task_runs_on_the_papers_model_with_the_papers_settings() {
        let run = good(&["task=rte"]);
        assert_eq!(run.name(), "rte-deberta-v3-base-aflora-seed42");
        let r = &run.run;
        assert_eq!((r.epochs, r.batch_size, r.accumulate, r.max_length), (20, 64, 1, 256));
        assert_eq!(
            (r.lr, r.head_lr, r.weight_decay, r.max_grad_norm),
            (1e-2, 4e-2, 0.1, Some(0.1))
        );
        assert_eq!(r.warmup, Span::Share(0.06));
    }

    #[test]
    fn the_paper_updates_with_256_rows_where_it_used_four_gpus() {
        for task in ["qnli", "mnli", "qqp"] {
            let run = good(&[&format!("task={task}")]).run;
            assert_eq!(run.batch_size * run.accumulate, 256, "{task}");
        }
    }

    #[test]
    fn mrpc_on_minilm_is_the_reference_run() {
        let run = good(&["task=mrpc", "model=minilm"]).run;
        assert_eq!((run.epochs, run.batch_size, run.accumulate, run.max_length), (8, 32, 1, 128));
        assert_eq!((run.lr, run.head_lr), (1e-2, 2e-3));
    }

    #[test]
    fn the_methods_are_what_their_names_say() {
        let freeze = |method: &str| match good(&[&format!("method={method}")]).method {
            MethodConfig::Aflora(config) => (config.freeze.mode, config.freeze.rule),
            other => panic!("{other:?}"),
        };
        assert_eq!(freeze("aflora"), (FreezeMode::Adaptive, Rule::ElementQuantile));
        assert_eq!(freeze("aflora-text"), (FreezeMode::Adaptive, Rule::MatrixRank));
        assert_eq!(freeze("aflora-frozen").0, FreezeMode::Start);
        assert_eq!(freeze("aflora-trainable").0, FreezeMode::Never);
        assert!(matches!(good(&["method=lora"]).method, MethodConfig::Lora(_)));
        assert!(good(&["method=head"]).method.build().unwrap().is_none());
    }
}

mod overrides {
    use super::*;

    #[test]
    fn the_command_line_wins_and_its_last_word_most() {
        let run = good(&["epochs=8", "lr=1e-3", "epochs=9", "max_grad_norm=null", "warmup=10%"]);
        assert_eq!((run.run.epochs, run.run.lr), (9, 1e-3));
        assert_eq!((run.run.max_grad_norm, run.run.warmup), (None, Span::Share(0.1)));
    }

    #[test]
    fn a_name_selects_a_block_and_a_dotted_key_changes_it_in_any_order() {
        for overrides in [["method.rank=2", "method=lora"], ["method=lora", "method.rank=2"]] {
            match good(&overrides).method {
                MethodConfig::Lora(config) => assert_eq!((config.rank, config.alpha), (2, 16.0)),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn deep_keys_lists_and_groups_can_be_set() {
        let run = good(&[
            "method.freeze.rule=matrix_rank",
            "method.freeze.t_f=60%",
            "model.target_modules=[query]",
            "model.layers=[0, 1]",
            "adamw={beta1: 0.8, eps: 1e-6}",
        ]);
        let MethodConfig::Aflora(config) = &run.method else { panic!("{:?}", run.method) };
        assert_eq!((config.freeze.rule, config.freeze.t_f), (Rule::MatrixRank, Span::Share(0.6)));
        assert_eq!(run.model.target_modules, Pattern::Names(vec!["query".into()]));
        assert_eq!(run.model.layers, Some(vec![0, 1]));
        let adamw = run.run.adamw;
        assert_eq!((adamw.beta1, adamw.beta2, adamw.eps), (0.8, 0.999, 1e-6));
    }

    #[test]
    fn freeze_never_is_short_for_its_mode() {
        let run = good(&["method.freeze=never", "method.freeze.beta1=0.5"]);
        let MethodConfig::Aflora(config) = &run.method else { panic!("{:?}", run.method) };
        assert_eq!((config.freeze.mode, config.freeze.beta1), (FreezeMode::Never, 0.5));
    }

    #[test]
    fn a_text_may_look_like_a_number() {
        assert_eq!(good(&["run_dir=2024"]).run.run_dir, Some("2024".into()));
    }

    #[test]
    fn a_block_can_be_written_out_on_the_command_line() {
        let run = good(&["method={method: lora, rank: 3}"]);
        match run.method {
            MethodConfig::Lora(config) => assert_eq!((config.rank, config.alpha), (3, 8.0)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn mistakes_are_told_with_what_would_be_right() {
        for (typed, parts) in [
            ("epoch=3", ["there is no key `epoch`", "did you mean `epochs`?"]),
            ("tsk=mrpc", ["there is no key `tsk`", "did you mean `task`?"]),
            ("epochs", ["this sets nothing", "epochs=3"]),
            ("epochs=0", ["`epochs` is 0", "at least 1"]),
            ("epochs=1.5", ["`epochs` is 1.5", "a whole number"]),
            ("epochs=three", ["the text \"three\"", "a whole number"]),
            ("lr=.inf", ["infinite", "command line:1:4"]),
            ("warmup=0.06", ["`0.06` is no span", "`70%`"]),
            ("device=gpu", ["`device` is gpu", "`cuda:N`"]),
            ("task=mrcp", ["there is no task `mrcp`", "did you mean `mrpc`?"]),
            ("task=[mrpc]", ["`task` must be the name", "command line:1:6"]),
            ("method=lora.yaml", ["there is no file lora.yaml", "command line:1:8"]),
            ("model=../models/minilm", ["there is no model", "minilm"]),
            ("method.rnk=2", ["there is no key `rnk`", "did you mean `rank`?"]),
            ("method.freeze.rule=rank", ["cannot be `rank`", "matrix_rank"]),
            ("rank=8", ["there is no key `rank`", "did you mean `method.rank`?"]),
            ("freeze.rule=x", ["there is no key `freeze`", "did you mean `method.freeze.rule`?"]),
            ("threads=100000", ["`threads` is 100000", "at most 1024"]),
            ("method.freeze.interval=0", ["`freeze.interval` is 0", "at least 1"]),
            ("method.method=lroa", ["there is no method `lroa`", "did you mean `lora`?"]),
            ("model.target_modules={a: b}", ["`target_modules` has no keys below", "write"]),
            ("model.target_modules=[[a]]", ["`target_modules` is neither", "regular expression"]),
            ("model.backbone=''", ["the model has no `backbone`", "command line"]),
            ("adamw=3", ["`adamw` is a group of keys", "beta1, beta2, eps"]),
            ("lr.peak=3", ["`lr` has no keys below", "write `lr: value`"]),
            ("task.run=3", ["`run` is a group of keys", "run: {epochs: 3}"]),
            ("task.run_for.minlm.lr=3", ["does not exist", "did you mean `minilm`?"]),
            ("lr=[", ["cannot be read as YAML", "command line:1:4"]),
            ("a..b=3", ["a key is empty", "key=value"]),
        ] {
            let printed = bad(&[typed]);
            for part in parts {
                assert!(printed.contains(part), "{typed}: {part:?} is missing in\n{printed}");
            }
        }
    }

    #[test]
    fn spans_that_overlap_are_known_before_anything_is_loaded() {
        let printed = bad(&["epochs=2"]);
        assert!(printed.contains("does not fit into 2 epochs"), "{printed}");
        assert!(printed.contains("command line:1:8"), "{printed}");
        good(&["epochs=2", "method.freeze.t_i=10%"]);
        good(&["epochs=1", "method=aflora-trainable"]);
        good(&["epochs=1", "method=lora"]);
    }
}

mod layers {
    use super::*;

    const TASK: &str = "task: mrpc\nmodel: minilm\nrun: {epochs: 21, lr: 0.1, seed: 1}\n\
                        run_for:\n  minilm: {epochs: 22, lr: 0.2}\n  deberta-v3-base: {seed: 5}\n";

    #[test]
    fn later_layers_win() {
        let model = (
            "models/minilm.yaml",
            "model: minilm\nbackbone: bert\nrun: {epochs: 20, eval_limit: 9}\n",
        );
        let method = ("methods/aflora.yaml", "method: aflora\nrun: {lr: 0.3}\n");
        let (_keep, path) =
            folder("task: mrpc\nlog_every: 7\n", &[("tasks/mrpc.yaml", TASK), model, method]);
        let run = load(&path, &["log_every=8".into()]).unwrap().run;
        assert_eq!(run.eval_limit, Some(9), "the model's");
        assert_eq!(run.seed, 1, "the task's");
        assert_eq!(run.epochs, 22, "the task's for this model");
        assert_eq!(run.lr, 0.3, "the method's");
        assert_eq!(run.log_every, 8, "the command line's");
        assert_eq!(load(&path, &[]).unwrap().run.log_every, 7, "the run file's");
    }

    #[test]
    fn a_method_can_choose_other_layers_than_the_model_says() {
        let method = ("methods/lora.yaml", "method: lora\ntarget_modules: [query, value]\n");
        let (_keep, path) = folder("task: reviews\nmethod: lora\n", &[method]);
        let model = load(&path, &[]).unwrap().model;
        assert_eq!(model.target_modules, Pattern::Names(vec!["query".into(), "value".into()]));
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
        let folders = ["configs/tasks", "configs/models", "configs/methods", "experiments/deep"];
        folders.iter().for_each(|f| fs::create_dir_all(project.path().join(f)).unwrap());
        for file in ["tasks/reviews.yaml", "models/minilm.yaml", "methods/aflora.yaml"] {
            fs::copy(configs().join(file), project.path().join("configs").join(file)).unwrap();
        }
        let path = project.path().join("experiments/deep/one.yaml");
        fs::write(&path, "task: reviews\n").unwrap();
        let run = load(&path, &[]).unwrap();
        assert_eq!(run.name(), "reviews-minilm-aflora-seed42");
        assert_eq!(run.project, project.path().canonicalize().unwrap());
    }

    #[test]
    fn what_was_resolved_can_be_loaded_again() {
        let project = configs().parent().unwrap().canonicalize().unwrap();
        let inside = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = inside.path().join("config.yaml");
        assert!(path.canonicalize().is_err() && inside.path().starts_with(&project));
        for overrides in [
            &["method=aflora-text", "method.freeze.t_i=100 steps", "adamw.eps=1e-12"][..],
            &["method=aflora-trainable", "data=some folder", "run_dir=2024", "threads=2"],
            &["method=lora", "task=mrpc", "model.target_modules='.*\\.query'", "lr=1.25e-5"],
            &["method=head", "task=stsb", "model=minilm", "limit=7", "max_grad_norm=null"],
        ] {
            let first = good(overrides);
            fs::write(&path, first.to_yaml().unwrap()).unwrap();
            let again = load(&path, &[]).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(again, first, "{}", first.to_yaml().unwrap());
            assert_eq!(again.name(), first.name());
        }
        // And a block named anew takes the place of the one that was written out.
        let other = load(&path, &["method=aflora".into()]).unwrap();
        assert_eq!(other.name(), "stsb-minilm-aflora-seed42");
    }
}

mod errors {
    use super::*;

    #[test]
    fn all_problems_of_all_files_are_shown_at_once() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/broken");
        let overrides = ["model.layer=[1]".to_string(), "device=tpu".to_string()];
        let printed = load(&fixtures.join("run.yaml"), &overrides).unwrap_err().to_string();
        let printed = printed.replace(&format!("{}/", fixtures.display()), "") + "\n";
        let golden = fixtures.join("errors.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &printed).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap();
        assert_eq!(printed, expected, "if the new text is better: UPDATE_GOLDEN=1 cargo test");
    }

    #[test]
    fn a_missing_run_file_names_those_that_exist() {
        let (keep, _) = folder("task: reviews\n", &[]);
        let errors = load(&keep.path().join("runn.yaml"), &["epochs=0".into()]).unwrap_err();
        let printed = errors.to_string();
        assert!(printed.contains("did you mean `run.yaml`?"), "{printed}");
        assert!(printed.contains("`epochs` is 0"), "{printed}");
        assert_eq!(errors.0.len(), 2, "{printed}");
    }

    #[test]
    fn a_broken_file_hides_no_mistake_of_another() {
        let task = ("tasks/mrpc.yaml", "task: mrpc\nrun: {lr: 1\n");
        let (_keep, path) = folder("task: mrpc\nmodel: minilm\nlr: quick\n", &[task]);
        let errors = load(&path, &["method.rank=0".into()]).unwrap_err();
        let printed = errors.to_string();
        assert_eq!(errors.0.len(), 3, "{printed}");
        for part in ["mrpc.yaml:2:6", "run.yaml:3:5", "command line:1:13"] {
            assert!(printed.contains(part), "{part} is missing in\n{printed}");
        }
    }

    #[test]
    fn a_file_that_sets_nothing_lacks_a_task() {
        for text in ["", "# nothing\n", "{}\n", "model: minilm\n"] {
            let (_keep, path) = folder(text, &[]);
            let printed = load(&path, &[]).unwrap_err().to_string();
            assert!(printed.contains("no task is named"), "{printed}");
        }
    }

    #[test]
    fn a_file_that_is_no_text_is_refused() {
        let (keep, path) = folder("", &[]);
        fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
        let printed = load(&path, &[]).unwrap_err().to_string();
        assert!(printed.contains("cannot read"), "{printed}");
        let printed = load(keep.path(), &[]).unwrap_err().to_string();
        assert!(printed.contains("cannot read"), "{printed}");
    }

    #[test]
    fn nesting_without_end_is_refused() {
        let (_keep, path) = folder(&"[".repeat(100_000), &[]);
        assert!(load(&path, &[]).is_err());
        assert!(shipped(&[&format!("lr={}", "{a: ".repeat(10_000))]).is_err());
    }
}

/// Texts that are often almost right.
fn yaml() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        "[ \\n:{}\\[\\],'\"#&*!|>%@`=.-]{1,3}",
        "\\PC{0,6}",
        prop::sample::select(vec![
            "task", "model", "method", "run", "run_for", "minilm", "lr", "adamw", "freeze", "mrpc",
            ": ", "\n", "\n  ", "null", "1e-2", ".nan", "70%", "&a ", "*a", "<<: ", "---\n", "- ",
        ])
        .prop_map(str::to_string),
    ];
    prop::collection::vec(token, 0..24).prop_map(|tokens| tokens.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_in_a_file_makes_it_panic(text in yaml(), block in yaml()) {
        let blocks = [("tasks/mrpc.yaml", block.as_str()), ("methods/aflora.yaml", &block)];
        let (_keep, path) = folder(&text, &blocks);
        for overrides in [vec![], vec!["task=mrpc".to_string()]] {
            if let Err(errors) = load(&path, &overrides) {
                prop_assert!(!errors.to_string().is_empty());
            }
        }
    }

    #[test]
    fn no_override_makes_it_panic(
        key in "[a-z_.]{0,8}|task|model|method|method\\.freeze|lr|model\\.layers|run_dir",
        value in yaml(),
        odd in "\\PC{0,12}",
    ) {
        for overrides in [vec![format!("{key}={value}")], vec![odd.clone(), format!("{key}={odd}")]] {
            if let Err(errors) = load(&configs().join("experiment.yaml"), &overrides) {
                prop_assert!(!errors.to_string().is_empty());
            }
        }
    }
}

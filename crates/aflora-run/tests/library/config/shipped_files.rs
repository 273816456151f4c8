//! Every file in configs/ loads, and says what it should.

use super::*;
use aflora_run::experiment::grid::{Choice, Plan};

#[test]
fn each_two_of_the_tasks_models_and_methods_can_be_combined() {
    let (tasks, models, methods) = (names("tasks"), names("models"), names("methods"));
    assert_eq!((tasks.len(), models.len(), methods.len()), (12, 18, 17));
    for (t, task) in tasks.iter().enumerate() {
        for (m, model) in models.iter().enumerate() {
            // The first of either meets every method, any other two meet one.
            let combined = match t == 0 || m == 0 {
                true => 0..methods.len(),
                false => (t + m) % methods.len()..(t + m) % methods.len() + 1,
            };
            for method in &methods[combined] {
                let run = good(&[
                    &format!("task={task}"),
                    &format!("model={model}"),
                    &format!("method={method}"),
                    // Few epochs leave no room for an epoch before the freezing.
                    "epochs=20",
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
fn a_shipped_model_has_a_config_of_its_own_backbone_with_the_usual_targets() {
    for name in names("models") {
        let model = good(&[&format!("model={name}")]).model;
        let usual =
            aflora_models::kind_of(&configs().join("models").join(&name).join("config.json"));
        let usual = usual.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(usual.kind, model.backbone, "{name}");
        // It stands in for LLaMA in Table 2, and adapts the same layers.
        if name == "qwen2.5-coder-0.5b" {
            let llama = good(&["model=llama-7b"]).model.target_modules;
            assert_eq!(model.target_modules, llama);
            continue;
        }
        let targets = usual.targets.iter().map(|target| target.to_string()).collect();
        assert_eq!(Pattern::Names(targets), model.target_modules, "{name}");
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
        (r.update.lr, r.update.head_lr, r.update.weight_decay, r.update.max_grad_norm),
        (1e-2, 4e-2, 0.1, Some(0.1))
    );
    assert_eq!(r.update.warmup, Span::Share(0.06));
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
    assert_eq!((run.update.lr, run.update.head_lr), (5e-3, 2e-3));
}

#[test]
fn the_methods_are_what_their_names_say() {
    let freeze = |method: &str| match good(&[&format!("method={method}")]).method {
        MethodConfig::Aflora(config) => (config.freeze.mode, config.freeze.rule),
        other => panic!("{other:?}"),
    };
    assert_eq!(freeze("aflora"), (FreezeMode::Adaptive, Rule::ElementQuantile));
    assert_eq!(freeze("aflora-text"), (FreezeMode::Adaptive, Rule::MatrixRank));
    assert_eq!(freeze("aflora-late"), (FreezeMode::Adaptive, Rule::MatrixRank));
    assert_eq!(freeze("aflora-frozen").0, FreezeMode::Start);
    assert_eq!(freeze("aflora-trainable").0, FreezeMode::Never);
    assert!(matches!(good(&["method=lora"]).method, MethodConfig::Lora(_)));
    assert!(!good(&["method=head"]).method.build().unwrap().adapts());
}

#[test]
fn the_papers_generation_tasks_have_its_models_and_settings() {
    let run = good(&["task=gsm8k"]);
    assert_eq!(run.name(), "gsm8k-llama-7b-aflora-gsm8k-seed42");
    assert_eq!((run.run.epochs, run.run.batch_size, run.run.max_length), (3, 1, 256));
    assert_eq!((run.run.update.lr, run.run.update.warmup), (2e-3, Span::Steps(100)));
    assert!(run.task.train_on_inputs);
    assert_eq!(run.task.generation.num_beams, Some(4));
    let MethodConfig::Aflora(config) = run.method else { panic!("{:?}", run.method) };
    assert_eq!((config.rank, config.alpha, config.dropout), (32, Some(64.0), 0.05));
    let freeze = config.freeze;
    assert_eq!((freeze.t_i, freeze.t_f), (Span::Share(0.3), Span::Share(0.3)));
    assert_eq!(freeze.exponent, 2.0);
    let run = good(&["task=cnn_dailymail"]);
    assert_eq!(run.model.model, "bart-large");
    assert_eq!((run.run.max_length, run.task.max_target_length), (1024, 160));
}

#[test]
fn every_cell_of_every_experiment_resolves_in_every_profile() {
    // Cells differ in their seeds by a number alone.
    let overrides = vec!["seeds=[0]".to_string()];
    let folder = configs().join("../experiments");
    let files = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    let files: Vec<_> = files.filter(|p| p.extension().is_some_and(|e| e == "yaml")).collect();
    assert!(files.len() >= 14, "{files:?}");
    for file in files {
        if file.ends_with("shipped.yaml") {
            continue; // It has a profile of its own, and a test.
        }
        let gsm8k = file.ends_with("table2.yaml") || file.ends_with("freezing-gsm8k.yaml");
        for profile in ["paper", "base", "small", "smol", "qwen"] {
            // Encoders do not write, and the small decoders are for one task.
            let none_of_its_tasks = match profile {
                "base" => gsm8k || file.ends_with("table3.yaml"),
                "smol" | "qwen" => !gsm8k,
                _ => false,
            };
            let (profile, overrides) = (profile.to_string(), overrides.clone());
            let choice = Choice { profile, overrides, filter: None };
            let plan = Plan::new(&file, &choice);
            let plan = match plan {
                Err(error) if error.to_string().contains("has none of the experiment's tasks") => {
                    assert!(none_of_its_tasks, "{}", file.display());
                    continue;
                }
                plan => plan.unwrap_or_else(|error| panic!("{}: {error:#}", file.display())),
            };
            let small = |model: &str| model == "minilm" || model.starts_with("tiny-");
            let mut models = plan.cells.iter().map(|cell| cell.resolved.model.model.as_str());
            assert!(
                models.all(|model| small(model) == (plan.profile == "small")),
                "{}",
                file.display()
            );
        }
    }
}

/// What `shipped.yaml` runs is what a run has that is told its task and model alone.
#[test]
fn the_settings_as_they_come_are_those_that_their_experiment_runs() {
    let file = configs().join("../experiments/shipped.yaml");
    let choice = Choice { profile: "plain".into(), ..Choice::default() };
    let plan = Plan::new(&file, &choice).unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(plan.cells.len(), 2 * 6 * 6 * 2);
    for cell in plan.cells {
        let cell = cell.resolved;
        let settings = cell.settings();
        let (task, model) = (&cell.task.task, &cell.model.model);
        let mut words = vec![format!("task={task}"), format!("model={model}")];
        words.extend(["seed", "precision"].map(|key| format!("{key}={}", settings[key])));
        words.extend((task == "sst2").then(|| "limit=20000".to_string()));
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        assert_eq!(settings, good(&words).settings(), "{}", cell.name());
    }
}

/// docs/freezing-study.md counts its cells, and says of every rule but the published one that it has the
/// schedule of the others and the rate of the matrices that train to the end.
#[test]
fn the_study_of_freezing_compares_what_its_protocol_says() {
    let plan = |name: &str, profile: &str, overrides: &[&str]| {
        let file = configs().join("../experiments").join(name);
        let overrides = overrides.iter().map(|o| o.to_string()).collect();
        let choice = Choice { profile: profile.into(), overrides, ..Choice::default() };
        Plan::new(&file, &choice).unwrap_or_else(|error| panic!("{name}: {error:#}"))
    };
    for (profile, model) in [("small", "minilm"), ("base", "mpnet-base")] {
        let judged = plan("freezing.yaml", profile, &["seeds=[0,1,2,3,4]"]);
        assert_eq!(judged.cells.len(), 11 * 5 * 5, "{profile}");
        let tuned = plan("freezing-tuning.yaml", profile, &[]);
        assert_eq!(tuned.cells.len(), 21 * 2 * 3, "{profile}");
        for cell in judged.cells.iter().chain(&tuned.cells) {
            assert_eq!(cell.resolved.model.model, model);
            assert_eq!(cell.resolved.run.update.lr, 5e-3, "{}", cell.resolved.name());
        }
        let ours =
            judged.cells.iter().filter_map(|cell| cell.resolved.method.settings().freezing());
        let ours = ours.filter(|freeze| freeze.is_adaptive() && freeze.t_f != Span::Share(0.7));
        for freeze in ours {
            // MiniLM's candidate has a schedule of its own, of which a quarter stays.
            let (t_i, exponent) = if freeze.final_share < 1.0 { (0.05, 8.0) } else { (0.1, 3.0) };
            assert_eq!((freeze.t_i, freeze.t_f), (Span::Share(t_i), Span::Share(0.0)));
            assert_eq!(freeze.exponent, exponent);
        }
    }
}

#[test]
fn a_name_opens_nothing_outside_its_folder() {
    assert!(bad(&["method=../../secret"]).contains("../../secret"));
}

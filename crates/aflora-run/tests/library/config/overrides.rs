//! `key=value` on the command line.

use super::*;

#[test]
fn the_command_line_wins_and_its_last_word_most() {
    let run = good(&["epochs=8", "lr=1e-3", "epochs=9", "max_grad_norm=null", "warmup=10%"]);
    assert_eq!((run.run.epochs, run.run.update.lr), (9, 1e-3));
    assert_eq!((run.run.update.max_grad_norm, run.run.update.warmup), (None, Span::Share(0.1)));
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
    let adamw = run.run.update.adamw;
    assert_eq!((adamw.beta1, adamw.beta2, adamw.eps), (0.8, 0.999, 1e-6));
}

/// Each is wrong beside the default rule, and told at the rule.
#[test]
fn a_rule_and_what_not_every_rule_can_do_are_set_in_any_order() {
    let (rule, thaw) = ("method.freeze.rule=own_peak", "method.freeze.thaw=true");
    let share = "method.freeze.final_share=0.75";
    for overrides in [[rule, thaw, share], [share, thaw, rule]] {
        let MethodConfig::Aflora(config) = good(&overrides).method else { panic!("aflora") };
        assert!(config.freeze.thaw && config.freeze.final_share == 0.75);
    }
    for alone in [thaw, share] {
        assert!(bad(&[alone]).contains("`freeze.rule` is element_quantile"), "{}", bad(&[alone]));
    }
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
fn settings_of_one_schedule_go_with_it_and_no_other() {
    let run = good(&["lr_power=2", "min_lr_ratio=0.1", "lr_schedule=polynomial"]);
    assert_eq!((run.run.update.lr_power, run.run.update.min_lr_ratio), (2.0, 0.1));
    let told = bad(&["min_lr_ratio=0.1", "lr_schedule=constant"]).to_string();
    assert!(told.contains("`min_lr_ratio` has no say: `lr_schedule` is constant"), "{told}");
}

#[test]
fn a_rule_or_score_that_adaptive_rank_would_pass_over_is_refused() {
    for typed in ["method.freeze.rule=matrix_rank", "method.freeze.score=relative_gradient"] {
        let told = bad(&["method=aflora-rank", typed]).to_string();
        assert!(told.contains("must be left out: components freeze by rank of |g|"), "{told}");
    }
    good(&["method=aflora-rank", "method.freeze.rule=element_quantile"]);
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
        ("lr_schedule=cosin", ["`lr_schedule` cannot be `cosin`", "did you mean `cosine`?"]),
        ("lr_power=2", ["`lr_power` has no say", "`lr_schedule` is linear"]),
        ("min_lr_ratio=1", ["`min_lr_ratio` is 1", "below 1"]),
        ("device=gpu", ["`device`: `gpu` is no device", "`cuda:N`"]),
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
        (
            "model.backbone=''",
            ["no `backbone`; write `backbone: kind`, one of: albert, bart, bert, deb", "llama"],
        ),
        ("model={model: ../../mine, backbone: bert}", ["`model` is \"../../mine\"", "no `/`"]),
        ("method.name=a/b", ["`name` is \"a/b\"", "command line:1:13"]),
        ("method={method: sora, freeze: never}", ["there is no key `freeze`", "dropout"]),
        ("adamw=3", ["`adamw` is a group of keys", "beta1, beta2, eps"]),
        ("lr.peak=3", ["`lr` has no keys below", "write `lr: value`"]),
        ("task.run=3", ["`run` is a group of keys", "run: {epochs: 3}"]),
        ("task.run_for.minlm.lr=3", ["`minlm` is no model", "did you mean `minilm`?"]),
        ("task.kind=clasify", ["`kind` cannot be `clasify`", "did you mean `classify`?"]),
        ("task.metrics=[acuracy]", ["`metrics` cannot be `acuracy`", "did you mean `accuracy`?"]),
        ("task.metrics=[rouge1]", ["`rouge1` judges texts, but the task asks for labels", "1:14"]),
        ("task.labels=[fresh]", ["`labels` has 1 classes", "command line:1:13"]),
        ("task.labels=[0.5, 1]", ["`labels` holds 0.5", "a text, in quotes"]),
        ("task.label_names=[a]", ["has 1 names for 2 labels", "command line:1:18"]),
        ("task.class_weights=[1]", ["`class_weights` has 1 weights for 2 labels", "1:20"]),
        ("task.class_weights=[1, 0]", ["`class_weights` holds 0, but must be positive", "1:20"]),
        ("task.class_weights=even", ["`class_weights` cannot be `even`", "balanced"]),
        ("task.range=[0, 1]", ["`range` has no say in the task `reviews`", "asks for labels"]),
        (
            "task={task: mine, labels: [a, b]}",
            ["there is no task `mine`", "does not say of which kind"],
        ),
        ("task={task: ../up, kind: write}", ["`task` is \"../up\"", "no `/`"]),
        ("task.dataset.evaluate_on=[train]", ["must hold names other than `train`", "1:26"]),
        (
            "task.dataset.sources.own.fils=x",
            ["there is no key `dataset.sources.own.fils`", "files"],
        ),
        ("task.dataset.sources.own.files=x", ["is a group of keys", "{name: value}`"]),
        (
            "task.dataset.sources.own.files.dev=[3]",
            ["holds 3, but each value must be a text", "1:36"],
        ),
        ("task.dataset.sources.own.files.test=a", ["files.test` is of no split", "1:37"]),
        ("task.dataset.sources.own.files.dev=../a", ["no `..`, no leading `/`", "command line"]),
        ("task.dataset.sources.own.columns.body=a", ["must be {text: …, label: …} or", "text_b"]),
        ("task.dataset.sources.new.repo=a/b", ["must be a commit of the hub's", "columns"]),
        ("lr=[1", ["cannot be read as YAML", "command line:1:4"]),
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
    let printed = bad(&["method.freeze.t_i=40%"]);
    assert!(printed.contains("is 40% + 70%, more than the whole of any run"), "{printed}");
    assert!(printed.contains("command line:1:"), "{printed}");
    good(&["method.freeze.t_i=30%"]);
    good(&["method.freeze.t_i=40%", "method=aflora-trainable"]);
    // Epochs give way in a short run.
    good(&["epochs=2"]);
    good(&["epochs=1"]);
    good(&["epochs=1", "method=lora"]);
}

//! Runs that stop and go on: by a signal, with damaged checkpoints, on a full disk, twice at
//! once, with other settings or files.

use crate::common::stopping::{checkpoints, signal, start, step_of, stopped, wait_for, OFTEN, RUN};
use crate::common::{
    aflora, assert_same, command, json, outcome, refused, run, small, text, workplace, CONFIG,
    SMALL,
};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The outcome of [`RUN`] when nothing happens to it.
fn unbroken(place: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let output = run(place, &[&RUN[..], &["run_dir=whole", "checkpoint_every=never"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    outcome(&place.join("whole"))
}

/// Goes on with the run and holds it against the unbroken one; gives what it said.
fn goes_on(place: &Path) -> String {
    let output = run(place, &[&RUN[..], &[OFTEN]].concat());
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_same(&unbroken(place), &outcome(&place.join("out")), &said);
    said
}

#[test]
fn a_signal_finishes_the_step_and_the_same_command_goes_on() {
    for (number, code, name) in [(libc::SIGINT, 130, "SIGINT"), (libc::SIGTERM, 143, "SIGTERM")] {
        let place = workplace();
        let output = stopped(place.path(), number, &[OFTEN]);
        refused(&output, code, &format!("stopped by {name}; the same command goes on"));
        let out = place.path().join("out");
        let position = |path: &Path| json(&path.join("state.json"))["position"]["step"].clone();
        let last = checkpoints(&out).last().map(|path| position(path)).unwrap();
        let said = goes_on(place.path());
        assert!(said.contains(&format!("goes on behind step {last} of 96")), "{said}");
        assert_eq!(json(&out.join("provenance.json"))["resumed"][0]["step"], last);
        assert!(!out.join("checkpoint").exists());
    }
}

#[test]
fn a_run_whose_data_the_environment_named_goes_on_with_the_variable_and_without_it() {
    let settings = [&["run", CONFIG], &SMALL[..], &RUN[..], &[OFTEN]].concat();
    let written = ["run", "out/config.yaml"];
    for (again, variable) in
        [(&settings[..], None), (&settings, Some(".")), (&written, None), (&written, Some("glue"))]
    {
        let place = workplace();
        let mut begun = command(place.path(), &settings);
        begun.env("AFLORA_DATA", ".").stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = begun.spawn().unwrap();
        wait_for("two checkpoints", || checkpoints(&place.path().join("out")).len() == 2);
        signal(&child, libc::SIGTERM);
        refused(&child.wait_with_output().unwrap(), 143, "stopped by SIGTERM");
        let mut again = command(place.path(), again);
        again.envs(variable.map(|folder| ("AFLORA_DATA", folder)));
        let output = again.output().unwrap();
        let said = text(&output.stderr);
        assert!(output.status.success() && said.contains("goes on behind step"), "{said}");
    }
}

#[test]
fn a_signal_makes_a_checkpoint_even_where_there_never_is_one() {
    let place = workplace();
    let child = start(place.path(), &[&RUN[..], &["checkpoint_every=never"]].concat());
    let events = place.path().join("out/events.jsonl");
    wait_for("events", || events.metadata().is_ok_and(|about| about.len() > 4000));
    signal(&child, libc::SIGTERM);
    refused(&child.wait_with_output().unwrap(), 143, "stopped by SIGTERM");
    assert_eq!(checkpoints(&place.path().join("out")).len(), 1);
    assert!(goes_on(place.path()).contains("goes on behind step"));
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let place = workplace();
    let child = start(place.path(), &[&RUN[..], &[OFTEN, "epochs=5000"]].concat());
    wait_for("a checkpoint", || !checkpoints(&place.path().join("out")).is_empty());
    // Stopped, it gets both signals before it can act on one.
    signal(&child, libc::SIGSTOP);
    signal(&child, libc::SIGINT);
    signal(&child, libc::SIGTERM);
    signal(&child, libc::SIGCONT);
    let output = child.wait_with_output().unwrap();
    assert!(matches!(output.status.code(), Some(130 | 143)), "{:?}", output.status);
    assert!(!text(&output.stderr).contains("stopped by"), "it took its time to say so");
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before_and_without_any_the_run_starts_anew() {
    let damage: [fn(&Path); 4] = [
        |path| {
            let file = path.join("state.safetensors");
            let mut bytes = fs::read(&file).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(file, bytes).unwrap();
        },
        |path| {
            let file = fs::File::options().write(true).open(path.join("state.json")).unwrap();
            file.set_len(100).unwrap();
        },
        |path| fs::remove_file(path.join("manifest.json")).unwrap(),
        |path| fs::remove_file(path.join("state.safetensors")).unwrap(),
    ];
    for (case, harm) in damage.iter().enumerate() {
        let place = workplace();
        stopped(place.path(), libc::SIGKILL, &[OFTEN]);
        let found = checkpoints(&place.path().join("out"));
        let (last, before) = (&found[found.len() - 1], &found[found.len() - 2]);
        harm(last);
        if case == 3 {
            harm(before);
        }
        let said = goes_on(place.path());
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(said.contains(&format!("{} cannot be used", name(last))), "{case}: {said}");
        match case {
            3 => assert!(said.contains("it starts anew"), "{said}"),
            _ => assert!(said.contains("goes on behind step"), "{case}: {said}"),
        }
    }
}

#[test]
fn a_log_that_was_cut_short_makes_its_checkpoint_useless_not_the_run() {
    let place = workplace();
    stopped(place.path(), libc::SIGKILL, &[OFTEN]);
    fs::write(place.path().join("out/events.jsonl"), "").unwrap();
    assert!(goes_on(place.path()).contains("events.jsonl had"));
}

#[test]
fn the_best_adapter_comes_back_with_its_checkpoint() {
    let place = workplace();
    // No epoch is better than the first: what it wrote is not written again.
    let still = ["lr=0", "head_lr=0"];
    let child = start(place.path(), &[&RUN[..], &[OFTEN], &still].concat());
    let out = place.path().join("out");
    wait_for("a checkpoint of an epoch", || checkpoints(&out).iter().any(|c| step_of(c) >= 8));
    signal(&child, libc::SIGKILL);
    child.wait_with_output().unwrap();
    let weights = place.path().join("out/adapter/adapter_model.safetensors");
    let before = fs::read(&weights).unwrap();
    // As if it had been killed while an adapter took the other's place.
    fs::remove_dir_all(place.path().join("out/adapter")).unwrap();
    fs::create_dir(place.path().join("out/.adapter.a1b2c3.tmp")).unwrap();
    let output = run(place.path(), &[&RUN[..], &still].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("goes on behind step"));
    assert_eq!(fs::read(&weights).unwrap(), before);
    assert!(!place.path().join("out/.adapter.a1b2c3.tmp").exists());
    let metrics = json(&place.path().join("out/metrics.json"));
    assert_eq!(metrics["best"]["epoch"], 1.0);
}

#[test]
fn other_settings_are_refused_with_the_difference_and_places_do_not_count() {
    let place = workplace();
    stopped(place.path(), libc::SIGKILL, &[OFTEN]);
    let other = [&RUN[..], &["lr=0.125", "method.rank=2", "token_cache=null"]].concat();
    let output = run(place.path(), &other);
    refused(&output, 2, "lr: 0.005 there, 0.125 here");
    refused(&output, 2, "method.rank: 4 there, 2 here");
    assert!(!text(&output.stderr).contains("token_cache"));
    // Under another name of the same place, with the data elsewhere.
    let moved = place.path().join("elsewhere");
    fs::create_dir(&moved).unwrap();
    for name in ["glue", "minilm"] {
        fs::rename(place.path().join(name), moved.join(name)).unwrap();
    }
    let there =
        [&RUN[..], &["run_dir=./out", "data=elsewhere", "checkpoint_every=1 epoch"]].concat();
    let output = run(place.path(), &there);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("goes on behind step"));
}

#[test]
fn other_data_or_weights_are_refused() {
    for (file, words) in [
        ("glue/MRPC/dev.tsv", "data dev"),
        ("minilm/model.safetensors", "weights model.safetensors"),
    ] {
        let place = workplace();
        stopped(place.path(), libc::SIGKILL, &[OFTEN]);
        let path = place.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        // A letter of a text, the last bit of a weight.
        let at = bytes.len() - 4;
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
        refused(&run(place.path(), &RUN), 2, words);
    }
}

#[test]
fn a_finished_run_is_told_again_and_an_unfinished_one_without_a_name_is_found() {
    let place = workplace();
    let short = ["task=mrpc", "method=head", "epochs=1"];
    let name = "runs/mrpc-minilm-head-seed42";
    let first = run(place.path(), &short);
    let again = run(place.path(), &[&short[..], &[&format!("run_dir={name}")]].concat());
    assert_eq!((first.status.code(), again.status.code()), (Some(0), Some(0)));
    assert!(text(&again.stderr).contains("finished already"), "{}", text(&again.stderr));
    assert_eq!(text(&first.stdout), text(&again.stdout));

    let long = ["task=mrpc", "method=head", "epochs=40", OFTEN];
    let child = start(place.path(), &long);
    let second = place.path().join(format!("{name}-2"));
    wait_for("a checkpoint", || !checkpoints(&second).is_empty());
    signal(&child, libc::SIGKILL);
    child.wait_with_output().unwrap();
    let output = run(place.path(), &long);
    assert!(text(&output.stdout).starts_with(&format!("{name}-2\n")), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("goes on behind step"));
    // Other settings get a folder of their own.
    let output = run(place.path(), &[&long[..], &["epochs=2"]].concat());
    assert!(text(&output.stdout).starts_with(&format!("{name}-3\n")), "{}", text(&output.stdout));
}

#[test]
fn two_processes_do_not_write_one_folder() {
    let place = workplace();
    let long = [&RUN[..], &[OFTEN, "epochs=5000"]].concat();
    let child = start(place.path(), &long);
    wait_for("a checkpoint", || !checkpoints(&place.path().join("out")).is_empty());
    let second = run(place.path(), &long);
    refused(&second, 2, &format!("is being written by process {}", child.id()));
    signal(&child, libc::SIGKILL);
    child.wait_with_output().unwrap();
}

#[test]
fn a_full_disk_loses_nothing_that_was_there() {
    let place = workplace();
    stopped(place.path(), libc::SIGKILL, &[OFTEN]);
    // A limit of 12 KiB a file stands for the full disk: a checkpoint needs more.
    let limited = "trap '' XFSZ; ulimit -f 12; exec \"$0\" \"$@\"";
    let mut arguments = vec!["-c", limited, env!("CARGO_BIN_EXE_aflora")];
    arguments.extend(small(&[&RUN[..], &[OFTEN]].concat()));
    let output = std::process::Command::new("bash")
        .args(arguments)
        .current_dir(place.path())
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap();
    refused(&output, 1, "File too large");
    refused(&output, 1, "no checkpoint: ");
    let found = checkpoints(&place.path().join("out"));
    assert_eq!(found.len(), 2);
    assert!(goes_on(place.path()).contains("goes on behind step"));
}

#[test]
fn a_checkpoint_of_another_version_is_not_taken_for_a_damaged_one() {
    let place = workplace();
    stopped(place.path(), libc::SIGKILL, &[OFTEN]);
    for path in checkpoints(&place.path().join("out")) {
        let file = path.join("manifest.json");
        let mut manifest = json(&file);
        manifest["format"] = 99.into();
        fs::write(&file, manifest.to_string()).unwrap();
    }
    refused(&run(place.path(), &RUN), 2, "has format 99");
    assert_eq!(checkpoints(&place.path().join("out")).len(), 2);
}

#[test]
fn a_run_whose_gradients_are_not_finite_keeps_its_last_good_state() {
    let place = workplace();
    let hot = [
        "task=mrpc",
        "lr=1e30",
        "head_lr=1e30",
        "max_grad_norm=null",
        "warmup=12 steps",
        "max_bad_steps=3",
        "log_every=1",
        "checkpoint_every=1 step",
        "run_dir=out",
    ];
    let output = run(place.path(), &hot);
    refused(&output, 1, "not finite in 3 steps in a row");
    refused(&output, 1, "training rows ");
    let found = checkpoints(&place.path().join("out"));
    let state = json(&found[0].join("state.json"));
    assert!(state["position"]["skipped"].as_u64().unwrap() >= 1, "{state}");
    // Nothing that is not finite got in.
    let tensors =
        aflora_models::weights::read_tensors(&found[0].join("state.safetensors")).unwrap();
    for (name, tensor) in tensors {
        assert_eq!(tensor.isfinite().all().int64_value(&[]), 1, "{name}");
    }
    // It does the same again, from where it was.
    refused(&run(place.path(), &hot), 1, "not finite in 3 steps in a row");
}

/// With lr=1000 and worse, most steps moved nothing, the loss "stood", and the run ended well.
#[test]
fn a_run_of_which_most_steps_moved_nothing_is_no_success() {
    let place = workplace();
    let hot = [
        "task=mrpc",
        "lr=1e30",
        "head_lr=1e30",
        "max_grad_norm=null",
        "warmup=2 steps",
        "max_bad_steps=1000",
        "run_dir=out",
    ];
    let output = run(place.path(), &hot);
    refused(&output, 1, "of 24 steps");
    refused(&output, 1, "A smaller lr (it is 1e30");
    let said = text(&output.stderr);
    assert!(!said.contains("too small") && !said.contains("do not take part"), "{said}");
    assert!(!place.path().join("out/metrics.json").exists());
}

#[test]
fn a_result_that_is_a_guess_is_told_as_one() {
    let place = workplace();
    let still = ["task=mrpc", "lr=0", "head_lr=0", "run_dir=still"];
    let output = run(place.path(), &still);
    assert!(output.status.success());
    let said = text(&output.stderr);
    assert_eq!(said.matches("no better than a guess: dev: ").count(), 1, "{said}");
    // Which of them hangs on how the batches differ.
    assert!(said.contains("larger rates") || said.contains("other rates"), "{said}");
    let learns = ["task=mrpc", "epochs=30", "lr=3e-2", "max_grad_norm=1", "run_dir=learns"];
    let output = run(place.path(), &learns);
    assert!(output.status.success());
    assert!(!text(&output.stderr).contains("no better than a guess"));
}

/// So few steps that one loss is recorded, long after the explosion.
#[test]
fn a_short_run_that_exploded_says_so() {
    let place = workplace();
    let hot = ["method=full", "lr=100", "head_lr=100", "warmup=0 steps", "epochs=1", "run_dir=out"];
    let output = run(place.path(), &[&["task=mrpc", "max_grad_norm=null"], &hot[..]].concat());
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("the training loss rose, from "), "{said}");
}

#[test]
fn a_loss_that_does_not_move_is_told() {
    let place = workplace();
    let still = [
        "task=mrpc",
        "lr=0",
        "head_lr=0",
        "method.dropout=0",
        "epochs=10",
        "log_every=1",
        "limit=16",
        "batch_size=16",
        "run_dir=out",
    ];
    let output = run(place.path(), &[&still[..], &["epochs=60"]].concat());
    assert!(output.status.success());
    let said = text(&output.stderr);
    assert_eq!(said.matches("loss has stood at").count(), 1, "{said}");
}

/// `AFLORA_MEMORY_STEPS` sets how long it watches.
#[test]
fn memory_stays_flat() {
    let place = workplace();
    let steps = std::env::var("AFLORA_MEMORY_STEPS").ok().and_then(|n| n.parse().ok());
    let steps: u64 = steps.unwrap_or(1500);
    let long = ["task=mrpc", "batch_size=2", "epochs=5000", "eval_limit=16", "run_dir=out"];
    let child = start(place.path(), &[&long[..], &["checkpoint_every=50 steps"]].concat());
    let resident = || -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let out = place.path().join("out");
    let step = || checkpoints(&out).last().map_or(0, |path| step_of(path));
    let mut samples = Vec::new();
    for tenth in 1..=10 {
        let at = steps * tenth / 10;
        let started = Instant::now();
        while step() < at {
            assert!(started.elapsed() < Duration::from_secs(300), "step {at} never came");
            std::thread::sleep(Duration::from_millis(2));
        }
        samples.push(resident());
    }
    signal(&child, libc::SIGKILL);
    child.wait_with_output().unwrap();
    println!("kB after each tenth of {steps} steps: {samples:?}");
    // Half of a kilobyte a step, which is less than its batch: nothing stays behind.
    let grown = samples[9].saturating_sub(samples[1]);
    assert!(grown < 2048 + steps / 4, "{samples:?}");
}

#[test]
fn a_batch_size_of_auto_is_a_number_in_the_end() {
    let place = workplace();
    let auto = ["task=mrpc", "method=head", "epochs=1", "batch_size=auto", "run_dir=out"];
    let output = run(place.path(), &auto);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let config = fs::read_to_string(place.path().join("out/config.yaml")).unwrap();
    // SMALL's, over which it stands.
    assert!(config.contains("batch_size: 16\n"), "{config}");
    assert!(text(&run(place.path(), &auto).stderr).contains("finished already"));
    refused(&run(place.path(), &["task=mrpc", "batch_size=some", "run_dir=out"]), 2, "batch_size");
}

#[test]
fn a_folder_that_cannot_be_written_is_told_before_anything_is_lost() {
    let place = workplace();
    fs::write(place.path().join("file"), "").unwrap();
    refused(&run(place.path(), &["task=mrpc", "run_dir=file/out"]), 2, "cannot be made");
    refused(&run(place.path(), &["task=mrpc", "run_dir=file"]), 2, "name a folder");
    // Before anything is read: there are no data of this name.
    for folder in ["/proc/nope", "/dev/null"] {
        let given = format!("run_dir={folder}");
        refused(&run(place.path(), &["task=mrpc", "data=none", &given]), 2, "cannot be made");
    }
    // A finished run is told wherever it lies.
    let short = ["task=mrpc", "method=head", "epochs=1", "run_dir=out"];
    assert!(run(place.path(), &short).status.success());
    let listed = aflora(place.path(), &["ls", "."]);
    assert!(text(&listed.stdout).contains("out "));
}

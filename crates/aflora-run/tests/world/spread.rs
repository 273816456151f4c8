//! Several processes that hold a model together, `shard_base: true`.

use super::common::stopping::{checkpoints, signal, wait_for};
use super::common::{aflora, assert_same, judged_task, refused, small, text};
use super::{children, good, launch, left, lines_task, losses, place, started};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// A run whose base is spread, and one of as many processes that hold it whole, must leave the same.
fn same_when_spread(place: &Path, name: &str, processes: usize, more: &[&str]) {
    let [whole, spread] = ["whole", "spread"].map(|how| format!("{name}-{how}"));
    let all = [&["log_every=1"], more].concat();
    let run_dir = format!("run_dir={whole}");
    good(&launch(place, processes, &[&all[..], &[&run_dir]].concat()));
    let run_dir = format!("run_dir={spread}");
    let said =
        good(&launch(place, processes, &[&all[..], &[&run_dir, "shard_base=true"]].concat()));
    assert_same(&left(&place.join(&whole)), &left(&place.join(&spread)), name);
    // What is told: 1/n of the blocks here, and two of them.
    let told = said.lines().find(|line| line.contains("frozen weights are spread over")).unwrap();
    let told = told.split_once(" spread over ").unwrap().1.replace(',', "");
    let numbers = told.split(' ').filter_map(|word| word.parse::<usize>().ok());
    let numbers: Vec<usize> = numbers.collect();
    let [n, own, all, rooms] = numbers[..] else { panic!("{told}") };
    assert_eq!((n, own * n), (processes, all), "{told}");
    assert!(rooms > 0 && rooms <= all, "{told}");
}

/// Updates of which some processes have no row or fewer passes, blocks that are run twice, texts that
/// are written by all at their own pace, few bits.
#[test]
fn a_spread_base_comes_to_the_bits_of_a_whole_one() {
    let place = place();
    lines_task(place.path());
    let pairs = ["task=mrpc", "max_steps=12", "batch_size=10", "accumulate=2", "lr=1e-3"];
    let texts = ["task=lines", "max_length=48", "epochs=2", "batch_size=4"];
    let with = |more: &[&'static str], of: &[&'static str]| [of, more].concat();
    for (name, processes, settings) in [
        ("aflora", 3, with(&["method=aflora", "limit=33", "method.dropout=0.1"], &pairs)),
        ("elora", 2, with(&["method=elora", "limit=21", "model=tiny-deberta"], &pairs)),
        ("adalora", 3, with(&["method=adalora", "limit=21", "precision=bf16"], &pairs)),
        ("few", 2, with(&["method=lora", "limit=33", "precision=nf4_nested"], &pairs)),
        ("bitfit", 2, with(&["method=bitfit", "limit=33"], &pairs)),
        (
            "decoder",
            3,
            with(&["model=tiny-llama", "method=lora", "model.gradient_checkpointing=true"], &texts),
        ),
        ("both", 2, with(&["model=tiny-bart", "method=lora"], &texts)),
    ] {
        same_when_spread(place.path(), name, processes, &settings);
    }
    // What it left is an adapter as any other.
    for how in ["whole", "spread"] {
        let (run, out) = (format!("aflora-{how}"), format!("merged-{how}"));
        good(&aflora(place.path(), &["merge", &run, &out]));
    }
    let merged = |how: &str| fs::read(place.path().join(format!("merged-{how}/model.safetensors")));
    assert!(merged("whole").unwrap() == merged("spread").unwrap());
}

#[test]
fn a_run_with_a_spread_base_is_gone_on_with_spread_or_not() {
    let place = place();
    judged_task(place.path());
    let whole = started(place.path(), 2, &["run_dir=whole"]).wait_with_output().unwrap();
    good(&whole);
    let run = place.path().join("broken");
    let spread = ["run_dir=broken", "shard_base=true"];
    let child = started(place.path(), 2, &spread);
    wait_for("a checkpoint", || !checkpoints(&run).is_empty());
    // SAFETY: the launcher has not waited for it: it has not ended.
    assert_eq!(unsafe { libc::kill(children(&child)[1], 9) }, 0);
    let since = Instant::now();
    let output = child.wait_with_output().unwrap();
    refused(&output, 1, "error: process 1 was ended by signal 9, and all with it");
    assert_eq!(text(&output.stderr).matches("error:").count(), 1);
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    let before = checkpoints(&run);
    let child = started(place.path(), 2, &spread);
    wait_for("a further checkpoint", || checkpoints(&run) != before);
    signal(&child, libc::SIGINT);
    let output = child.wait_with_output().unwrap();
    refused(&output, 130, "stopped by SIGINT; the same command goes on from there");
    let output = started(place.path(), 2, &["run_dir=broken"]).wait_with_output().unwrap();
    assert!(good(&output).contains("goes on behind step"));
    assert_same(&left(&place.path().join("whole")), &left(&run), "spread, and gone on whole");
}

#[test]
fn what_does_not_go_with_a_spread_base_is_refused_before_anything_is_built() {
    let place = place();
    for (settings, words) in [
        (&["method=full"][..], "spreads frozen weights, and the method `full` trains them"),
        (&["method=dora"], "`dora` starts from the whole frozen weights"),
        (&["method=lora", "method.init=pissa"], "`lora` starts from the whole frozen weights"),
        (&["method=lora", "batch_size=auto"], "with shard_base none computes by itself"),
    ] {
        let all = ["task=mrpc", "shard_base=true", "run_dir=out"];
        let output = aflora(place.path(), &small(&[&all, settings].concat()));
        refused(&output, 2, words);
        assert!(!place.path().join("out").exists());
    }
    let one = ["task=mrpc", "method=head", "shard_base=true", "max_steps=1", "run_dir=one"];
    let said = good(&aflora(place.path(), &small(&one)));
    assert!(said.contains("one process holds the frozen weights whole"), "{said}");
}

/// On two GPUs the gathering runs beside the computing; what comes of it is what one process comes to that holds
/// the model whole.
#[test]
fn two_gpus_hold_a_model_together() {
    let number = |name: &str| {
        let digits = name.strip_prefix("nvidia");
        digits.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let devices = fs::read_dir("/dev").into_iter().flatten().flatten();
    let gpus = devices.filter(|d| d.file_name().to_str().is_some_and(number)).count();
    if gpus < 2 {
        // Written past the test runner, which shows nothing of a test that passes.
        let _ = writeln!(std::io::stderr(), "skipped, it needs two GPUs: {gpus} are here");
        return;
    }
    let place = place();
    lines_task(place.path());
    let pairs = ["task=mrpc", "limit=33", "max_steps=30", "batch_size=10", "accumulate=2"];
    let texts = ["task=lines", "model=tiny-llama", "max_length=48", "epochs=2", "batch_size=4"];
    for (name, settings, more) in [
        ("aflora", &pairs, &["method=aflora", "lr=1e-3"][..]),
        ("few", &pairs, &["method=lora", "lr=1e-3", "precision=nf4"]),
        ("decoder", &texts, &["method=lora", "model.gradient_checkpointing=true"]),
    ] {
        let run = |processes: usize, spread: &str| {
            let run_dir = format!("run_dir={name}-{processes}-{spread}");
            let all = ["log_every=1", "device=cuda", spread, &run_dir];
            good(&launch(place.path(), processes, &[&all[..], settings, more].concat()));
            losses(&place.path().join(format!("{name}-{processes}-{spread}")))
        };
        let (whole, spread) = (run(1, "shard_base=false"), run(2, "shard_base=true"));
        assert_eq!(whole.len(), spread.len(), "{name}");
        for (step, (a, b)) in whole.iter().zip(&spread).enumerate() {
            assert!((a - b).abs() < 5e-3 * a.abs().max(0.1), "{name}, step {step}: {a}, {b}");
        }
    }
}

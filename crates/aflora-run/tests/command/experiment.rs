//! `aflora experiment` and `aflora replay`, end to end on a tiny model.

use crate::common::stopping::{signal, wait_for};
use crate::common::*;
use aflora_record::evaluation::Metrics;
use aflora_record::results::{Outcome, Results};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const FILE: &str = "experiments/small.yaml";

/// A workplace with an experiment of two methods on one task.
fn grid() -> TempDir {
    let place = workplace();
    fs::create_dir_all(place.path().join("experiments/profiles")).unwrap();
    let write = |name: &str, text: &str| fs::write(place.path().join(name), text).unwrap();
    write(
        FILE,
        "title: Frozen or not
models: [minilm]
tasks: [mrpc]
seeds: [0, 1]
metrics: {mrpc: accuracy}
methods:
  - {method: aflora-frozen, label: Frozen, paper: {mrpc: 89.22}}
  - {method: aflora, label: Adaptive}
set: {device: cpu, max_length: 32, epochs: 4, batch_size: 16, head_lr: 1e-2, threads: 1, precision: fp32}
reference: aflora
claims: [{says: adaptive is better, order: [aflora-frozen, aflora]}]
show: [table, differences, heatmap]
",
    );
    write("experiments/profiles/one.yaml", "seeds: [7]\nmethods_set: {aflora: {lr: 2e-2}}\n");
    place
}

fn experiment(place: &Path, more: &[&str]) -> Output {
    aflora(place, &[&["experiment", FILE, "data=."], more].concat())
}

fn results(place: &Path, profile: &str) -> Results {
    Results::read(&place.join(format!("runs/results/small-{profile}.json"))).unwrap()
}

/// Best metrics by method and seed.
fn found(results: &Results) -> BTreeMap<(String, u64), Metrics> {
    let of = |outcome: &Outcome| match outcome {
        Outcome::Done(finding) => finding.best.metrics.clone(),
        other => panic!("{other:?}"),
    };
    results.cells.iter().map(|c| ((c.method.clone(), c.seed), of(&c.outcome))).collect()
}

#[test]
fn an_experiment_runs_its_cells_once_and_reports_them() {
    let place = grid();
    let listed = text(&experiment(place.path(), &["--dry-run"]).stdout);
    assert_eq!(listed.matches("  open ").count(), 4, "{listed}");

    let output = experiment(place.path(), &["--jobs", "2"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    // Whoever reads along through a pipe sees each cell when it begins.
    let told = text(&output.stderr);
    assert!(told.contains("mrpc-minilm-aflora-seed1 (4 of 4) begins: "), "{told}");
    assert!(told.find("begins") < told.find("done in"), "{told}");
    let first = results(place.path(), "paper");
    assert_eq!(found(&first).len(), 4);
    let adaptive = first.cells.iter().find(|c| c.method == "aflora").unwrap();
    let Outcome::Done(finding) = &adaptive.outcome else { panic!("{adaptive:?}") };
    assert!(!finding.curve.is_empty() && finding.matrices.iter().all(|m| m.frozen_at.is_some()));
    assert_eq!(finding.provenance.weights[0].sha256.len(), 64);
    // The record's plain settings are those that the cell was planned with, to the letter.
    let settings = Sha256::digest(finding.settings.to_string().as_bytes());
    let digest: String = settings.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, adaptive.digest);
    let whole = fs::read_to_string(place.path().join("runs/results/small-paper.json")).unwrap();
    assert!(!whole.contains(&place.path().display().to_string()), "a place of this machine");
    let report = fs::read_to_string(place.path().join("runs/results/small-paper.md")).unwrap();
    assert!(report.contains("Frozen") && report.contains("89.22"), "{report}");
    assert!(place.path().join("runs/results/report.html").is_file());

    // A second time nothing runs, and another experiment shares what is there.
    let began = Instant::now();
    let output = experiment(place.path(), &[]);
    assert!(text(&output.stderr).contains("4 of 4 cells are there already"));
    assert!(began.elapsed() < Duration::from_secs(5));
    fs::copy(place.path().join(FILE), place.path().join("experiments/other.yaml")).unwrap();
    let other = aflora(
        place.path(),
        &["experiment", "experiments/other.yaml", "data=.", "methods=[aflora]", "--dry-run"],
    );
    assert_eq!(text(&other.stdout).matches("  done ").count(), 2, "{}", text(&other.stdout));

    // Another setting is another run.
    let other = text(&experiment(place.path(), &["lr=1e-3", "--dry-run"]).stdout);
    assert_eq!(other.matches("  open ").count(), 4, "{other}");

    // Results alone are enough for a grid to go on from: here one seed more, without the runs.
    fs::remove_dir_all(place.path().join("runs/cells")).unwrap();
    let listed = text(&experiment(place.path(), &["--dry-run"]).stdout);
    assert_eq!(listed.matches("runs/results/small-paper.json").count(), 4, "{listed}");
    let output = experiment(place.path(), &["seeds=[0,1,2]", "methods=[aflora-frozen]"]);
    assert!(text(&output.stderr).contains("2 of 3 cells are there already"));
    let part = found(&results(place.path(), "paper-part"));
    let frozen = |seed| ("aflora-frozen".to_string(), seed);
    assert_eq!(part.len(), 3);
    assert_eq!(part[&frozen(1)], found(&first)[&frozen(1)]);
    let elsewhere = text(&experiment(place.path(), &["--dry-run", "--out", "runs/new"]).stdout);
    assert_eq!(elsewhere.matches("  open ").count(), 4, "{elsewhere}");
}

#[test]
fn a_cell_without_its_whole_result_is_not_done() {
    let place = grid();
    let one = ["seeds=[0]", "methods=[aflora-frozen]"];
    assert!(experiment(place.path(), &one).status.success());
    let cells = place.path().join("runs/cells");
    let folders = fs::read_dir(&cells).unwrap().flatten().map(|e| e.path());
    let folder = folders.into_iter().find(|path| path.is_dir()).unwrap();
    let dry = [&one[..], &["--dry-run"]].concat();
    let state = || text(&experiment(place.path(), &dry).stdout);
    assert!(state().contains("  done "));
    let metrics = folder.join("metrics.json");
    let whole = fs::read(&metrics).unwrap();
    fs::write(&metrics, &whole[..whole.len() / 2]).unwrap();
    assert!(state().contains("  begun "), "half a file of metrics");
    fs::write(&metrics, &whole).unwrap();
    let config = folder.join("config.yaml");
    let settings = fs::read_to_string(&config).unwrap();
    fs::write(&config, settings.replace("epochs: 4", "epochs: 5")).unwrap();
    assert!(state().contains("  begun "), "the run of other settings");
}

#[test]
fn a_cell_that_an_earlier_version_named_is_found_by_what_its_settings_come_to_now() {
    let place = grid();
    let one = ["seeds=[0]", "methods=[aflora]"];
    assert!(experiment(place.path(), &one).status.success());
    let cells = place.path().join("runs/cells");
    let folder = fs::read_dir(&cells).unwrap().flatten().map(|e| e.path());
    let folder = folder.into_iter().find(|path| path.is_dir()).unwrap();
    // As a version leaves it that knew no label smoothing: so the digest was another one.
    let config = folder.join("config.yaml");
    let settings = fs::read_to_string(&config).unwrap();
    let fewer: Vec<&str> = settings.lines().filter(|l| !l.contains("label_smoothing")).collect();
    assert!(fewer.len() < settings.lines().count(), "{settings}");
    fs::write(&config, fewer.join("\n")).unwrap();
    let earlier = cells.join("mrpc-minilm-aflora-seed0-0123456789");
    fs::rename(&folder, &earlier).unwrap();
    let listed = || text(&experiment(place.path(), &[&one[..], &["--dry-run"]].concat()).stdout);
    assert!(listed().contains("  done ") && listed().contains("seed0-0123456789"), "{}", listed());
    let output = experiment(place.path(), &one);
    assert!(text(&output.stderr).contains("1 of 1 cells are there already"));
    // Its finding, too, where results alone are left of it.
    let results = place.path().join("runs/results/small-paper-part.json");
    let stored = fs::read_to_string(&results).unwrap();
    assert!(!stored.contains("label_smoothing"), "{stored}");
    fs::write(&results, stored.replace(r#""digest":""#, r#""digest":"0"#)).unwrap();
    let listed_elsewhere = [&one[..], &["--dry-run", "--runs", "runs/none"]].concat();
    // Another grid's run of the same settings does not take the place of the grid's own.
    let other = results.with_file_name("a.json");
    fs::copy(&results, &other).unwrap();
    let found = text(&experiment(place.path(), &listed_elsewhere).stdout);
    assert!(found.contains("  done ") && found.contains("small-paper-part.json"), "{found}");
    fs::remove_file(&results).unwrap();
    let found = text(&experiment(place.path(), &listed_elsewhere).stdout);
    assert!(found.contains("  done ") && found.contains("a.json"), "{found}");
    fs::remove_file(&other).unwrap();
    // With another setting it is another run.
    let changed = fewer.join("\n").replace("epochs: 4", "epochs: 5");
    fs::write(earlier.join("config.yaml"), changed).unwrap();
    assert!(listed().contains("  open "), "{}", listed());
}

#[test]
fn a_cell_whose_batch_was_fitted_to_the_memory_is_done() {
    let place = grid();
    let one = ["seeds=[0]", "methods=[aflora-frozen]", "batch_size=auto"];
    assert!(experiment(place.path(), &one).status.success());
    let cells = fs::read_dir(place.path().join("runs/cells")).unwrap().flatten();
    let folder = cells.map(|e| e.path()).find(|path| path.is_dir()).unwrap();
    // As a GPU leaves it that is too small for the whole batch.
    let config = folder.join("config.yaml");
    let text_of = fs::read_to_string(&config).unwrap();
    let whole = "\nbatch_size: 16\naccumulate: 1\n";
    assert!(text_of.contains(whole), "{text_of}");
    let changed = text_of.replace(whole, "\nbatch_size: 4\naccumulate: 4\n");
    fs::write(&config, changed).unwrap();
    let listed = text(&experiment(place.path(), &[&one[..], &["--dry-run"]].concat()).stdout);
    assert!(listed.contains("  done "), "{listed}");
}

#[test]
fn one_cell_that_fails_does_not_end_the_rest() {
    let place = grid();
    // A folder in the way of one cell.
    let listed = text(&experiment(place.path(), &["--dry-run"]).stdout);
    let line = listed.lines().find(|l| l.contains("aflora-frozen-seed1")).unwrap();
    let folder = Path::new(line.split_whitespace().last().unwrap());
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("mine.txt"), "not a run").unwrap();
    let output = experiment(place.path(), &[]);
    refused(&output, 1, "1 cell failed\n");
    refused(&output, 1, "mrpc-minilm-aflora-frozen-seed1: it ended with code 2: error: run_dir");
    let why = "s: it ended with code 2: error: run_dir";
    assert!(text(&output.stderr).contains(why), "the reason when it failed, too");
    let listed = text(&experiment(place.path(), &["--dry-run"]).stdout);
    assert_eq!(listed.matches("  done ").count(), 3, "{listed}");
    assert!(listed.contains("  failed  mrpc-minilm-aflora-frozen-seed1 "), "{listed}");
    assert!(listed.contains("\n      it ended with code 2: error: run_dir"), "{listed}");
    let results = results(place.path(), "paper");
    let failed = |o: &Outcome| matches!(o, Outcome::Failed { error } if error.contains("no run"));
    assert_eq!(results.cells.iter().filter(|c| failed(&c.outcome)).count(), 1);
    let done = |o: &Outcome| matches!(o, Outcome::Done(_));
    assert_eq!(results.cells.iter().filter(|c| done(&c.outcome)).count(), 3);
    assert_eq!(fs::read_to_string(folder.join("mine.txt")).unwrap(), "not a run");
}

#[test]
fn a_failed_cell_is_told_in_its_own_last_words() {
    let place = grid();
    let one = ["seeds=[0]", "methods=[aflora-frozen]", "epochs=4000"];
    let dry = [&one[..], &["--dry-run"]].concat();
    let listed = text(&experiment(place.path(), &dry).stdout);
    let line = listed.lines().find(|l| l.contains("  open ")).unwrap();
    let folder = Path::new(line.split_whitespace().last().unwrap());
    fs::create_dir_all(folder.parent().unwrap()).unwrap();
    fs::write(folder.with_extension("log"), "error: of yesterday\n").unwrap();

    let arguments = [&["experiment", FILE, "data=."], &one[..]].concat();
    let mut child = command(place.path(), &arguments);
    let child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    // As the system does where memory runs out: nothing is said.
    let pid = loop {
        assert!(began.elapsed() < Duration::from_secs(120), "the cell does not begin");
        std::thread::sleep(Duration::from_millis(50));
        let holder = fs::read_to_string(folder.join(".lock")).unwrap_or_default();
        if let (Ok(pid), true) =
            (holder.trim().parse::<u32>(), folder.join("events.jsonl").exists())
        {
            break pid.to_string();
        }
    };
    assert!(std::process::Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    let told = text(&child.wait_with_output().unwrap().stderr);
    assert!(told.contains("it was killed; its last words: "), "{told}");
    assert!(!told.contains("yesterday"), "{told}");
    let listed = text(&experiment(place.path(), &dry).stdout);
    assert!(listed.contains("  failed ") && listed.contains("it was killed"), "{listed}");
}

#[test]
fn an_experiment_file_with_many_mistakes_has_them_all_told_at_once() {
    let place = grid();
    let write = |text: &str| fs::write(place.path().join(FILE), text).unwrap();
    write(
        "title: [x]
model: [minilm]
models: [minilm]
seeds: [0, one]
methods:
  - {method: aflora, lable: A}
  - {label: B, set: 3}
claims: [{says: adaptive is better}]
show: [table, pie]
",
    );
    let output = experiment(place.path(), &[]);
    for words in [
        "the configuration has 9 problems",
        "`title` is a list, but must be a text",
        "there is no key `model`",
        "did you mean `models`?",
        "`seeds` holds the text \"one\", but each value must be a whole number",
        "small.yaml: `tasks` is missing",
        "`methods`, item 1: there is no key `lable`",
        "`methods`, item 2: `method` is missing",
        "`methods`, item 2: `set` is 3, but must be a group of keys",
        "`claims`, item 1: `order` is missing",
        "`show` cannot be `pie`",
    ] {
        refused(&output, 2, words);
    }
    // What the file cannot know by itself, of all cells; and names that go nowhere.
    let good = "title: x\nmodels: [minilm]\ntasks: [mrpc]\nseeds: [0]\nshow: [table]\n";
    write(&format!("{good}methods: [{{method: aflroa}}, {{method: lora, set: {{rnak: 3}}}}]\n"));
    let output = experiment(place.path(), &[]);
    for words in ["2 problems", "there is no method `aflroa`", "there is no key `rnak`"] {
        refused(&output, 2, words);
    }
    write(&format!("{good}methods: [{{method: lora}}, {{method: lora}}]\nreference: elora\n"));
    let output = experiment(place.path(), &["--profile", "two"]);
    for words in ["3 problems", "called `lora`", "`elora` is none", "there is no profile `two`"] {
        refused(&output, 2, words);
    }
}

#[test]
fn a_cell_that_stands_twice_in_an_experiment_is_refused() {
    let place = grid();
    let whole = fs::read_to_string(place.path().join(FILE)).unwrap();
    for (once, twice, words) in [
        ("seeds: [0, 1]", "seeds: [0, 1, 0]", ["`seeds`: 0 stands twice", "small.yaml:4:8"]),
        ("[mrpc]", "[mrpc, rte, mrpc]", ["`tasks`: mrpc stands twice", "small.yaml:3:8"]),
        ("[minilm]", "[minilm, minilm]", ["`models`: minilm stands twice", "small.yaml:2:9"]),
        // All cells get one seed.
        ("set: {", "set: {seed: 3, ", ["mrpc-minilm-aflora-frozen-seed3 stands twice", "`set`"]),
    ] {
        assert_eq!(whole.matches(once).count(), 1, "{once}");
        fs::write(place.path().join(FILE), whole.replace(once, twice)).unwrap();
        let output = experiment(place.path(), &["--dry-run"]);
        words.iter().for_each(|words| refused(&output, 2, words));
    }
    let two = whole.replace("[minilm]", "[minilm, deberta-v3-base]");
    fs::write(place.path().join(FILE), two).unwrap();
    for (profile, words) in [
        ("seeds: [7, 8, 7]", ["`seeds`: 7 stands twice", "profiles/one.yaml:1:8"]),
        ("tasks: [mrpc, mrpc]", ["`tasks`: mrpc stands twice", "profiles/one.yaml:1:8"]),
        (
            "models: {deberta-v3-base: minilm}",
            ["mrpc-minilm-aflora-frozen-seed0 stands twice", "one model for two"],
        ),
    ] {
        fs::write(place.path().join("experiments/profiles/one.yaml"), profile).unwrap();
        let output = experiment(place.path(), &["--profile", "one", "--dry-run"]);
        words.iter().for_each(|words| refused(&output, 2, words));
    }
}

#[test]
fn an_experiment_that_is_stopped_goes_on_and_finds_the_same() {
    let unbroken = grid();
    assert!(experiment(unbroken.path(), &[]).status.success());
    let broken = grid();
    let start = || {
        let arguments = ["experiment", FILE, "data=."];
        let mut command = command(broken.path(), &arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    // Ended as a user, as a scheduler and as the system does it, each when one more of the four cells has
    // begun.
    let begun = || {
        let runs = fs::read_dir(broken.path().join("runs/cells")).into_iter().flatten().flatten();
        runs.filter(|run| run.path().join("events.jsonl").is_file()).count()
    };
    for (cells, by) in [(1, libc::SIGINT), (2, libc::SIGTERM), (3, libc::SIGKILL)] {
        let mut child = start();
        wait_for("a further cell", || begun() >= cells);
        signal(&child, by);
        assert!(!child.wait().unwrap().success(), "it was over before it was stopped");
    }
    // The last signal left a cell behind that goes on alone: it is waited for.
    let output = experiment(broken.path(), &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(found(&results(broken.path(), "paper")), found(&results(unbroken.path(), "paper")));
}

#[test]
fn a_profile_and_the_command_line_choose_cells_and_settings() {
    let place = grid();
    let output = experiment(place.path(), &["--profile", "one", "--filter", "aflora-seed"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    // Of a part of the grid, so the whole one's results are not written over.
    let results = results(place.path(), "one-part");
    assert_eq!(results.cells.len(), 1);
    let Outcome::Done(finding) = &results.cells[0].outcome else { panic!("{results:?}") };
    assert_eq!((&finding.settings["seed"], &finding.settings["lr"]), (&7.into(), &0.02.into()));
    for (arguments, words) in [
        (&["--profile", "two"][..], "there is no profile `two`"),
        (&["--filter", "nothing"], "--filter matches none"),
        (&["methods=[lora]"], "`lora` is none of the experiment's methods"),
        (&["seeds=0"], "is no list"),
        (&["seeds=[0, 0]"], "0 stands twice"),
        (&["method=lora"], "`methods=[…]` chooses among the experiment's own"),
        (&["seed=3"], "`seeds=[…]`"),
        (&["epohcs=3"], "there is no key `epohcs`"),
        (&["--cell", "4"], "cells are 0 to 3"),
    ] {
        refused(&experiment(place.path(), arguments), 2, words);
    }
    fs::write(place.path().join(FILE), "title: x\nmodels: [minilm]\ntaks: [mrpc]\n").unwrap();
    refused(&experiment(place.path(), &[]), 2, "taks");
}

#[test]
fn a_profile_tells_a_variant_apart_and_asks_for_no_more_seeds_than_the_experiment() {
    let place = grid();
    let write = |name: &str, text: &str| fs::write(place.path().join(name), text).unwrap();
    write(
        FILE,
        "{title: t, models: [minilm], tasks: [mrpc], seeds: [0], show: [table], \
         set: {device: cpu, max_length: 32, threads: 1, precision: fp32}, methods: [\
         {method: aflora}, {method: aflora, name: all, set: {method.pm_trainable: all}}, \
         {method: aflora, name: hot, set: {lr: 1e-1}}]}",
    );
    write(
        "experiments/profiles/one.yaml",
        "seeds: [7, 8]\nmethods_set: {aflora: {lr: 2e-2}, all: {lr: 3e-2}, hot: {lr: 4e-2}}\n",
    );
    let listed = text(&experiment(place.path(), &["--profile", "one", "--dry-run"]).stdout);
    assert_eq!(listed.matches("  open ").count(), 3, "{listed}");
    assert!(listed.contains("seed7") && !listed.contains("seed8"), "{listed}");
    let output = experiment(place.path(), &["--profile", "one", "epochs=1", "limit=32"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rates: Vec<_> = results(place.path(), "one-part")
        .cells
        .iter()
        .map(|cell| match &cell.outcome {
            Outcome::Done(finding) => (cell.method.clone(), finding.settings["lr"].clone()),
            other => panic!("{other:?}"),
        })
        .collect();
    let of = |name: &str, rate: f64| (name.to_string(), rate.into());
    assert_eq!(rates, [of("aflora", 0.02), of("all", 0.03), of("hot", 0.1)]);
}

#[test]
fn a_script_for_slurm_runs_a_cell_a_task() {
    let place = grid();
    let script = experiment(place.path(), &["--slurm", "--jobs", "3", "lr=1e-3"]);
    let script = text(&script.stdout);
    assert!(script.contains("#SBATCH --array=0-3%3"), "{script}");
    // Slurm makes no folder for what the tasks print.
    let logs = script.lines().find_map(|line| line.strip_prefix("#SBATCH --output="));
    assert!(std::path::Path::new(logs.unwrap()).parent().unwrap().is_dir(), "{script}");
    // What a task of the array does, without Slurm.
    let path = place.path().join("array.sh");
    fs::write(&path, &script).unwrap();
    let mut bash = std::process::Command::new("bash");
    bash.arg(&path).current_dir(place.path()).env("SLURM_ARRAY_TASK_ID", "2");
    let output = bash.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let listed = text(&experiment(place.path(), &["lr=1e-3", "--dry-run"]).stdout);
    let done: Vec<&str> = listed.lines().filter(|l| l.contains("  done ")).collect();
    assert_eq!(done.len(), 1, "{listed}");
    assert!(done[0].trim_start().starts_with("2 "), "{listed}");

    let output = experiment(place.path(), &["--slurm", "--runs", "a\nb"]);
    refused(&output, 2, "--runs holds a control character");
    refused(&output, 2, "hold: a\\nb\n");
    let file = fs::read_to_string(place.path().join(FILE)).unwrap();
    let hostile = file.replace("title: Frozen or not", "title: \"Frozen\\ntouch pwned\"");
    fs::write(place.path().join(FILE), hostile).unwrap();
    let output = experiment(place.path(), &["--slurm"]);
    refused(&output, 2, "the experiment's title holds a control character");
    assert!(output.stdout.is_empty());
}

/// By a stand-in for srun, which starts a process for each machine and says what Slurm says.
#[test]
fn a_cell_of_several_machines_is_one_run_of_all_their_processes() {
    use std::os::unix::fs::PermissionsExt;
    let place = grid();
    let bin = place.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let srun = "#!/bin/bash
while [[ $1 == --* ]]; do echo \"$1\"; shift; done > srun-told
export SLURM_JOB_ID=$$ SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NODELIST=localhost
SLURM_PROCID=1 \"$@\" &
SLURM_PROCID=0 \"$@\" && wait $!
";
    fs::write(bin.join("srun"), srun).unwrap();
    fs::set_permissions(bin.join("srun"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let arguments = ["experiment", FILE, "data=.", "--cell", "1", "--nodes", "2"];
    let output = command(place.path(), &arguments).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let told = fs::read_to_string(place.path().join("srun-told")).unwrap();
    let told: Vec<&str> = told.lines().collect();
    let expected =
        ["--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=4", "--kill-on-bad-exit=1"];
    assert_eq!(told, expected);
    let cells = fs::read_dir(place.path().join("runs/cells")).unwrap().flatten();
    let run = cells.map(|entry| entry.path()).find(|path| path.is_dir()).unwrap();
    assert_eq!(json(&run.join("provenance.json"))["processes"], 2);

    let output = experiment(place.path(), &["--nodes", "2"]);
    refused(&output, 2, "--nodes: a cell of several machines is a job of Slurm's");
}

#[test]
fn a_replay_freezes_first_what_the_run_itself_would_have() {
    let place = workplace();
    let quick = ["task=mrpc", "epochs=8", "lr=2e-2"];
    let with = |more: &[&str]| run(place.path(), &[&quick[..], more].concat());
    assert!(with(&["run_dir=adaptive"]).status.success());
    let recorded = ["run_dir=recorded", "method=aflora-trainable", "record_gradients=true"];
    let output = with(&recorded);
    assert!(output.status.success(), "{}", text(&output.stderr));

    // Up to the first freeze the two runs are one.
    let rows = |table: &str| -> Vec<(String, u64)> {
        let row = |line: &str| {
            let fields: Vec<&str> = line.split(',').collect();
            Some((fields[0].to_string(), fields[3].parse().ok()?))
        };
        table.lines().skip(1).filter_map(row).collect()
    };
    let first = |rows: Vec<(String, u64)>| -> Vec<(String, u64)> {
        let step = rows.iter().map(|r| r.1).min().unwrap();
        rows.into_iter().filter(|r| r.1 == step).collect()
    };
    let trained = fs::read_to_string(place.path().join("adaptive/freeze.csv")).unwrap();
    let replayed = aflora(place.path(), &["replay", "recorded", "rule=element_quantile"]);
    let replayed = text(&replayed.stdout);
    assert_eq!(rows(&replayed).len(), 8, "{replayed}");
    assert_eq!(first(rows(&replayed)), first(rows(&trained)));

    let compared = text(&aflora(place.path(), &["replay", "recorded"]).stdout);
    assert_eq!(compared.lines().count(), 13, "{compared}");
    refused(&aflora(place.path(), &["replay", "adaptive"]), 2, "record_gradients=true");
    let output = aflora(place.path(), &["replay", "recorded", "rule=best"]);
    refused(&output, 2, "element_quantile");
    let frozen = with(&["run_dir=frozen", "record_gradients=true"]);
    refused(&frozen, 2, "needs matrices that never freeze");
}

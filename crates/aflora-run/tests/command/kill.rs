//! A process that is killed at any moment loses no more than the steps since its last
//! checkpoint: what a run leaves in the end is to the bit what the run that nobody killed leaves.
//!
//! Kills come after a random time, or when something is being written: a checkpoint, an adapter,
//! an evaluation's event, a file that is about to get its name. `AFLORA_KILLS` sets how many
//! there are of each method, `AFLORA_KILL_SEED` which.

use crate::common::{assert_same, command, judged_task, outcome, run, small, text, workplace};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// What a killer waits for.
#[derive(Debug, Clone, Copy)]
enum When {
    After(Duration),
    /// A name in this folder of the run that begins and ends so.
    Seen(&'static str, &'static str, &'static str),
    /// The log has grown by so many bytes.
    Logged(u64),
}

impl When {
    fn draw(random: &mut ChaCha8Rng) -> When {
        match random.next_u64() % 16 {
            0..4 => When::Seen("checkpoint", ".step-", ".tmp"),
            4..6 => When::Seen("", ".adapter.", ".tmp"),
            6..8 => When::Seen("", ".", ".tmp"),
            8..11 => When::Logged(random.next_u64() % 4000),
            // The first thing that there is.
            11 => When::Seen("", ".lock", ""),
            _ => When::After(Duration::from_micros(random.next_u64() % 2_500_000)),
        }
    }
}

/// Waits for the moment and kills; whether there was still something to kill.
fn kill(child: &mut Child, run: &Path, when: When, extra: Duration) -> bool {
    let started = Instant::now();
    let length = || fs::metadata(run.join("events.jsonl")).map_or(0, |about| about.len());
    let at_start = length();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            let said = fs::read_to_string(run.with_file_name("stderr")).unwrap();
            assert!(status.success(), "the run failed by itself: {said}");
            return false;
        }
        let now = match when {
            When::After(time) => started.elapsed() >= time,
            When::Logged(bytes) => length() > at_start + bytes,
            When::Seen(folder, begins, ends) => {
                let entries = fs::read_dir(run.join(folder)).into_iter().flatten().flatten();
                let mut names =
                    entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
                names.any(|name| name.starts_with(begins) && name.ends_with(ends))
            }
        };
        if now {
            break;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    std::thread::sleep(extra);
    child.kill().unwrap();
    child.wait().unwrap().code().is_none()
}

/// Kills runs of these settings `kills` times in all, and compares each with the unbroken one.
fn survives(settings: &[&str], kills: u64, seed: u64) {
    let place = workplace();
    judged_task(place.path());
    let whole = [settings, &["run_dir=whole", "checkpoint_every=never"]].concat();
    let output = run(place.path(), &whole);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let whole = outcome(&place.path().join("whole"));

    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let broken = [settings, &["run_dir=broken", "checkpoint_every=2 steps"]].concat();
    let broken = small(&broken);
    let path = place.path().join("broken");
    let (mut killed, mut finished, mut resumed, mut story) = (0, 0, 0, Vec::new());
    while killed < kills || finished == 0 {
        // The last of them runs to its end.
        let last = killed >= kills || story.len() > 40;
        let when = if last { When::After(Duration::MAX) } else { When::draw(&mut random) };
        let extra = Duration::from_micros(random.next_u64() % 3000);
        let errors = fs::File::create(place.path().join("stderr")).unwrap();
        let mut child =
            command(place.path(), &broken).stdout(Stdio::null()).stderr(errors).spawn().unwrap();
        story.push(format!("{when:?}"));
        let ended = kill(&mut child, &path, when, extra);
        // A process that is killed leaves no half of a checkpoint under its full name.
        let said = fs::read_to_string(place.path().join("stderr")).unwrap();
        assert!(!said.contains("cannot be used"), "{said}");
        resumed += u64::from(said.contains("goes on behind step"));
        if ended {
            killed += 1;
            continue;
        }
        let what = format!("{settings:?}, seed {seed}, killed {}", story.join(", "));
        assert_same(&whole, &outcome(&path), &what);
        fs::remove_dir_all(&path).unwrap();
        (finished, story) = (finished + 1, Vec::new());
    }
    println!("{settings:?}: killed {killed} times, resumed {resumed}, finished {finished} times");
    // Others are killed before their first checkpoint: while they read and check, or at once.
    assert!(5 * resumed > killed, "of {killed} killed runs, only {resumed} went on");
}

// Dropout, and a method that freezes while it is killed.
const AFLORA: [&str; 5] =
    ["task=mrpc", "method=aflora", "method.dropout=0.1", "log_every=1", "epochs=10"];

#[test]
fn a_run_that_freezes_survives() {
    survives(&AFLORA, setting("AFLORA_KILLS", 24), setting("AFLORA_KILL_SEED", 1));
}

#[test]
fn a_run_with_a_budget_of_ranks_survives() {
    let adalora = ["task=stsb", "method=adalora", "accumulate=2", "epochs=12", "log_every=3"];
    survives(&adalora, setting("AFLORA_KILLS", 12), setting("AFLORA_KILL_SEED", 2));
}

#[test]
fn a_run_that_freezes_and_drops_components_survives() {
    let ranks = ["task=mrpc", "method=aflora-rank", "log_every=2", "epochs=10"];
    survives(&ranks, setting("AFLORA_KILLS", 12), setting("AFLORA_KILL_SEED", 3));
}

/// Evaluated within epochs, ended by its patience in the middle of one, then judged on `test`.
#[test]
fn a_run_that_ends_early_survives() {
    let early = [
        "task=judged.yaml",
        "method=aflora",
        "method.dropout=0.1",
        "log_every=1",
        "lr=1e-2",
        "max_steps=600",
        "eval_every=7 steps",
        "patience=4",
        "lr_schedule=cosine",
        "min_lr_ratio=0.1",
    ];
    survives(&early, setting("AFLORA_KILLS", 10), setting("AFLORA_KILL_SEED", 4));
}

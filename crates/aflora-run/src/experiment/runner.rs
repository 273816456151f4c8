//! Runs an experiment's cells, each as a process of its own: one that fails takes no other along,
//! and a run that is killed loses nothing of the others.
//!
//! A finished cell, or one whose finding is stored, is never run again; one that was broken off goes
//! on from its checkpoint, as `aflora run` does by itself. A signal is passed on to the cells under way,
//! which write their checkpoints; a cell that another process is at is waited for. Why a cell failed stands in a file
//! beside its folder until it is started again, so that any later command can tell.

use super::grid::{Plan, Planned};
use super::stored::Stored;
use crate::check_makeable;
use crate::interrupt;
use crate::run::lock::Lock;
use crate::ui::{seconds, Progress};
use aflora_files::open_to_append;
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Between two looks at the running cells.
const POLL: Duration = Duration::from_millis(50);

/// What the shell gives a process that an interrupt or a termination ended.
const INTERRUPTED: [i32; 2] = [130, 143];

/// What one ends with that was refused, by a folder that another process writes among other reasons.
const WRONG_USAGE: i32 = 2;

/// Bytes at the end of a cell's output in which its last words are looked for.
const WORDS: u64 = 64 << 10;

/// Characters of a failed cell's last words that are told; its log has them all.
const TOLD: usize = 2_000;

/// Runs cells: where, and how.
#[derive(Debug, Clone)]
pub struct Runner {
    /// The folder that holds the cells' folders.
    pub runs: PathBuf,
    /// The `aflora` program.
    pub program: PathBuf,
    /// Cells at once.
    pub jobs: usize,
    /// GPUs to spread them over, by number; none to leave the choice to each run.
    pub gpus: Vec<usize>,
    /// Processes of each cell on each of its machines, each with a GPU of its own where there are any.
    pub processes: usize,
    /// Machines of each cell. Several are those of the job of Slurm's that this is a part of.
    pub nodes: usize,
    /// What need not run, since earlier results have it.
    pub stored: Stored,
}

/// Processors of each process, where Slurm is asked for them.
pub(super) const PROCESSORS: u32 = 4;

/// What became of the cells, counted.
#[derive(Debug, Default)]
pub struct Tally {
    /// Finished before.
    pub skipped: usize,
    /// Finished now.
    pub finished: usize,
    /// Those that failed, by their names.
    pub failures: BTreeMap<String, FailedCell>,
    /// Whether somebody asked to stop.
    pub interrupted: bool,
}

/// A cell that failed.
#[derive(Debug, Clone)]
pub struct FailedCell {
    /// Why.
    pub why: String,
    /// The file with all of its output.
    pub log: PathBuf,
}

/// A cell under way.
struct Running<'a> {
    cell: &'a Planned,
    child: Child,
    slot: usize,
    started: Instant,
    /// How long its log was before: that is the output of earlier starts.
    log_from: u64,
}

impl Runner {
    /// Whether there is nothing left to do for a cell. Where there is a folder for it, that tells.
    pub fn is_done(&self, cell: &Planned) -> bool {
        let folder = self.runs.join(cell.folder());
        match folder.exists() {
            true => cell.is_done(&folder),
            false => self.stored.finding(cell).is_some(),
        }
    }

    /// What runs a cell, as people would type it.
    pub fn command(&self, plan: &Plan, cell: &Planned) -> Vec<String> {
        let mut words = Vec::new();
        if self.nodes > 1 {
            words.extend([
                "srun".to_string(),
                format!("--nodes={}", self.nodes),
                format!("--ntasks-per-node={}", self.processes),
                // A step does not take over what the job was given.
                format!("--cpus-per-task={PROCESSORS}"),
                "--kill-on-bad-exit=1".to_string(),
            ]);
        }
        words.push(self.program.display().to_string());
        if self.nodes == 1 && self.processes > 1 {
            words.extend(["launch", "--nproc"].map(String::from));
            words.push(self.processes.to_string());
        }
        words.push("run".into());
        words.push(plan.run_file.display().to_string());
        words.extend(cell.overrides.iter().cloned());
        words.push(format!("run_dir={}", self.runs.join(cell.folder()).display()));
        words
    }

    /// Where a cell's output goes: beside its folder, which is the run's own.
    pub fn log(&self, cell: &Planned) -> PathBuf {
        self.runs.join(format!("{}.log", cell.folder()))
    }

    /// Where it stands why a cell failed, until it is started again.
    fn failed(&self, cell: &Planned) -> PathBuf {
        self.runs.join(format!("{}.failed", cell.folder()))
    }

    /// Why a cell failed when it was last started, if it did.
    pub fn failure(&self, cell: &Planned) -> Option<String> {
        aflora_files::read_text_at_most(&self.failed(cell), WORDS).ok()
    }

    fn start<'a>(&self, plan: &Plan, cell: &'a Planned, slot: usize) -> Result<Running<'a>> {
        let failed = self.failed(cell);
        aflora_files::write::remove(&failed)
            .with_context(|| format!("{} cannot be removed", failed.display()))?;
        let path = self.log(cell);
        let unwritable = || format!("{} cannot be written", path.display());
        let log = open_to_append(&path);
        let log = log.with_context(unwritable)?;
        let log_from = log.metadata().with_context(unwritable)?.len();
        let words = self.command(plan, cell);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(std::process::Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        // A group of its own: what a terminal sends to this process comes to the cell through
        // this process, and once, for a second signal would end it without a checkpoint.
        command.process_group(0);
        // On several machines Slurm shares them out.
        if !self.gpus.is_empty() && self.nodes == 1 {
            // The run sees its own GPUs and takes them: its settings stay the same on any.
            let own = (0..self.processes).map(|n| slot * self.processes + n);
            let own = own.map(|n| self.gpus[n % self.gpus.len()].to_string());
            command.env("CUDA_VISIBLE_DEVICES", own.collect::<Vec<_>>().join(","));
        }
        if self.jobs > 1 && std::env::var_os("OMP_NUM_THREADS").is_none() {
            // Each takes its share of the cores: threads that wait for one another's turn take
            // many times as long.
            let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
            let threads = cores / (self.jobs * self.processes);
            command.env("OMP_NUM_THREADS", threads.max(1).to_string());
        }
        let child = command.spawn().with_context(|| format!("{} cannot be started", words[0]))?;
        Ok(Running { cell, child, slot, started: Instant::now(), log_from })
    }

    /// Takes down why a cell failed, in its own last words.
    fn fail(&self, cell: &Planned, log_from: u64, code: Option<i32>) -> FailedCell {
        let log = self.log(cell);
        let words = last_words(&output(&log, log_from).unwrap_or_default());
        let words = match words.is_empty() {
            true => "it wrote nothing".to_string(),
            false => words,
        };
        let why = match code {
            Some(code) => format!("it ended with code {code}: {words}"),
            None => format!("it was killed; its last words: {words}"),
        };
        let path = self.failed(cell);
        if let Err(error) = aflora_files::write(&path, why.as_bytes()) {
            tracing::warn!("{} cannot be written: {error}", path.display());
        }
        FailedCell { why, log }
    }
}

/// The end of what a log holds from a byte on.
fn output(log: &Path, from: u64) -> std::io::Result<String> {
    let mut file = aflora_files::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(from.max(length.saturating_sub(WORDS))))?;
    let mut bytes = Vec::new();
    file.take(WORDS).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last words in a cell's output: its error, or its last line.
fn last_words(output: &str) -> String {
    const ERROR: &str = "error: ";
    let output = output.trim_end();
    let error = output.rfind(&format!("\n{ERROR}")).map(|at| at + 1);
    let words = match error.or(output.starts_with(ERROR).then_some(0)) {
        Some(at) => &output[at..],
        None => output.lines().last().unwrap_or_default(),
    };
    let mut told: String = words.chars().take(TOLD).collect();
    if told.len() < words.len() {
        told.push('…');
    }
    aflora_files::printable(&told).into_owned()
}

/// GPUs that this process may use, by number: those of CUDA_VISIBLE_DEVICES, or all that there
/// are device files for.
pub fn gpus() -> Vec<usize> {
    if let Ok(visible) = std::env::var("CUDA_VISIBLE_DEVICES") {
        return visible.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    }
    let number = |file: fs::DirEntry| {
        file.file_name().to_str()?.strip_prefix("nvidia")?.parse::<usize>().ok()
    };
    let files = fs::read_dir("/dev").into_iter().flatten().flatten();
    let n = files.filter_map(number).count();
    (0..n).collect()
}

/// Runs the plan's cells that have not finished.
///
/// # Errors
/// Nothing can be written in the folder of runs, or the program cannot be started.
pub fn run(plan: &Plan, runner: &Runner, progress: &mut dyn Progress) -> Result<Tally> {
    let done = |cell: &&Planned| runner.is_done(cell);
    let (before, open): (Vec<&Planned>, Vec<&Planned>) = plan.cells.iter().partition(done);
    let mut tally = Tally { skipped: before.len(), ..Tally::default() };
    // Rows that ask for one and the same run wait for it together.
    let mut asked = HashSet::new();
    let mut waiting: VecDeque<&Planned> =
        open.into_iter().filter(|cell| asked.insert(&cell.digest)).collect();
    let total = waiting.len();
    // A folder of finished runs may be one that nobody writes to any more.
    if total > 0 {
        check_makeable("the folder of runs", &runner.runs)?;
        fs::create_dir_all(&runner.runs)
            .with_context(|| format!("the folder {} cannot be made", runner.runs.display()))?;
    }
    if tally.skipped > 0 {
        tracing::info!("{} of {} cells are there already", tally.skipped, plan.cells.len());
    }
    interrupt::listen().context("signals cannot be caught")?;
    progress.begin("cells", total as u64);
    let mut running: Vec<Running> = Vec::new();
    let mut told = BTreeSet::new();
    let mut begun = 0;
    while !running.is_empty() || !(waiting.is_empty() || tally.interrupted) {
        if interrupt::check().is_err() && !tally.interrupted {
            tally.interrupted = true;
            running.iter().for_each(|r| stop(&r.child));
        }
        for _ in 0..waiting.len() {
            if running.len() >= runner.jobs || tally.interrupted {
                break;
            }
            let Some(cell) = waiting.pop_front() else { break };
            if let Some(other) = holder(&runner.runs.join(cell.folder())) {
                if told.insert(cell.folder()) {
                    tracing::info!("{}: waiting for {other}, which runs it", cell.name());
                }
                waiting.push_back(cell);
                continue;
            }
            let taken = |slot: &usize| running.iter().any(|r| r.slot == *slot);
            let slot = (0..runner.jobs).find(|slot| !taken(slot)).unwrap_or(0);
            match runner.start(plan, cell, slot) {
                Ok(started) => {
                    // Cells can take hours: whoever reads along sees that they run, and where.
                    begun += 1;
                    let log = runner.log(cell);
                    tracing::info!(
                        "{} ({begun} of {total}) begins: {}",
                        cell.name(),
                        log.display()
                    );
                    running.push(started);
                }
                Err(error) => {
                    running.iter().for_each(|r| stop(&r.child));
                    return Err(error);
                }
            }
        }
        std::thread::sleep(POLL);
        let mut i = 0;
        while i < running.len() {
            let Some(status) = running[i].child.try_wait()? else {
                i += 1;
                continue;
            };
            let Running { cell, started, log_from, .. } = running.swap_remove(i);
            let name = cell.name();
            let took = seconds(started.elapsed().as_secs_f64());
            let other = || holder(&runner.runs.join(cell.folder()));
            match Ended::by(status.success() && done(&cell), status.code(), other) {
                Ended::Done => {
                    tally.finished += 1;
                    tracing::info!("{name}: done in {took}");
                }
                Ended::Interrupted => tally.interrupted = true,
                Ended::Taken(other) => {
                    tracing::info!("{name}: waiting for {other}, which took it at the same time");
                    told.insert(cell.folder());
                    waiting.push_back(cell);
                    begun -= 1;
                }
                Ended::Failed => {
                    let failure = runner.fail(cell, log_from, status.code());
                    tracing::warn!("{name}: failed after {took}: {}", failure.why);
                    tally.failures.insert(name, failure);
                }
            }
            let ended = tally.finished + tally.failures.len();
            let note = match tally.failures.len() {
                0 => format!("{} running", running.len()),
                n => format!("{} running, {n} failed", running.len()),
            };
            progress.update(ended as u64, &note);
        }
    }
    progress.end();
    Ok(tally)
}

/// How a cell's process ended.
#[derive(Debug, PartialEq)]
enum Ended {
    Done,
    Interrupted,
    /// Another process, which began the cell at the same time, came first.
    Taken(String),
    Failed,
}

impl Ended {
    /// `other` tells the process that writes the cell's folder now.
    fn by(done: bool, code: Option<i32>, other: impl Fn() -> Option<String>) -> Self {
        match code {
            _ if done => Ended::Done,
            Some(code) if INTERRUPTED.contains(&code) => Ended::Interrupted,
            // What it ended with when it found the folder taken.
            Some(WRONG_USAGE) => other().map_or(Ended::Failed, Ended::Taken),
            _ => Ended::Failed,
        }
    }
}

/// Asks a cell to stop where nothing is lost.
fn stop(child: &Child) {
    // By the command, for the standard library only kills.
    let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
}

/// The process that writes a cell's folder at this moment, if one does.
fn holder(folder: &Path) -> Option<String> {
    match Lock::try_take(folder) {
        Ok(Err(other)) if folder.exists() => Some(other.to_string()),
        _ => None,
    }
}

/// What to say of the cells that failed, each with the file that has all of its output.
pub fn failures(tally: &Tally) -> String {
    let each = tally.failures.iter();
    each.map(|(name, FailedCell { why, log })| {
        format!("{name}: {why}\n  all of it: {}", log.display())
    })
    .collect::<Vec<_>>()
    .join("\n")
}

/// The folder of runs, as an absolute path where it can be told.
pub fn absolute(runs: &Path) -> PathBuf {
    std::path::absolute(runs).unwrap_or_else(|_| runs.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_that_another_process_took_at_the_same_time_is_waited_for() {
        let (other, nobody) = (|| Some("process 7".to_string()), || None);
        assert_eq!(Ended::by(false, Some(2), other), Ended::Taken("process 7".into()));
        assert_eq!(Ended::by(false, Some(2), nobody), Ended::Failed, "of wrong settings");
        assert_eq!(Ended::by(false, Some(1), other), Ended::Failed, "it had its folder");
        assert_eq!(Ended::by(false, None, other), Ended::Failed, "killed");
        assert_eq!(Ended::by(false, Some(143), other), Ended::Interrupted);
        assert_eq!(Ended::by(true, Some(0), other), Ended::Done);
        assert_eq!(Ended::by(false, Some(0), nobody), Ended::Failed, "it left no result");
    }

    #[test]
    fn last_words_are_the_last_error_or_the_last_line() {
        assert_eq!(
            last_words(" INFO one\nerror: a\n INFO two\nerror: b\n\n--> c\n"),
            "error: b\n\n--> c"
        );
        assert_eq!(last_words("error: at once"), "error: at once");
        assert_eq!(last_words(" INFO one\nKilled\n"), "Killed");
        assert_eq!(last_words("\u{1b}[2J"), "\\u{1b}[2J");
        assert_eq!(last_words(""), "");
        assert_eq!(last_words(&"ä".repeat(3 * TOLD)).chars().count(), TOLD + 1);
    }

    #[test]
    fn the_output_of_an_earlier_start_and_of_long_before_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        fs::write(&log, "error: of yesterday\n INFO today\n").unwrap();
        assert_eq!(output(&log, 20).unwrap(), " INFO today\n");
        fs::write(&log, vec![b'x'; 3 * WORDS as usize]).unwrap();
        assert_eq!(output(&log, 20).unwrap().len() as u64, WORDS);
    }
}

//! Starts the processes of a run on this machine, and ends all where one ends: what torchrun does, for
//! those without Python.

use super::names::{HERE, LAUNCHED, TIMEOUT};
use crate::interrupt::{self, Interrupted};
use crate::usage;
use aflora_files::printable;
use anyhow::{bail, Context, Result};
use signal_hook::consts::{SIGINT, SIGKILL, SIGTERM};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Lines of a process that are shown where it fails.
const LINES: usize = 20;

/// How long the others have to end by themselves where one has failed, and how long where they were
/// told to.
const GRACE: Duration = Duration::from_secs(5);

/// What is to be started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Processes on this machine.
    pub here: usize,
    /// Machines.
    pub machines: usize,
    /// This machine's number, from 0.
    pub machine: usize,
    /// Where the processes meet: a name or address of machine 0, and a port there.
    pub master: Option<(String, u16)>,
    /// Seconds that the processes wait for each other.
    pub timeout: Option<f64>,
    /// What each does, as arguments of this program.
    pub arguments: Vec<String>,
}

/// One of the processes.
struct Process {
    rank: usize,
    child: Child,
    /// Its last lines on standard error, where these are not shown as they come.
    lines: Arc<Mutex<VecDeque<String>>>,
    reader: Option<JoinHandle<()>>,
    ended: Option<ExitStatus>,
}

/// Starts them and waits until all have ended.
///
/// # Errors
/// One cannot be started or fails: all are ended then, and the error names it and shows its last
/// lines. Or a signal came, and they ended as it asks.
pub fn launch(what: &Launch) -> Result<()> {
    let (host, port) = match &what.master {
        Some((host, port)) => (host.clone(), *port),
        None if what.machines > 1 => usage!(
            "--nnodes {} takes --master HOST:PORT, a name of machine 0 that all others know it by, \
             and a port that is free there",
            what.machines
        ),
        None => ("127.0.0.1".to_string(), free_port()?),
    };
    if what.machine >= what.machines {
        usage!("--node-rank {} of --nnodes {}; they count from 0", what.machine, what.machines);
    }
    interrupt::listen().context("signals cannot be caught")?;
    let mut processes = Vec::new();
    for number in 0..what.here {
        match start(what, number, &host, port) {
            Ok(process) => processes.push(process),
            Err(error) => {
                end(&mut processes, SIGTERM);
                return Err(error);
            }
        }
    }
    wait(&mut processes)
}

fn start(what: &Launch, number: usize, host: &str, port: u16) -> Result<Process> {
    let program = std::env::current_exe().context("this program is nowhere")?;
    let rank = what.machine * what.here + number;
    let mut command = Command::new(program);
    command
        .args(&what.arguments)
        .env("RANK", rank.to_string())
        .env("WORLD_SIZE", (what.machines * what.here).to_string())
        .env("LOCAL_RANK", number.to_string())
        .env("LOCAL_WORLD_SIZE", what.here.to_string())
        .env("MASTER_ADDR", host)
        .env("MASTER_PORT", port.to_string())
        .env(LAUNCHED, if what.machines == 1 { HERE } else { "1" })
        .env_remove("TORCHELASTIC_USE_AGENT_STORE")
        // A terminal's Ctrl-C comes here, and is handed on once.
        .process_group(0)
        .stdin(Stdio::null());
    if let Some(timeout) = what.timeout {
        command.env(TIMEOUT, timeout.to_string());
    }
    if rank > 0 {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
    }
    let mut child = command.spawn().with_context(|| format!("process {rank} cannot be started"))?;
    let lines: Arc<Mutex<VecDeque<String>>> = Arc::default();
    let reader = child.stderr.take().map(|from| {
        let lines = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.len() == LINES {
                    lines.pop_front();
                }
                lines.push_back(String::from_utf8_lossy(&line).into_owned());
            }
        })
    });
    Ok(Process { rank, child, lines, reader, ended: None })
}

/// A port that nobody has now.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port is free")?;
    Ok(listener.local_addr()?.port())
}

/// Waits for all, and hands signals on.
fn wait(processes: &mut [Process]) -> Result<()> {
    // The one that failed first; of those that did since it was last looked, one that was killed: the
    // others may have ended for its sake.
    let mut first: Option<(usize, ExitStatus)> = None;
    let (mut told, mut ending) = (None, None);
    while processes.iter().any(|process| process.ended.is_none()) {
        let before = first.is_some();
        for process in processes.iter_mut().filter(|process| process.ended.is_none()) {
            process.ended = process.child.try_wait()?;
            if let Some(status) = process.ended.filter(|status| !status.success()) {
                let killed = status.signal().is_some();
                if first.is_none() || (!before && killed) {
                    first = Some((process.rank, status));
                }
                ending.get_or_insert_with(Instant::now);
            }
        }
        if let (Err(Interrupted(signal)), None) = (interrupt::check(), told) {
            told = Some(signal);
            tell(processes, signal);
        }
        // Each ends by itself where another is lost; one that hangs does not.
        match ending.map(|since: Instant| since.elapsed()) {
            Some(waited) if waited > 2 * GRACE => tell(processes, SIGKILL),
            Some(waited) if waited > GRACE && told.is_none() => {
                told = Some(SIGTERM);
                tell(processes, SIGTERM);
            }
            _ => {}
        }
        thread::sleep(Duration::from_millis(20));
    }
    let Some((rank, status)) = first else { return Ok(()) };
    // What process 0 ended by, if it is here and said so.
    let zero = processes.iter().find(|process| process.rank == 0);
    let zero = zero.and_then(|process| process.ended).and_then(|status| status.code());
    let by_itself = [2, 128 + SIGINT, 128 + SIGTERM];
    if let Some(code) = zero.filter(|code| by_itself.contains(code)) {
        return Err(Ended(code).into());
    }
    // Before they train, signals end processes as they end any other.
    if let Some(signal) = told.filter(|signal| status.signal() == Some(*signal)) {
        return Err(Ended(128 + signal).into());
    }
    let Some(process) = processes.iter_mut().find(|process| process.rank == rank) else {
        return Err(Ended(1).into());
    };
    if let Some(reader) = process.reader.take() {
        // What it read is there, however it ended.
        drop(reader.join());
    }
    let lines = process.lines.lock().unwrap_or_else(PoisonError::into_inner);
    let how = match (status.code(), status.signal()) {
        // Why is told by process 0, or was by itself.
        (Some(code), _) if zero.is_some() && lines.is_empty() => return Err(Ended(code).into()),
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".into(),
    };
    let shown: Vec<String> = lines.iter().map(|l| format!("\n  {}", printable(l))).collect();
    bail!("process {rank} {how}, and all with it{}", shown.concat());
}

/// Process 0 has told why the work ended, so that nobody else need.
#[derive(Debug, thiserror::Error)]
#[error("process 0 ended with code {0}, and all with it")]
pub struct Ended(pub i32);

fn tell(processes: &[Process], signal: i32) {
    for process in processes.iter().filter(|process| process.ended.is_none()) {
        let id = rustix::process::Pid::from_child(&process.child);
        let signal = match signal {
            SIGINT => rustix::process::Signal::INT,
            SIGKILL => rustix::process::Signal::KILL,
            _ => rustix::process::Signal::TERM,
        };
        // One that has just ended needs no telling.
        let _ = rustix::process::kill_process(id, signal);
    }
}

fn end(processes: &mut [Process], signal: i32) {
    tell(processes, signal);
    for process in processes {
        let _ = process.child.wait();
    }
}

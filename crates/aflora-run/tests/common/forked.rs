//! The `aflora` command in a process that is forked instead of started.
//!
//! A program that is linked with libtorch takes a third of a second to start, in which libtorch registers
//! its operators, and these tests call the command hundreds of times. So each test program forks
//! off a server before its `main`, when libtorch is ready and nothing else has run, and the server forks
//! itself for each call: a process of its own, in which the command begins as it does in the program.

use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};

/// What one call asks for.
#[derive(Serialize, Deserialize)]
struct Call {
    place: Option<PathBuf>,
    arguments: Vec<OsString>,
    /// Variables to set, and those to remove.
    environment: Vec<(OsString, Option<OsString>)>,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// What a call of the program came to that reads nothing.
pub fn output(command: &Command) -> io::Result<Output> {
    let (mut stdout, mut stderr) =
        (tempfile::NamedTempFile::new()?, tempfile::NamedTempFile::new()?);
    let call = Call {
        place: command.get_current_dir().map(Path::to_path_buf),
        arguments: command.get_args().map(OsStr::to_os_string).collect(),
        environment: command
            .get_envs()
            .map(|(name, value)| (name.to_os_string(), value.map(OsStr::to_os_string)))
            .collect(),
        stdout: stdout.path().to_path_buf(),
        stderr: stderr.path().to_path_buf(),
    };
    let mut server = UnixStream::connect_addr(&address(std::process::id())?)?;
    serde_json::to_writer(&mut server, &call)?;
    server.shutdown(Shutdown::Write)?;
    let mut status = [0; 4];
    server.read_exact(&mut status)?;
    let mut output = Output {
        status: ExitStatus::from_raw(i32::from_ne_bytes(status)),
        stdout: Vec::new(),
        stderr: Vec::new(),
    };
    stdout.read_to_end(&mut output.stdout)?;
    stderr.read_to_end(&mut output.stderr)?;
    Ok(output)
}

/// Where the server of the test program with that process number listens: a name that is in no folder, and
/// gone with the server.
fn address(program: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("aflora-tests-{program}"))
}

/// Called before `main`, after what the libraries do when they are loaded.
#[used]
#[link_section = ".init_array"]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    let listener = address(std::process::id()).and_then(|name| UnixListener::bind_addr(&name));
    let listener = listener.expect("no other process has this one's number");
    if fork() == 0 {
        serve(&listener);
    }
}

/// Forks this process: 0 in the new one, which ends with the old one.
fn fork() -> libc::pid_t {
    // SAFETY: this process has a single thread.
    let process = unsafe { libc::fork() };
    assert!(process >= 0, "{}", io::Error::last_os_error());
    if process == 0 {
        // SAFETY: it only says which signal comes when the parent is gone.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    }
    process
}

fn serve(listener: &UnixListener) -> ! {
    // SAFETY: neither sets a function of ours. Rust's own start, which has yet to come, lets a write fail
    // where nobody reads; those who serve one call are gone without being waited for.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
    }
    loop {
        let (mut caller, _) = listener.accept().expect("the listener is this process's own");
        if fork() == 0 {
            let served = answer(&mut caller);
            aflora_run::leave(u8::from(served.is_err()));
        }
    }
}

/// Reads one call, has a process answer it, and tells how that ended.
fn answer(caller: &mut UnixStream) -> io::Result<()> {
    let mut text = Vec::new();
    caller.read_to_end(&mut text)?;
    let call: Call = serde_json::from_slice(&text)?;
    // SAFETY: the default is to keep what ended until it is waited for.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    let process = fork();
    if process == 0 {
        aflora_run::leave(catch_unwind(AssertUnwindSafe(|| run(&call))).unwrap_or(101));
    }
    let mut status = 0;
    // SAFETY: the number is written to a place that lives.
    while unsafe { libc::waitpid(process, &mut status, 0) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    caller.write_all(&status.to_ne_bytes())
}

fn run(call: &Call) -> u8 {
    let opened = [
        (File::open("/dev/null"), libc::STDIN_FILENO),
        (File::create(&call.stdout), libc::STDOUT_FILENO),
        (File::create(&call.stderr), libc::STDERR_FILENO),
    ];
    for (file, stream) in opened {
        // SAFETY: both are open, and nothing of this process has a stream in hand.
        let told = unsafe { libc::dup2(file.unwrap().as_raw_fd(), stream) };
        assert_eq!(told, stream, "{}", io::Error::last_os_error());
    }
    if let Some(place) = &call.place {
        std::env::set_current_dir(place).unwrap();
    }
    for (name, value) in &call.environment {
        match value {
            Some(value) => std::env::set_var(name, value),
            None => std::env::remove_var(name),
        }
    }
    aflora_run::main(std::iter::once("aflora".into()).chain(call.arguments.iter().cloned()))
}

//! What people see of a run: a bar on a terminal, plain lines elsewhere.
//!
//! Both stand behind one trait, so the training loop does not know which it has. Log lines go
//! above the bar instead of through it.

use aflora_files::{printable, printable_line};
use aflora_models::panics::without_stack;
use aflora_report::words::each_once;
pub use aflora_report::words::{counted, seconds, shown, thousands};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Shows how far long work is.
pub trait Progress {
    /// Long work of `total` units begins.
    fn begin(&mut self, what: &str, total: u64) {
        self.begin_at(what, 0, total);
    }
    /// Long work of `total` units goes on where `done` of them are done: they took no time now.
    fn begin_at(&mut self, what: &str, done: u64, total: u64);
    /// `done` units are done; `note` says how it goes.
    fn update(&mut self, done: u64, note: &str);
    /// The work has ended; what was shown of it goes away or stays as a line.
    fn end(&mut self);
}

/// The right kind of progress for standard error, and the sink for log lines that fits it.
pub fn for_stderr() -> (Box<dyn Progress>, LogSink) {
    if std::io::stderr().is_terminal() {
        let bars = MultiProgress::new();
        (Box::new(Bar { bars: bars.clone(), bar: None }), LogSink(To::Stderr(Some(bars))))
    } else {
        (Box::new(PlainProgress::default()), LogSink(To::Stderr(None)))
    }
}

/// For a process that trains with others and is not the first: nobody sees how far it is, and its log
/// goes to a file of its own.
pub fn for_another_process() -> (Box<dyn Progress>, LogSink) {
    (Box::new(Unseen), LogSink(To::Own(&OWN_LOG)))
}

/// From now on the log of a process that is not the first goes to this file, with all that was held so
/// far.
///
/// # Errors
/// It cannot be made.
pub fn keep_log(path: &std::path::Path) -> std::io::Result<()> {
    let mut log = OWN_LOG.lock().unwrap_or_else(PoisonError::into_inner);
    let mut file = aflora_files::own::open_to_append(path)?;
    file.write_all(&log.held)?;
    *log = OwnLog { held: Vec::new(), file: Some(file) };
    Ok(())
}

/// The log of a process that is not the first: held until it is known where it goes.
#[derive(Debug)]
struct OwnLog {
    held: Vec<u8>,
    file: Option<File>,
}

static OWN_LOG: Mutex<OwnLog> = Mutex::new(OwnLog { held: Vec::new(), file: None });

/// Progress that nobody sees.
struct Unseen;

impl Progress for Unseen {
    fn begin_at(&mut self, _: &str, _: u64, _: u64) {}
    fn update(&mut self, _: u64, _: &str) {}
    fn end(&mut self) {}
}

struct Bar {
    bars: MultiProgress,
    bar: Option<ProgressBar>,
}

impl Progress for Bar {
    fn begin_at(&mut self, what: &str, done: u64, total: u64) {
        self.end();
        let style = ProgressStyle::with_template(
            "{prefix:>10} {bar:28} {pos}/{len} {elapsed}<{eta} {wide_msg}",
        );
        let bar = self.bars.add(ProgressBar::new(total));
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(printable_line(what).into_owned());
        bar.set_position(done);
        bar.reset_eta();
        self.bar = Some(bar);
    }

    fn update(&mut self, done: u64, note: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            if !note.is_empty() {
                bar.set_message(printable_line(note).into_owned());
            }
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// A line every few seconds.
#[derive(Default)]
struct PlainProgress {
    what: String,
    before: u64,
    total: u64,
    started: Option<Instant>,
    last: Option<Instant>,
}

const LINE_EVERY: Duration = Duration::from_secs(15);

impl Progress for PlainProgress {
    fn begin_at(&mut self, what: &str, before: u64, total: u64) {
        let now = Some(Instant::now());
        let what = printable_line(what).into_owned();
        *self = PlainProgress { what, before, total, started: now, last: now };
    }

    fn update(&mut self, done: u64, note: &str) {
        let (Some(started), Some(last)) = (self.started, self.last) else { return };
        if last.elapsed() < LINE_EVERY || done <= self.before {
            return;
        }
        self.last = Some(Instant::now());
        let one = started.elapsed().as_secs_f64() / (done - self.before) as f64;
        let left = one * self.total.saturating_sub(done) as f64;
        let (what, note, left) = (&self.what, printable_line(note), seconds(left));
        eprintln!("{what} {done}/{} {note} (about {left} left)", self.total);
    }

    fn end(&mut self) {
        self.started = None;
    }
}

/// Where log lines go: standard error, above the bar if there is one. They hold names and errors
/// from anywhere, and come out printable.
#[derive(Clone)]
pub struct LogSink(To);

#[derive(Clone)]
enum To {
    Stderr(Option<MultiProgress>),
    Own(&'static Mutex<OwnLog>),
}

impl Write for LogSink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let text = printable(&text);
        let write = || std::io::stderr().write_all(text.as_bytes());
        match &self.0 {
            To::Stderr(Some(bars)) => bars.suspend(write)?,
            To::Stderr(None) => write()?,
            To::Own(log) => {
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                match &mut log.file {
                    Some(file) => file.write_all(text.as_bytes())?,
                    None => log.held.extend(text.as_bytes()),
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// An error with its causes, each told once, without libtorch's stack.
pub fn words(error: &anyhow::Error) -> String {
    each_once(error.chain().map(|cause| without_stack(&cause.to_string()).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_told_once_and_without_libtorch_s_stack() {
        let refused = std::io::Error::other("no such device");
        let error =
            anyhow::Error::new(aflora_models::Error::Io { path: "w".into(), source: refused });
        let told = words(&error.context("the model"));
        assert_eq!(told.matches("no such device").count(), 1, "{told}");
        assert!(told.starts_with("the model: "), "{told}");

        let [a, b] = [2, 3].map(|n| tch::Tensor::zeros([n], (tch::Kind::Float, tch::Device::Cpu)));
        let error = anyhow::Error::new(a.f_add(&b).unwrap_err()).context("step 3");
        assert!(format!("{error:#}").contains("frame #"), "libtorch gives its stack: {error:#}");
        let told = words(&error);
        assert!(told.starts_with("step 3: Internal torch error: The size of tensor a"), "{told}");
        assert!(!told.contains("frame #"), "{told}");
    }
}

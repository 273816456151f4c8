//! Who is still there: a TCP connection from each rank to rank 0, beside the collectives.
//!
//! A process that dies, whoever killed it, has its connection closed by the system at once; one that is
//! stopped, or whose machine is gone, says nothing more. Every rank tells how many collectives it has
//! come to, so that rank 0 sees which one keeps the others waiting. What is wrong is told to all,
//! with the rank's number: the collectives' own errors do not know it.

use super::frame::Frame;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What a rank was lost by.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rank {rank} {how}")]
pub struct Lost {
    /// Which.
    pub rank: usize,
    /// How, in words that follow its name.
    pub how: String,
}

impl Lost {
    /// Whether it told why it ends, before it did.
    pub fn failed(&self) -> bool {
        self.how.starts_with(FAILED)
    }

    /// Whether its process ended without a word.
    pub fn died(&self) -> bool {
        self.how.starts_with(DIED)
    }
}

/// How the words of a rank begin that tells why it ends.
const FAILED: &str = "failed: ";

/// How they begin where it was killed.
const DIED: &str = "died";

/// What is done where a rank is lost and this process does not end by itself.
pub(super) type OnLost = Arc<dyn Fn(&Lost) + Send + Sync>;

/// How long this process has to end by itself, where it waits for nobody on the CPU.
const GRACE: Duration = Duration::from_secs(2);

/// How long a collective that failed waits to hear which rank was lost.
const VERDICT: Duration = Duration::from_secs(3);

/// How far a rank has come, and since when.
#[derive(Debug, Clone, Copy)]
struct Progress {
    count: u64,
    since: Instant,
    /// Whether it has left as it should.
    left: bool,
}

/// What all threads of a lifeline share.
struct Shared {
    rank: usize,
    timeout: Duration,
    count: AtomicU64,
    /// Whether this process is leaving or failing by itself.
    ended: AtomicBool,
    lost: Mutex<Option<Lost>>,
    told: Condvar,
    /// By rank, on rank 0; its own is not in it.
    progress: Mutex<Vec<Option<Progress>>>,
    /// To whom this rank speaks: to all on rank 0, elsewhere to rank 0.
    peers: Mutex<Vec<TcpStream>>,
    on_lost: OnLost,
}

/// This rank's end of it.
pub(super) struct Lifeline(Arc<Shared>);

impl std::fmt::Debug for Lifeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lifeline").field("rank", &self.0.rank).finish_non_exhaustive()
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A port on which rank 0 listens, on all of its addresses.
pub(super) fn listen() -> io::Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))
}

impl Lifeline {
    fn new(rank: usize, size: usize, timeout: Duration, on_lost: OnLost) -> Self {
        Lifeline(Arc::new(Shared {
            rank,
            timeout,
            count: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            lost: Mutex::new(None),
            told: Condvar::new(),
            progress: Mutex::new(vec![None; size]),
            peers: Mutex::new(Vec::new()),
            on_lost,
        }))
    }

    /// Rank 0's: waits until all others have said who they are, but no longer than `patience`.
    ///
    /// # Errors
    /// They do not within the time; the error names one.
    pub fn serve(
        listener: &TcpListener,
        token: [u8; 16],
        size: usize,
        patience: Duration,
        timeout: Duration,
        on_lost: OnLost,
    ) -> io::Result<Self> {
        let line = Self::new(0, size, timeout, on_lost);
        let until = Instant::now() + patience;
        listener.set_nonblocking(true)?;
        let mut streams: Vec<Option<TcpStream>> = (0..size).map(|_| None).collect();
        while let Some(missing) = (1..size).find(|&rank| streams[rank].is_none()) {
            match listener.accept() {
                Ok((mut stream, _)) => {
                    stream.set_nonblocking(false)?;
                    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                    // Who says anything else is none of ours.
                    let Ok(Frame::Hello { rank, token: said }) = Frame::read(&mut stream) else {
                        continue;
                    };
                    let place = usize::try_from(rank).ok().and_then(|rank| streams.get_mut(rank));
                    if let Some(place) = place.filter(|_| said == token && rank > 0) {
                        *place = Some(stream);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() > until {
                        return Err(io::Error::other(format!("rank {missing} did not come")));
                    }
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(error),
            }
        }
        let start = Progress { count: 0, since: Instant::now(), left: false };
        *locked(&line.0.progress) = vec![Some(start); size];
        for (rank, stream) in streams.into_iter().enumerate() {
            if let Some(stream) = stream {
                line.0.hear(rank, stream)?;
            }
        }
        line.0.beat();
        Ok(line)
    }

    /// Another rank's.
    ///
    /// # Errors
    /// Rank 0 is not to be reached there.
    pub fn connect(
        address: (&str, u16),
        token: [u8; 16],
        (rank, size): (usize, usize),
        timeout: Duration,
        on_lost: OnLost,
    ) -> io::Result<Self> {
        let line = Self::new(rank, size, timeout, on_lost);
        let mut stream = TcpStream::connect(address)?;
        Frame::Hello { rank: rank as u64, token }.write(&mut stream)?;
        line.0.hear(0, stream)?;
        line.0.beat();
        Ok(line)
    }

    /// This rank has come to a further collective.
    pub fn enter(&self) {
        self.0.count.fetch_add(1, Ordering::Relaxed);
    }

    /// The rank that was lost, if one is; of one that may just be noticed, waits a little.
    pub fn verdict(&self, failed: bool) -> Option<Lost> {
        let lost = locked(&self.0.lost);
        let wait = if failed { VERDICT } else { Duration::ZERO };
        let waited = self.0.told.wait_timeout_while(lost, wait, |lost| lost.is_none());
        waited.map_or(None, |(lost, _)| lost.clone())
    }

    /// Says that this rank fails, and why; nobody is told that it died then.
    pub fn fail(&self, words: &str) {
        if self.0.ended.swap(true, Ordering::Relaxed) {
            return;
        }
        self.0.say(&match &*locked(&self.0.lost) {
            // What ends it was told to all already.
            Some(_) => Frame::Leaves,
            None => Frame::Failed(format!("{FAILED}{words}")),
        });
    }

    /// Says that this rank ends as it should.
    pub fn leave(&self) {
        if !self.0.ended.swap(true, Ordering::Relaxed) {
            self.0.say(&Frame::Leaves);
        }
    }
}

impl Shared {
    fn say(&self, frame: &Frame) {
        for peer in locked(&self.peers).iter_mut() {
            // A peer that is gone is noticed where it is listened to.
            let _ = frame.write(peer);
        }
    }

    /// Listens to a rank in a thread of its own, until it leaves or is lost.
    fn hear(self: &Arc<Self>, rank: usize, mut from: TcpStream) -> io::Result<()> {
        from.set_nodelay(true)?;
        from.set_read_timeout(Some(self.timeout))?;
        from.set_write_timeout(Some(self.timeout))?;
        locked(&self.peers).push(from.try_clone()?);
        let shared = Arc::clone(self);
        thread::Builder::new().name(format!("rank {rank}")).spawn(move || {
            loop {
                match Frame::read(&mut from) {
                    Ok(Frame::Beat(count)) => shared.came(rank, count),
                    Ok(Frame::Leaves) => break shared.left(rank),
                    Ok(Frame::Failed(how)) => break shared.lose(Lost { rank, how }),
                    Ok(Frame::Lost { rank, how }) => {
                        break shared.lose(Lost { rank: rank as usize, how })
                    }
                    Ok(Frame::Hello { .. }) => {}
                    Err(error) => break shared.lose(Lost { rank, how: silence(&error, &shared) }),
                }
            }
            let _ = from.shutdown(Shutdown::Read);
        })?;
        Ok(())
    }

    fn came(&self, rank: usize, count: u64) {
        if let Some(Some(progress)) = locked(&self.progress).get_mut(rank) {
            if progress.count != count {
                (progress.count, progress.since) = (count, Instant::now());
            }
        }
    }

    fn left(&self, rank: usize) {
        if let Some(Some(progress)) = locked(&self.progress).get_mut(rank) {
            progress.left = true;
        }
    }

    /// Takes it that a rank is lost: the first that is, is what is told.
    fn lose(self: &Arc<Self>, lost: Lost) {
        {
            let mut known = locked(&self.lost);
            if known.is_some() || self.ended.load(Ordering::Relaxed) {
                return;
            }
            *known = Some(lost.clone());
            self.told.notify_all();
        }
        if self.rank == 0 {
            self.say(&Frame::Lost { rank: lost.rank as u64, how: lost.how.clone() });
        }
        // Whoever waits for a GPU, which waits for the lost one, cannot be told.
        thread::sleep(GRACE);
        if !self.ended.swap(true, Ordering::Relaxed) {
            (self.on_lost)(&lost);
        }
    }

    /// Tells in a thread of its own that this rank lives, as long as it does; and on rank 0 who keeps
    /// the others waiting.
    fn beat(self: &Arc<Self>) {
        let every = (self.timeout / 4).clamp(Duration::from_millis(20), Duration::from_secs(1));
        let shared = Arc::clone(self);
        let beats = move || {
            while !shared.ended.load(Ordering::Relaxed) {
                let count = shared.count.load(Ordering::Relaxed);
                shared.say(&Frame::Beat(count));
                shared.came(0, count);
                if let Some(lost) = shared.keeps_waiting() {
                    return shared.lose(lost);
                }
                thread::sleep(every);
            }
        };
        // Without it this rank would be taken for lost, which is then the truth.
        drop(thread::Builder::new().name("beats".into()).spawn(beats));
    }

    /// The rank that has not come to where others have waited for longer than they may.
    fn keeps_waiting(&self) -> Option<Lost> {
        let all = locked(&self.progress);
        let here = || all.iter().enumerate().filter_map(|(rank, of)| Some((rank, (*of)?)));
        let first = here().max_by_key(|(_, of)| of.count).map(|(_, of)| of)?;
        let late =
            |of: &Progress| of.count < first.count && of.since.elapsed() > self.timeout && !of.left;
        let (rank, _) =
            here().filter(|_| first.since.elapsed() > self.timeout).find(|(_, of)| late(of))?;
        let seconds = self.timeout.as_secs_f64();
        Some(Lost { rank, how: format!("has kept the others waiting for {seconds} s: it hangs") })
    }
}

/// What it means that a rank is not heard any more.
fn silence(error: &io::Error, shared: &Shared) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!(
            "has said nothing for {} s: it is stopped, or its machine is gone",
            shared.timeout.as_secs_f64()
        ),
        _ => format!("{DIED}: it was killed, or ended without a word"),
    }
}

//! Several processes that compute one thing: [`World`], on libtorch's c10d.
//!
//! Ranks find each other in a TCP store, add up what lies on the CPU by Gloo, and what lies on a GPU by
//! NCCL. Beside it a lifeline tells which rank was lost. A world of one needs none of it: it is
//! nothing, and every call returns at once.

mod frame;
mod gathering;
mod gloo;
mod lifeline;
mod nccl;

pub use gathering::Gathering;
pub(crate) use gloo::available as gloo_available;
pub use lifeline::Lost;

use gloo::{Gloo, Store};
use lifeline::{listen, Lifeline};
use nccl::Nccl;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

/// Why a world cannot be joined, or does not go on.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WorldError {
    /// The ranks do not meet.
    #[error("rank {rank} of {size} found no other at {at} within {seconds} s: {words}")]
    Join {
        /// Who waited.
        rank: usize,
        /// For a world of so many.
        size: usize,
        /// Where.
        at: String,
        /// How long.
        seconds: f64,
        /// What was missing.
        words: String,
    },
    /// A rank is lost, and with it the work.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// What was to be done together failed.
    #[error("{what} failed on rank {rank}: {words}")]
    Collective {
        /// What.
        what: &'static str,
        /// Where.
        rank: usize,
        /// Why.
        words: String,
    },
}

type Result<T> = std::result::Result<T, WorldError>;

/// Where this process stands among those that work together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its number, from 0.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
    /// Its number among those of its machine, and how many these are; found by the machines' names
    /// where nobody said.
    pub local: Option<(usize, usize)>,
    /// A name or address by which all reach rank 0's machine.
    pub host: String,
    /// The store's port there.
    pub port: u16,
    /// Whether a launcher serves the store, and not rank 0.
    pub served: bool,
    /// What tells this world from others in the same store, such as the job and how often it was
    /// started.
    pub name: String,
}

/// All processes of one run; a handle to be cloned.
#[derive(Debug, Clone, Default)]
pub struct World(Option<Arc<Ranks>>);

#[derive(Debug)]
struct Ranks {
    rank: usize,
    size: usize,
    local: (usize, usize),
    gloo: Gloo,
    nccl: OnceLock<Nccl>,
    lifeline: Lifeline,
    /// Where ranks meet; the one that serves it does so as long as it is held.
    _store: Store,
}

impl World {
    /// One process.
    pub fn alone() -> World {
        World(None)
    }

    /// Meets all others; returns when all are there. `timeout` bounds this, every collective
    /// later, and how long a rank may say nothing.
    ///
    /// Where a rank is lost and this process does not end within seconds of itself, `on_lost` is
    /// called, in another thread: it is to end the process, whose work waits for nobody.
    ///
    /// # Errors
    /// A rank does not come within the time, or the build has no collectives.
    pub fn join(
        place: &Place,
        timeout: Duration,
        on_lost: impl Fn(&Lost) + Send + Sync + 'static,
    ) -> Result<World> {
        if place.size == 1 {
            return Ok(World::alone());
        }
        let ranks = Ranks::meet(place, timeout, Arc::new(on_lost)).map_err(|words| {
            let (rank, size) = (place.rank, place.size);
            let at = format!("{}:{}", place.host, place.port);
            WorldError::Join { rank, size, at, seconds: timeout.as_secs_f64(), words }
        })?;
        Ok(World(Some(Arc::new(ranks))))
    }

    /// This process's number, from 0.
    pub fn rank(&self) -> usize {
        self.0.as_ref().map_or(0, |ranks| ranks.rank)
    }

    /// How many processes there are.
    pub fn size(&self) -> usize {
        self.0.as_ref().map_or(1, |ranks| ranks.size)
    }

    /// This process's number among those of its machine, and how many these are.
    pub fn local(&self) -> (usize, usize) {
        self.0.as_ref().map_or((0, 1), |ranks| ranks.local)
    }

    /// Whether this is rank 0, which speaks and writes for all.
    pub fn leads(&self) -> bool {
        self.rank() == 0
    }

    /// Whether there is no other.
    pub fn is_alone(&self) -> bool {
        self.0.is_none()
    }

    /// This rank's share of what is done in turn: every `size`-th, from its number on.
    pub fn share<T: Copy>(&self, of: &[T]) -> Vec<T> {
        of.iter().skip(self.rank()).step_by(self.size()).copied().collect()
    }

    /// Lets tensors on this GPU be added up by NCCL; all ranks must call it.
    ///
    /// # Errors
    /// NCCL is missing, or two ranks have one GPU.
    pub fn use_gpu(&self, device: usize) -> Result<()> {
        let Some(ranks) = &self.0 else { return Ok(()) };
        let failed = |e: crate::Error| ranks.failed("NCCL", e.to_string());
        let id = match ranks.rank {
            0 => Nccl::new_id().map_err(failed)?.to_vec(),
            _ => Vec::new(),
        };
        let id = self.broadcast_bytes(id, 0)?;
        let id = id.try_into().map_err(|_| ranks.failed("NCCL", "an id of another size".into()))?;
        let group = Nccl::open(&id, (ranks.rank, ranks.size), device).map_err(failed)?;
        // A second group of one process would never be used.
        drop(ranks.nccl.set(group));
        // Connections are made at the first sum, which no graph can record.
        let one = Tensor::ones([1], (Kind::Float, Device::Cuda(device)));
        self.all_reduce(&one)?;
        let sum = one.double_value(&[0]);
        match sum == ranks.size as f64 {
            true => Ok(()),
            false => Err(ranks.failed("NCCL", format!("the first sum was {sum}"))),
        }
    }

    /// The sum over all ranks, in the tensor's place, which must be whole. On a GPU it is launched,
    /// and can be recorded.
    ///
    /// # Errors
    /// A rank is lost, or does not come within the time.
    pub fn all_reduce(&self, t: &Tensor) -> Result<()> {
        let Some(ranks) = &self.0 else { return Ok(()) };
        ranks.lifeline.enter();
        let done = match t.device() {
            Device::Cuda(_) => ranks.nccl(t)?.all_reduce(t).map_err(|e| e.to_string()),
            _ => ranks.gloo.all_reduce(t),
        };
        done.map_err(|words| ranks.failed("an all-reduce", words))
    }

    /// What `root` has, in the tensor's place on every rank.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce).
    pub fn broadcast(&self, t: &Tensor, root: usize) -> Result<()> {
        let Some(ranks) = &self.0 else { return Ok(()) };
        ranks.lifeline.enter();
        let done = match t.device() {
            Device::Cuda(_) => ranks.nccl(t)?.broadcast(t, root).map_err(|e| e.to_string()),
            _ => ranks.gloo.broadcast(t, root),
        };
        done.map_err(|words| ranks.failed("a broadcast", words))
    }

    /// What each rank gave, in their order, on every rank.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce).
    pub fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let Some(ranks) = &self.0 else { return Ok(vec![bytes.to_vec()]) };
        let lengths = ranks.all_gather(&Tensor::from_slice(&[bytes.len() as i64]))?;
        let lengths = Vec::<i64>::try_from(lengths.flatten(0, -1));
        let lengths = lengths.map_err(|e| ranks.failed("a gathering", e.to_string()))?;
        let longest = lengths.iter().max().map_or(0, |n| *n as usize);
        if longest == 0 {
            return Ok(vec![Vec::new(); ranks.size]);
        }
        let mut given = bytes.to_vec();
        given.resize(longest, 0);
        let all = ranks.all_gather(&Tensor::from_slice(&given))?;
        let row = |(rank, length): (i64, &i64)| {
            let mut row = vec![0u8; *length as usize];
            all.get(rank).narrow(0, 0, *length).copy_data_u8(&mut row, *length as usize);
            row
        };
        Ok((0..).zip(&lengths).map(row).collect())
    }

    /// What `root` gave, on every rank.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce).
    pub fn broadcast_bytes(&self, bytes: Vec<u8>, root: usize) -> Result<Vec<u8>> {
        let given = if self.rank() == root { bytes } else { Vec::new() };
        if self.is_alone() {
            return Ok(given);
        }
        let length = Tensor::from_slice(&[given.len() as i64]);
        self.broadcast(&length, root)?;
        let length = length.int64_value(&[0]) as usize;
        if length == 0 {
            return Ok(Vec::new());
        }
        let mut buffer = given;
        buffer.resize(length, 0);
        let all = Tensor::from_slice(&buffer);
        self.broadcast(&all, root)?;
        all.copy_data_u8(&mut buffer, length);
        Ok(buffer)
    }

    /// Waits until all have come here.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce).
    pub fn barrier(&self) -> Result<()> {
        self.all_reduce(&Tensor::zeros([1], (Kind::Float, Device::Cpu)))
    }

    /// The rank that was lost, if one is known to be.
    pub fn lost(&self) -> Option<Lost> {
        self.0.as_ref().and_then(|ranks| ranks.lifeline.verdict(false))
    }

    /// Ends the world since this rank fails for this reason: all others are told, and end.
    pub fn abort(&self, reason: &str) {
        if let Some(ranks) = &self.0 {
            ranks.lifeline.fail(reason);
        }
    }

    /// Ends this rank's part as it should, when all have come here.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce).
    pub fn leave(&self) -> Result<()> {
        let Some(ranks) = &self.0 else { return Ok(()) };
        self.barrier()?;
        ranks.lifeline.leave();
        Ok(())
    }
}

impl Ranks {
    fn meet(
        place: &Place,
        timeout: Duration,
        on_lost: lifeline::OnLost,
    ) -> std::result::Result<Ranks, String> {
        let &Place { rank, size, .. } = place;
        let until = Instant::now() + timeout;
        // What is left of the time; a moment even where nothing is, to see what is there already.
        let left = || until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let serves = rank == 0 && !place.served;
        let name = format!("aflora/{}", place.name);
        let store = Store::open((&place.host, place.port), serves, &name, timeout)?;
        store.set(&format!("here/{rank}"), size.to_string().as_bytes())?;
        for other in 0..size {
            let said = store.get(&format!("here/{other}"), left());
            let said = said.map_err(|words| format!("rank {other} did not come ({words})"))?;
            let said = String::from_utf8_lossy(&said);
            if said != size.to_string() {
                return Err(format!("rank {other} is of a world of {said}"));
            }
        }
        const LIFELINE: &str = "lifeline";
        let lifeline = if rank == 0 {
            let listener = listen().map_err(|e| e.to_string())?;
            let port = listener.local_addr().map_err(|e| e.to_string())?.port();
            let token = token();
            store.set(LIFELINE, &[&port.to_le_bytes()[..], &token].concat())?;
            Lifeline::serve(&listener, token, size, left(), timeout, on_lost)
        } else {
            let said = store.get(LIFELINE, left())?;
            let (Some(port), Some(token)) = (said.first_chunk(), said.last_chunk()) else {
                return Err("the store holds no lifeline".into());
            };
            let at = (place.host.as_str(), u16::from_le_bytes(*port));
            Lifeline::connect(at, *token, (rank, size), timeout, on_lost)
        };
        let lifeline = lifeline.map_err(|e| e.to_string())?;
        // A rank that is late is named by the lifeline, so that comes first.
        let patience = timeout + Duration::from_secs(5);
        let gloo = Gloo::open(&store, rank, size, patience)?;
        let nccl = OnceLock::new();
        let (local, _store) = (place.local.unwrap_or((0, 1)), store);
        let mut ranks = Ranks { rank, size, local, gloo, nccl, lifeline, _store };
        if place.local.is_none() {
            ranks.local = ranks.find_local().map_err(|e| e.to_string())?;
        }
        Ok(ranks)
    }

    /// This rank's number among those whose machine has the same name.
    fn find_local(&self) -> Result<(usize, usize)> {
        const ROOM: usize = 256;
        let name = std::fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
        let mut own = [0u8; ROOM];
        own.iter_mut().zip(name).for_each(|(to, from)| *to = from);
        let all = self.all_gather(&Tensor::from_slice(&own))?;
        let own = all.get(self.rank as i64);
        let same = (0..self.size).filter(|rank| all.get(*rank as i64) == own);
        let same: Vec<usize> = same.collect();
        Ok((same.iter().filter(|rank| **rank < self.rank).count(), same.len()))
    }

    fn all_gather(&self, t: &Tensor) -> Result<Tensor> {
        self.lifeline.enter();
        let shape = [&[self.size as i64][..], &t.size()].concat();
        let all = Tensor::zeros(shape, (t.kind(), Device::Cpu));
        let done = self.gloo.all_gather(t, &all);
        done.map_err(|words| self.failed("a gathering", words))?;
        Ok(all)
    }

    fn nccl(&self, t: &Tensor) -> Result<&Nccl> {
        let missing = || self.failed("NCCL", format!("it was not opened on {:?}", t.device()));
        let here = |nccl: &&Nccl| t.device() == Device::Cuda(nccl.device);
        self.nccl.get().filter(here).ok_or_else(missing)
    }

    /// Why something failed: because a rank was lost, if one was.
    fn failed(&self, what: &'static str, words: String) -> WorldError {
        match self.lifeline.verdict(true) {
            Some(lost) => lost.into(),
            None => WorldError::Collective { what, rank: self.rank, words },
        }
    }
}

/// Bytes that nobody else knows.
fn token() -> [u8; 16] {
    let mut token = [0; 16];
    for half in token.chunks_exact_mut(8) {
        // The standard library seeds it from the system's randomness.
        half.copy_from_slice(&RandomState::new().hash_one(Instant::now()).to_le_bytes());
    }
    token
}

//! Several processes that train one run: which of them this is, how they are started, how they end.

pub mod environment;
mod names;
pub mod start;

use crate::{is_usage, usage};
use aflora_cuda::{Lost, World, WorldError};
use anyhow::Result;
use names::{HERE, LAUNCHED, TIMEOUT};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Seconds that processes wait for each other where nothing is said: as long as PyTorch's NCCL.
const SECONDS: f64 = 600.0;

/// How long the first process has to say what is wrong with what it was told, before another does.
const FIRST_SAYS: Duration = Duration::from_secs(10);

/// Whether this process tells people what happens: of several, the first alone.
static SPEAKS: AtomicBool = AtomicBool::new(true);

/// Whether this process tells people what happens, its errors too: of several that have met, the first
/// does, and what happened to the others.
pub fn speaks() -> bool {
    SPEAKS.load(Ordering::Relaxed)
}

/// This process's number among those that the environment speaks of, where it speaks well of them.
pub fn rank() -> usize {
    let place = environment::place(&|name| std::env::var(name).ok());
    place.ok().flatten().map_or(0, |place| place.rank)
}

/// Meets the other processes of the run, where the environment says that there are any.
///
/// # Errors
/// The environment contradicts itself, or a process does not come.
pub fn join() -> Result<World> {
    let Some(place) = environment::place(&|name| std::env::var(name).ok())? else {
        return Ok(World::alone());
    };
    let timeout = timeout(std::env::var(TIMEOUT).ok().as_deref())?;
    // Before the first tensor, with which they greet each other. Where it fails and is wanted, whoever
    // chooses the device says so.
    drop(aflora_cuda::load());
    let rank = place.rank;
    let world = World::join(&place, timeout, move |lost| {
        if tells(lost, rank, all_started_here()) {
            eprintln!("error: {lost}");
        }
        // At once: what libtorch does at an exit waits for the GPU, which waits for the lost one.
        signal_hook::low_level::exit(1);
    })?;
    SPEAKS.store(rank == 0, Ordering::Relaxed);
    Ok(world)
}

/// Takes it that the work of this process of a world has ended so: the others end, too.
pub fn leave(world: &World, result: Result<()>) -> Result<()> {
    let stopped = |error: &anyhow::Error| error.is::<crate::interrupt::Interrupted>();
    match result {
        Ok(()) => Ok(world.leave()?),
        Err(error) if stopped(&error) => {
            // All have stopped behind the same step. What else fails now is not what ended it.
            let _ = world.leave();
            Err(error)
        }
        Err(error) => {
            // One that was lost in the midst of libtorch's work is known by its words alone.
            let told = lost(&error).is_some();
            let error = match world.lost() {
                Some(lost) if !told => WorldError::Lost(lost).into(),
                _ => error,
            };
            if let Some(lost) = lost(&error) {
                SPEAKS.store(tells(lost, world.rank(), all_started_here()), Ordering::Relaxed);
            }
            if world.rank() > 0 && is_usage(&error) {
                // The first has read the same, and says it with the right code: it is only slower. What
                // it says ends this process.
                std::thread::sleep(FIRST_SAYS);
            }
            world.abort(&crate::ui::words(&error));
            Err(error)
        }
    }
}

/// The process whose loss an error is about.
fn lost(error: &anyhow::Error) -> Option<&Lost> {
    error.chain().find_map(|cause| {
        let world = match cause.downcast_ref() {
            Some(aflora_core::Error::World(world)) => Some(world),
            _ => cause.downcast_ref(),
        };
        match world {
            Some(WorldError::Lost(lost)) => Some(lost),
            _ => None,
        }
    })
}

/// Whether process `rank` is the one that tells that another was lost: the first, or the next where that
/// is the one and did not tell itself. That one died is told by whom started `all` of them, with how.
fn tells(lost: &Lost, rank: usize, all: bool) -> bool {
    match lost.rank {
        _ if all && lost.died() => false,
        0 => rank == 1 && !lost.failed(),
        _ => rank == 0,
    }
}

/// Whether all processes were started by one [`start::launch`].
fn all_started_here() -> bool {
    std::env::var(LAUNCHED).is_ok_and(|said| said == HERE)
}

fn timeout(said: Option<&str>) -> Result<Duration> {
    let Some(said) = said else { return Ok(Duration::from_secs_f64(SECONDS)) };
    match said.trim().parse::<f64>() {
        Ok(seconds) if (0.1..=1e6).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => usage!("{TIMEOUT}={said} in the environment is no number of seconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_tells_of_each_loss() {
        let lost = |rank, how: &str| Lost { rank, how: how.into() };
        let who = |lost: Lost| (0..4).filter(|r| tells(&lost, *r, false)).collect::<Vec<_>>();
        assert_eq!(who(lost(2, "died")), [0]);
        assert_eq!(who(lost(0, "died")), [1]);
        assert_eq!(who(lost(0, "failed: the disk is full")), [0; 0], "it told itself");
        assert_eq!(who(lost(1, "failed: the disk is full")), [0]);
        // Who started them sees how it died, and does not see that one hangs.
        assert!(!tells(&lost(1, "died"), 0, true) && tells(&lost(1, "has said nothing"), 0, true));
    }

    #[test]
    fn the_time_is_in_seconds() {
        assert_eq!(timeout(None).unwrap(), Duration::from_secs(600));
        assert_eq!(timeout(Some("2.5")).unwrap(), Duration::from_millis(2500));
        for wrong in ["", "ten", "-1", "nan", "1e300"] {
            assert!(timeout(Some(wrong)).unwrap_err().is::<crate::UsageError>(), "{wrong}");
        }
    }
}

//! Gathering that goes on beside other work.

use super::gloo::Work;
use super::nccl::Event;
use super::{Ranks, Result, World, WorldError};
use std::sync::Arc;
use tch::{Device, Tensor};

/// What is being gathered: it is there once it was [waited for](Self::wait).
#[derive(Debug)]
#[must_use]
pub struct Gathering(Option<(Arc<Ranks>, Begun)>);

#[derive(Debug)]
enum Begun {
    /// By Gloo.
    Work(Work),
    /// By NCCL.
    Event(Event),
}

impl World {
    /// Begins to gather what each rank has: `t`, `[n]` on all of them, one behind the other in `all`,
    /// `[ranks · n]`, both whole. On a GPU it runs on a stream of its own, behind what the current one has
    /// been given so far. Until it was waited for, neither tensor may be touched.
    ///
    /// All ranks must ask for the same, in the same order as all else that they do together.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce).
    pub fn begin_gather(&self, t: &Tensor, all: &Tensor) -> Result<Gathering> {
        let Some(ranks) = &self.0 else {
            // By a handle with a version of its own: what autograd keeps of `all` is to find it filled, and
            // not changed.
            tch::no_grad(|| all.data().f_copy_(t)).map_err(|e| alone(&e))?;
            return Ok(Gathering(None));
        };
        ranks.lifeline.enter();
        let begun = match t.device() {
            Device::Cuda(_) => {
                ranks.nccl(t)?.gather(t, all).map(Begun::Event).map_err(|e| e.to_string())
            }
            _ => ranks.gloo.gather(t, all).map(Begun::Work),
        };
        let begun = begun.map_err(|words| ranks.failed(WHAT, words))?;
        Ok(Gathering(Some((ranks.clone(), begun))))
    }
}

const WHAT: &str = "a gathering";

fn alone(error: &tch::TchError) -> WorldError {
    WorldError::Collective { what: WHAT, rank: 0, words: error.to_string() }
}

impl Gathering {
    /// Waits until it is there; on a GPU the current stream does.
    ///
    /// # Errors
    /// As [`World::all_reduce`].
    pub fn wait(self) -> Result<()> {
        let Some((ranks, begun)) = self.0 else { return Ok(()) };
        let done = match &begun {
            Begun::Work(work) => work.wait(),
            Begun::Event(event) => match ranks.nccl.get() {
                Some(nccl) => nccl.wait(event).map_err(|e| e.to_string()),
                None => Ok(()),
            },
        };
        done.map_err(|words| ranks.failed(WHAT, words))
    }
}

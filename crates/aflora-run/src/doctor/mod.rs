//! What this machine has for runs, what is missing, and how to get it.
//!
//! Nothing is asked of a network, and nothing is changed: whether a folder can be written is found by
//! making a temporary one in it.
//!
//! | module | |
//! |---|---|
//! | `finding` | what was found of one thing |
//! | `program` | which program this is, and what comes with the project |
//! | `torch` | libtorch, and whether it computes |
//! | `gpu` | the driver, GPUs, and what serves them |
//! | `host` | processors, memory, several processes |
//! | `storage` | the disks of runs and of the cache, the hub |

mod finding;
mod gpu;
mod host;
mod program;
mod storage;
mod torch;

pub use finding::{Finding, State};

use crate::hub::Hub;
use serde::Serialize;
use std::path::Path;

/// All that was found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether a run with default settings can work.
    pub works: bool,
    /// One thing after another.
    pub findings: Vec<Finding>,
}

/// Looks at everything. `runs` is the folder that runs are to be written to.
///
/// Must be called before the process makes its first tensor: libtorch looks for GPUs once.
pub fn examine(runs: &Path) -> Report {
    let (devices, gpus) = gpu::examine();
    let hub = Hub::from_env();
    let mut findings = vec![program::program(), torch::libtorch()];
    findings.extend(gpus);
    findings.extend(devices.into_iter().map(torch::computes));
    findings.extend([host::gloo(), host::processors(), host::memory()]);
    findings.extend([storage::runs(runs), storage::cache(&hub), storage::hub(&hub)]);
    findings.push(program::default_run());
    let works = findings.iter().all(|finding| finding.state != State::Missing);
    Report { works, findings }
}

//! `aflora launch`: a run over several processes.

use aflora_run::launch::start::{launch, Launch};
use aflora_run::UsageError;
use anyhow::Result;
use clap::Args;

pub const HELP: &str = "\
Each process trains on its share of the rows of every batch, on a GPU of its own where there is one;
what comes of it is one run folder. batch_size is of all of them together. torchrun, srun and mpirun
start the same without this command: docs/distributed.md.

Examples:
  aflora launch --nproc 2 run configs/experiment.yaml task=mrpc model=deberta-v3-base device=cuda
  aflora launch --nproc 8 --nnodes 2 --node-rank 0 --master gpu01:29500 run my-run.yaml";

/// Start a run over several processes on this machine.
#[derive(Args)]
pub struct LaunchArguments {
    /// Processes on this machine, such as one a GPU.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    nproc: u16,
    /// Machines, on each of which this command is given.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    nnodes: u16,
    /// The number of this machine, from 0.
    #[arg(long, value_name = "N", default_value_t = 0)]
    node_rank: u16,
    /// Where the processes meet: a name of machine 0 and a free port there.
    #[arg(long, value_name = "HOST:PORT")]
    master: Option<String>,
    /// Seconds that processes wait for each other before they take one for lost: 600 by default.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<f64>,
    /// `run` and what it takes.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    pub command: Vec<String>,
}

impl LaunchArguments {
    /// Starts the processes and waits for them.
    ///
    /// # Errors
    /// The arguments are wrong, or a process fails.
    pub fn run(self) -> Result<()> {
        let refuse = |words: String| Err(UsageError(words).into());
        if self.command.first().is_none_or(|first| first != "run") {
            return refuse("aflora launch takes `run` and its arguments: aflora launch --nproc 2 run my-run.yaml".into());
        }
        if let Some(seconds) = self.timeout.filter(|seconds| !(0.1..=1e6).contains(seconds)) {
            return refuse(format!("--timeout {seconds}: name 0.1 to 1000000 seconds"));
        }
        let master = match self.master.as_deref().map(|at| (at, at.rsplit_once(':'))) {
            None => None,
            Some((at, parts)) => match parts.and_then(|(h, p)| Some((h, p.parse().ok()?))) {
                Some((host, port)) => Some((host.trim_matches(['[', ']']).to_string(), port)),
                None => return refuse(format!("--master {at} is no HOST:PORT")),
            },
        };
        launch(&Launch {
            here: self.nproc.into(),
            machines: self.nnodes.into(),
            machine: self.node_rank.into(),
            master,
            timeout: self.timeout,
            arguments: self.command,
        })
    }
}

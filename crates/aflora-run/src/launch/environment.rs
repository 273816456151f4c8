//! This process's place among others, as whoever started it says in the environment: torchrun and all
//! that use its names (PyTorchJob, `aflora launch`), Slurm's srun, Open MPI's mpirun.

use super::names::LAUNCHED;
use crate::usage;
use aflora_cuda::Place;
use anyhow::Result;
use std::fmt::Display;
use std::str::FromStr;

/// Where jobs of Slurm and Open MPI meet where nothing else is said: a port of this range, by the job.
const PORTS: std::ops::Range<u64> = 20_000..30_000;

/// What looks a variable up.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The place that the environment says; none where it says nothing of others.
///
/// # Errors
/// It says half of it, or things that contradict each other.
pub fn place(get: Lookup<'_>) -> Result<Option<Place>> {
    let variables = Variables(get);
    let found = match variables.torch()? {
        Some(place) => Some(place),
        None => match variables.slurm()? {
            Some(place) => Some(place),
            None => variables.open_mpi()?,
        },
    };
    let Some(place) = found else { return Ok(None) };
    variables.agree(&place)?;
    let Place { rank, size, local, .. } = place;
    if rank >= size {
        usage!("the environment says that this is process {rank} of {size}; they count from 0");
    }
    if let Some((number, beside)) = local {
        if number >= beside || beside > size || number > rank {
            usage!(
                "the environment says that this is process {number} of {beside} on its machine and \
                 {rank} of {size} in all, which cannot be"
            );
        }
    }
    Ok(Some(place))
}

struct Variables<'a>(Lookup<'a>);

impl Variables<'_> {
    fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>>
    where
        T::Err: Display,
    {
        let Some(value) = self.text(name) else { return Ok(None) };
        match value.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(error) => usage!("{name}={value} in the environment is no such number: {error}"),
        }
    }

    /// torchrun's names.
    fn torch(&self) -> Result<Option<Place>> {
        const NAMES: [&str; 4] = ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"];
        let (rank, size) = (self.number::<usize>("RANK")?, self.number::<usize>("WORLD_SIZE")?);
        // The address alone may be there for those that Slurm or Open MPI start.
        if rank.is_none() && (size.is_none() || size == Some(1)) {
            return Ok(None);
        }
        if (rank, size) == (Some(0), Some(1)) {
            return Ok(None);
        }
        let there = NAMES.iter().filter(|name| self.text(name).is_some());
        let there: Vec<&str> = there.copied().collect();
        let missing = NAMES.iter().filter(|name| !there.contains(name));
        let missing: Vec<&str> = missing.copied().collect();
        let (Some(rank), Some(size), Some(host), Some(port)) =
            (rank, size, self.text("MASTER_ADDR"), self.number("MASTER_PORT")?)
        else {
            usage!(
                "{} in the environment say{} that this is one of several processes, but {} {} \
                 missing; start it with `aflora launch` or torchrun, which set all of them, or \
                 remove what is left of another program",
                there.join(", "),
                if there.len() == 1 { "s" } else { "" },
                missing.join(", "),
                if missing.len() == 1 { "is" } else { "are" },
            );
        };
        let local = match (self.number("LOCAL_RANK")?, self.number("LOCAL_WORLD_SIZE")?) {
            (Some(number), Some(beside)) => Some((number, beside)),
            // Found by the machines' names.
            _ => None,
        };
        let run = self.text("TORCHELASTIC_RUN_ID").unwrap_or_default();
        // What is left of the start before does not count in the store.
        let start = self.text("TORCHELASTIC_RESTART_COUNT").unwrap_or_default();
        let served = self.text("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|said| said == "True");
        let name = format!("{run}/{start}");
        Ok(Some(Place { rank, size, local, host, port, served, name }))
    }

    /// Those of a step of srun: a batch script by itself has some of them, but no step.
    fn slurm(&self) -> Result<Option<Place>> {
        if self.text("SLURM_STEP_ID").is_none() {
            return Ok(None);
        }
        let size = self.number::<usize>("SLURM_STEP_NUM_TASKS")?;
        let Some(size) = size.filter(|size| *size > 1) else { return Ok(None) };
        let Some(rank) = self.number("SLURM_PROCID")? else {
            usage!(
                "SLURM_STEP_NUM_TASKS={size} in the environment, but SLURM_PROCID is missing; start \
                 it with srun"
            );
        };
        let job: u64 = self.number("SLURM_JOB_ID")?.unwrap_or(0);
        let step = self.text("SLURM_STEP_ID").unwrap_or_default();
        let nodes = self.text("SLURM_STEP_NODELIST").or_else(|| self.text("SLURM_JOB_NODELIST"));
        let host = match (self.text("MASTER_ADDR"), nodes.as_deref().and_then(first_host)) {
            (Some(host), _) | (None, Some(host)) => host,
            (None, None) => usage!(
                "Slurm says neither SLURM_STEP_NODELIST nor SLURM_JOB_NODELIST; set MASTER_ADDR to \
                 the machine of process 0"
            ),
        };
        let port = self.port(job)?;
        let name = format!("slurm/{job}/{step}");
        Ok(Some(Place { rank, size, local: None, host, port, served: false, name }))
    }

    /// Those of mpirun.
    fn open_mpi(&self) -> Result<Option<Place>> {
        let size = self.number::<usize>("OMPI_COMM_WORLD_SIZE")?;
        if let (None, Some(rank)) = (size, self.number::<usize>("OMPI_COMM_WORLD_RANK")?) {
            usage!(
                "OMPI_COMM_WORLD_RANK={rank} in the environment, but OMPI_COMM_WORLD_SIZE is \
                 missing; start it with mpirun"
            );
        }
        let Some(size) = size.filter(|size| *size > 1) else { return Ok(None) };
        let Some(rank) = self.number("OMPI_COMM_WORLD_RANK")? else {
            usage!(
                "OMPI_COMM_WORLD_SIZE={size} in the environment, but OMPI_COMM_WORLD_RANK is \
                 missing; start it with mpirun"
            );
        };
        let local = (
            self.number("OMPI_COMM_WORLD_LOCAL_RANK")?,
            self.number("OMPI_COMM_WORLD_LOCAL_SIZE")?,
        );
        let local = match local {
            (Some(number), Some(beside)) => Some((number, beside)),
            _ => None,
        };
        let here = local.is_some_and(|(_, beside)| beside == size);
        let host = match self.text("MASTER_ADDR") {
            Some(host) => host,
            None if here => "127.0.0.1".into(),
            None => usage!(
                "mpirun does not say where process 0 of several machines is; set it with `-x \
                 MASTER_ADDR=machine`"
            ),
        };
        let job = ["PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"].iter().find_map(|n| self.text(n));
        let job = job.unwrap_or_default();
        let number = job.bytes().fold(0u64, |n, byte| n.wrapping_mul(31) + u64::from(byte));
        let port = self.port(number)?;
        let name = format!("mpi/{job}");
        Ok(Some(Place { rank, size, local, host, port, served: false, name }))
    }

    /// The port that is said, or one by the job's number.
    fn port(&self, job: u64) -> Result<u16> {
        let own = PORTS.start + job % (PORTS.end - PORTS.start);
        Ok(self.number("MASTER_PORT")?.unwrap_or(own as u16))
    }

    /// That torchrun's names, where they were used, and those of another launcher do not say two
    /// things: torchrun itself may be started once a machine by srun or mpirun, and then counts
    /// otherwise.
    fn agree(&self, place: &Place) -> Result<()> {
        let nested = ["TORCHELASTIC_RUN_ID", LAUNCHED].iter().any(|n| self.text(n).is_some());
        if nested || self.text("RANK").is_none() {
            return Ok(());
        }
        for (by, other) in [("srun", self.slurm()), ("mpirun", self.open_mpi())] {
            // What another launcher says by halves has no say here.
            let Ok(Some(other)) = other else { continue };
            if (other.rank, other.size) != (place.rank, place.size) {
                usage!(
                    "the environment says two things: RANK and WORLD_SIZE that this is process {} \
                     of {}, and {by} that it is {} of {}; unset RANK and WORLD_SIZE, or set both to \
                     {by}'s",
                    place.rank,
                    place.size,
                    other.rank,
                    other.size
                );
            }
        }
        Ok(())
    }
}

/// The first machine of a list as Slurm writes it: `gpu[03-05,7],login`.
fn first_host(list: &str) -> Option<String> {
    let end = list.find([',', '[']).unwrap_or(list.len());
    let (name, rest) = list.split_at(end);
    let Some(numbers) = rest.strip_prefix('[') else {
        return Some(name.to_string()).filter(|name| !name.is_empty());
    };
    let number = numbers.split([',', '-', ']']).next()?;
    let after = numbers.split_once(']').map_or("", |(_, after)| after);
    let after = after.split(',').next().unwrap_or_default();
    Some(format!("{name}{number}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(variables: &str) -> Result<Option<Place>> {
        let all: Vec<(&str, &str)> =
            variables.split_whitespace().filter_map(|v| v.split_once('=')).collect();
        let get =
            |name: &str| all.iter().find(|(of, _)| *of == name).map(|(_, value)| value.to_string());
        place(&get)
    }

    fn refused(variables: &str, words: &str) {
        let error = said(variables).unwrap_err();
        assert!(error.is::<crate::UsageError>(), "{error}");
        assert!(error.to_string().contains(words), "{words}: {error}");
    }

    const TORCHRUN: &str = "RANK=3 WORLD_SIZE=4 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_ADDR=a \
        MASTER_PORT=29500 TORCHELASTIC_RUN_ID=none TORCHELASTIC_RESTART_COUNT=2 \
        TORCHELASTIC_USE_AGENT_STORE=True";

    #[test]
    fn torchrun_says_it_all() {
        let place = said(TORCHRUN).unwrap().unwrap();
        assert_eq!((place.rank, place.size, place.local), (3, 4, Some((1, 2))));
        assert_eq!((place.host.as_str(), place.port, place.served), ("a", 29500, true));
        assert!(place.name.ends_with("/2"), "another start is another world: {}", place.name);
        // One agent a machine, started by srun, which counts machines.
        let nested = format!(
            "{TORCHRUN} SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=1 \
            SLURM_STEP_NODELIST=a,b"
        );
        assert_eq!(said(&nested).unwrap().unwrap(), place);
    }

    #[test]
    fn a_pod_of_a_pytorchjob_has_no_local_rank() {
        let place = said("RANK=1 WORLD_SIZE=2 MASTER_ADDR=job-master-0 MASTER_PORT=23456");
        let place = place.unwrap().unwrap();
        assert_eq!((place.rank, place.size, place.local, place.served), (1, 2, None, false));
    }

    #[test]
    fn srun_says_it_by_its_own_names() {
        let step = "SLURM_STEP_ID=0 SLURM_JOB_ID=123456 SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=2 \
            SLURM_LOCALID=0 SLURM_STEP_NODELIST=gpu[03-04]";
        let place = said(step).unwrap().unwrap();
        assert_eq!((place.rank, place.size, place.host.as_str()), (2, 4, "gpu03"));
        assert_eq!(place.port, 23456);
        let with = said(&format!("{step} MASTER_ADDR=b MASTER_PORT=7")).unwrap().unwrap();
        assert_eq!((with.host.as_str(), with.port), ("b", 7));
        // A batch script by itself, and a step of one.
        let batch = "SLURM_JOB_ID=1 SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_JOB_NODELIST=a";
        assert_eq!(said(batch).unwrap(), None);
        let one = "SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1 SLURM_PROCID=0";
        assert_eq!(said(one).unwrap(), None);
    }

    #[test]
    fn mpirun_says_it_by_its_own_names() {
        let here = "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=1 \
            OMPI_COMM_WORLD_LOCAL_SIZE=2 PMIX_NAMESPACE=prterun-a-1@1";
        let place = said(here).unwrap().unwrap();
        assert_eq!((place.rank, place.size, place.local), (1, 2, Some((1, 2))));
        assert_eq!(place.host, "127.0.0.1");
        let far =
            here.replace("LOCAL_SIZE=2", "LOCAL_SIZE=1").replace("LOCAL_RANK=1", "LOCAL_RANK=0");
        refused(&far, "-x MASTER_ADDR=machine");
    }

    #[test]
    fn one_process_is_alone() {
        for variables in ["", "RANK=0 WORLD_SIZE=1", "WORLD_SIZE=1", "MASTER_ADDR=a MASTER_PORT=1"]
        {
            assert_eq!(said(variables).unwrap(), None, "{variables}");
        }
    }

    #[test]
    fn half_of_it_is_refused_by_name() {
        refused("RANK=0", "RANK in the environment says");
        refused("RANK=0", "WORLD_SIZE, MASTER_ADDR, MASTER_PORT are missing");
        refused("RANK=1 WORLD_SIZE=2 MASTER_ADDR=a", "MASTER_PORT is missing");
        refused("WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=1", "RANK is missing");
        refused("RANK=one WORLD_SIZE=2", "RANK=one");
        refused("RANK=0 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=99999", "MASTER_PORT=99999");
        refused("OMPI_COMM_WORLD_SIZE=2", "OMPI_COMM_WORLD_RANK is missing");
        refused("OMPI_COMM_WORLD_RANK=1", "OMPI_COMM_WORLD_SIZE is missing");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let at = "MASTER_ADDR=a MASTER_PORT=1";
        refused(&format!("RANK=2 WORLD_SIZE=2 {at}"), "process 2 of 2");
        refused(
            &format!("RANK=0 WORLD_SIZE=2 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 {at}"),
            "process 1 of 2 on its machine and 0 of 2",
        );
        let two = format!(
            "RANK=0 WORLD_SIZE=2 {at} OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 \
             OMPI_COMM_WORLD_LOCAL_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=1"
        );
        refused(&two, "mpirun that it is 1 of 2");
    }

    #[test]
    fn the_first_machine_of_a_list_is_found() {
        for (list, first) in [
            ("a", "a"),
            ("a,b", "a"),
            ("gpu[03-05,7],login", "gpu03"),
            ("gpu[7,9]", "gpu7"),
            ("n[1-2]-ib,b", "n1-ib"),
        ] {
            assert_eq!(first_host(list).as_deref(), Some(first), "{list}");
        }
        assert_eq!(first_host(""), None);
    }
}

//! Processors, memory, and several processes on the CPU.

use super::finding::{bytes, Finding};
use crate::precision::multiplies_bf16;
use crate::provenance::environment;
use aflora_cuda::machine;

/// Bytes of memory that the smallest real model trains in with comfort.
const ENOUGH: u64 = 2_000_000_000;

/// Whether several processes can train one run.
pub(super) fn gloo() -> Finding {
    match machine::gloo() {
        Ok(()) => Finding::good("Gloo", "several processes can train one run"),
        Err(error) => Finding::less(
            "Gloo",
            format!("one process a run: {error}"),
            "build anew with a libtorch that has the headers of its c10d: `make setup` fetches one",
        ),
    }
}

/// The processors that this process may use.
pub(super) fn processors() -> Finding {
    let here = environment();
    let (cores, threads) = (here.processors, tch::get_num_threads());
    let bf16 = multiplies_bf16();
    let units = if bf16 { "bf16 units" } else { "no bf16 units" };
    let model = here.processor.unwrap_or_else(|| "an unknown processor".into());
    let found = format!("{cores} of {model}, {threads} threads, {units}");
    let finding = match usize::try_from(threads).is_ok_and(|threads| threads <= cores) {
        true => Finding::good("processors", found),
        false => Finding::less(
            "processors",
            found,
            format!("set OMP_NUM_THREADS={cores} or threads={cores}: more wait for one another"),
        ),
    };
    let finding = finding.with("processors", cores).with("threads", threads);
    finding.with("bf16", bf16).with("model", model)
}

/// Memory that is free for a run.
pub(super) fn memory() -> Finding {
    let text = |path| std::fs::read_to_string(path).unwrap_or_default();
    let limit = text("/sys/fs/cgroup/memory.max").trim().parse().ok();
    let Some((available, total)) = available(&text("/proc/meminfo"), limit) else {
        let remedy = "mount /proc, if runs should tell how much they need";
        return Finding::less("memory", "the system does not say how much there is", remedy);
    };
    let found = format!("{} available of {}", bytes(available), bytes(total));
    match available >= ENOUGH {
        true => Finding::good("memory", found),
        false => Finding::less(
            "memory",
            found,
            "end other programs, or train a small model with a small batch_size",
        ),
    }
    .with("available", available)
    .with("total", total)
}

/// Bytes that are available and in all, by `/proc/meminfo` and a limit of the process's group.
fn available(meminfo: &str, limit: Option<u64>) -> Option<(u64, u64)> {
    let of = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    let (available, total) = (of("MemAvailable")?, of("MemTotal")?);
    let most = limit.unwrap_or(u64::MAX);
    Some((available.min(most), total.min(most)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_the_system_and_the_group_s_limit_leave() {
        let meminfo = "MemTotal:  8 kB\nMemFree: 1 kB\nMemAvailable:  4 kB\n";
        assert_eq!(available(meminfo, None), Some((4096, 8192)));
        assert_eq!(available(meminfo, Some(5000)), Some((4096, 5000)));
        assert_eq!(available(meminfo, Some(1000)), Some((1000, 1000)));
        assert_eq!(available("MemTotal: 8 kB\n", None), None);
        assert_eq!(available("", Some(1000)), None);
    }
}

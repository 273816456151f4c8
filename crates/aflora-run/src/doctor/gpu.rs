//! The driver, GPUs, and what serves them.

use super::finding::{bytes, Finding};
use crate::installation::libtorch_by;
use aflora_cuda::machine::{self, Driver, Gpu};
use aflora_cuda::{self as cuda, Error};
use serde_json::json;
use tch::Device;

/// The variable that chooses among GPUs.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// A container is given the driver with the GPUs.
const CONTAINER: &str = "; a container needs `--gpus all`";

/// The devices that runs can use, and what was found of the GPUs.
pub(super) fn examine() -> (Vec<Device>, Vec<Finding>) {
    let driver = match machine::driver() {
        Ok(driver) => driver,
        Err(error) => return (vec![Device::Cpu], vec![without(&error)]),
    };
    let mut findings: Vec<Finding> = driver.gpus.iter().enumerate().map(gpu).collect();
    let mut devices = vec![Device::Cpu];
    match cuda::load() {
        Err(error) => findings.push(Finding::less(
            "CUDA",
            format!("runs use the CPU: {error}"),
            format!(
                "{}; where LIBTORCH or LIBTORCH_USE_PYTORCH names your own, one that is made for CUDA",
                libtorch_by(true)
            ),
        )),
        Ok(()) => {
            let count = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
            devices.extend((0..count).map(Device::Cuda));
            findings.push(seen(count, &driver));
            findings.push(shim());
            findings.push(nccl(driver.gpus.len()));
        }
    }
    (devices, findings)
}

/// There is no GPU to use.
fn without(error: &Error) -> Finding {
    let found = format!("none, runs use the CPU: {error}");
    match (error, std::env::var(VISIBLE)) {
        (Error::Gpu(_), Ok(value)) => Finding::less(
            "GPU",
            found,
            format!("{VISIBLE} is set to `{}`: unset it", value.escape_debug()),
        ),
        (Error::Gpu(_), Err(_)) => {
            Finding::less("GPU", found, format!("see what `nvidia-smi` says{CONTAINER}"))
        }
        _ => Finding::less(
            "GPU",
            found,
            format!(
                "nothing, if the machine has none; else install NVIDIA's driver (`nvidia-smi` shows \
                 it){CONTAINER}"
            ),
        ),
    }
}

fn gpu((number, gpu): (usize, &Gpu)) -> Finding {
    let (major, minor) = gpu.capability;
    let bf16 = gpu.multiplies_bf16();
    let units = if bf16 { "bf16 units" } else { "no bf16 units" };
    let memory = bytes(gpu.memory);
    let found = format!(
        "cuda:{number}, {}, {memory}, compute capability {major}.{minor}, {units}",
        gpu.name
    );
    let finding = match bf16 {
        true => Finding::good("GPU", found),
        false => {
            let remedy = format!("run with precision=fp32 device=cuda:{number}: bf16 is slow here");
            Finding::less("GPU", found, remedy)
        }
    };
    let finding = finding.with("device", format!("cuda:{number}")).with("name", gpu.name.clone());
    let finding = finding.with("memory", gpu.memory).with("bf16", bf16);
    finding.with("compute_capability", json!([major, minor]))
}

/// Whether libtorch sees what the driver gives.
fn seen(count: usize, driver: &Driver) -> Finding {
    let (major, minor) = driver.cuda;
    let there = driver.gpus.len();
    let found =
        format!("the driver serves CUDA {major}.{minor}; libtorch sees {count} of {there} GPUs");
    match count == there {
        true => Finding::good("CUDA", found),
        false => Finding::less(
            "CUDA",
            found,
            "update NVIDIA's driver, or use a libtorch made for this version of CUDA or an older one",
        ),
    }
    .with("driver_cuda", json!([major, minor]))
    .with("gpus", count)
}

/// Graphs and fused kernels: a run on a GPU needs them.
fn shim() -> Finding {
    match cuda::available() {
        Ok(()) => Finding::good("CUDA shim", "graphs and fused kernels"),
        Err(error) => Finding::missing(
            "CUDA shim",
            format!("no graphs and fused kernels: {error}"),
            format!("{}; or run with device=cpu", libtorch_by(true)),
        ),
    }
}

fn nccl(gpus: usize) -> Finding {
    match machine::nccl() {
        Ok(()) => Finding::good("NCCL", "several GPUs can train one run"),
        Err(error) if gpus > 1 => Finding::less(
            "NCCL",
            format!("one GPU a run: {error}"),
            format!(
                "{}, which brings NCCL; or put the folder of libnccl.so.2 into LD_LIBRARY_PATH",
                libtorch_by(true)
            ),
        ),
        Err(_) => Finding::good("NCCL", "not there, and one GPU does not need it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn a_gpu_without_bf16_units_is_told_with_what_to_run_in_its_place() {
        let old = Gpu { name: "Tesla T4".into(), memory: 16_000_000_000, capability: (7, 5) };
        let finding = gpu((1, &old));
        assert_eq!(finding.state, State::Less);
        assert_eq!(
            finding.found,
            "cuda:1, Tesla T4, 16.0 GB, compute capability 7.5, no bf16 units"
        );
        assert!(finding.remedy.unwrap().contains("precision=fp32 device=cuda:1"));
        let new = Gpu { capability: (9, 0), ..old };
        assert_eq!(gpu((0, &new)).state, State::Good);
    }

    #[test]
    fn a_container_without_the_driver_is_told_how_it_is_given_one() {
        let finding = without(&Error::Driver("libcuda.so.1: no such file".into()));
        assert_eq!(finding.state, State::Less);
        assert!(finding.remedy.unwrap().contains("a container needs `--gpus all`"));
    }

    #[test]
    fn a_driver_that_is_too_old_for_libtorch_is_told() {
        let gpu = Gpu { name: "GPU".into(), memory: 1, capability: (9, 0) };
        let driver = Driver { cuda: (12, 4), gpus: vec![gpu] };
        assert_eq!(seen(1, &driver).state, State::Good);
        let finding = seen(0, &driver);
        assert_eq!(finding.state, State::Less);
        assert!(finding.found.contains("CUDA 12.4; libtorch sees 0 of 1"), "{}", finding.found);
    }
}

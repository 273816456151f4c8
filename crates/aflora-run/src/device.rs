//! Where a run computes.

use crate::config::DeviceChoice;
use crate::{allocator, usage};
use aflora_cuda::{self as cuda, World};
use tch::Device;

/// The device of a configuration.
///
/// `auto` takes the first GPU where there is one, and the CPU otherwise; of several processes on a
/// machine each takes the GPU of its number there, or the only one that it sees. Must be called before
/// the first tensor is made.
///
/// # Errors
/// A GPU was asked for and there is none, or not so many.
pub fn choose(choice: DeviceChoice, world: &World) -> anyhow::Result<Device> {
    allocator::keep_freed_memory();
    let device = find(choice, world)?;
    if let Device::Cuda(index) = device {
        cuda::set_device(index)?;
    }
    Ok(device)
}

/// [`choose`]s a device to compute on, and begins to [wake](cuda::wake) it.
///
/// # Errors
/// As there.
pub fn start(choice: DeviceChoice, world: &World) -> anyhow::Result<Device> {
    let device = choose(choice, world)?;
    if let Device::Cuda(index) = device {
        cuda::wake(index);
    }
    Ok(device)
}

fn find(choice: DeviceChoice, world: &World) -> anyhow::Result<Device> {
    let (number, beside) = world.local();
    let (wanted, index) = match choice {
        DeviceChoice::Cpu => return Ok(Device::Cpu),
        DeviceChoice::Auto => (false, number),
        DeviceChoice::Cuda(None) => (true, number),
        DeviceChoice::Cuda(Some(_)) if beside > 1 => usage!(
            "device `{choice}` is one GPU, and {beside} processes run on this machine; say \
             `device=cuda`, and each takes its own"
        ),
        DeviceChoice::Cuda(Some(index)) => (true, index as usize),
    };
    let count = match cuda::load() {
        Ok(()) => tch::Cuda::device_count(),
        Err(cuda::Error::Driver(_)) if !wanted => return Ok(Device::Cpu),
        Err(e) if !wanted => {
            tracing::warn!("training on the CPU: {e}");
            return Ok(Device::Cpu);
        }
        Err(e) => usage!("device `{choice}`: {e}"),
    };
    if (index as i64) < count {
        Ok(Device::Cuda(index))
    } else if count == 1 && beside > 1 {
        // Whoever started it gave each process its own.
        Ok(Device::Cuda(0))
    } else if count > 0 && beside > 1 {
        usage!("{beside} processes run on this machine, and libtorch sees {count} GPUs")
    } else if wanted {
        usage!("device `{choice}`: libtorch sees {count} GPUs")
    } else {
        Ok(Device::Cpu)
    }
}

/// The device as people name it.
pub fn describe(device: Device) -> String {
    match device {
        Device::Cuda(i) => match cuda::device_name(i) {
            Some(name) => format!("cuda:{i} ({name})"),
            None => format!("cuda:{i}"),
        },
        _ => format!("cpu ({} threads)", tch::get_num_threads()),
    }
}

/// Waits until the device has done all that was asked of it; for honest clocks.
pub fn synchronize(device: Device) {
    if let Device::Cuda(i) = device {
        tch::Cuda::synchronize(i as i64);
    }
}

/// What the tensors on the device take, in bytes, and took at the most; none where nobody counts.
pub fn tensors(device: Device) -> Option<cuda::Memory> {
    match device {
        Device::Cuda(index) => cuda::memory(index),
        _ => cuda::host_memory(),
    }
}

/// Lets the most that the [`tensors`] take begin anew.
pub fn reset_peak(device: Device) {
    match device {
        Device::Cuda(index) => cuda::reset_peak(Some(index)),
        _ => cuda::reset_peak(None),
    }
}

/// On a CPU, gives back to the system what the C library keeps of tensors that are gone, where the process has
/// become half as large again as its tensors ever were, and a gigabyte: blocks of batches of many lengths do not fit
/// one another's places, and it would go on growing.
pub fn give_back(device: Device) {
    const SPARE: u64 = 1 << 30;
    if device != Device::Cpu {
        return;
    }
    if let (Some(resident), Some(tensors)) = (of_process("VmRSS:"), tensors(device)) {
        if resident > tensors.peak_allocated * 3 / 2 + SPARE {
            allocator::give_back();
        }
    }
}

/// Bytes of memory that the system says of this process under `key`.
fn of_process(key: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The most memory that the run needed, in bytes: on a GPU what is in use there now, since
/// libtorch gives nothing back (other processes' included); on a CPU the process's peak.
pub fn peak_memory(device: Device) -> Option<u64> {
    match device {
        Device::Cuda(i) => cuda::memory_in_use(i),
        _ => of_process("VmHWM:"),
    }
}

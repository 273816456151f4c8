//! Where a result comes from: what ran, on what, from which files.

use aflora_cuda::machine;
use aflora_record::provenance::Environment;
use sha2::{Digest, Sha256};
use std::io;
use std::path::Path;

/// The SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// The file cannot be read.
pub fn sha256(path: &Path) -> io::Result<String> {
    let mut digest = Sha256::new();
    io::copy(&mut aflora_files::open(path)?, &mut digest)?;
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The program and the machine of this process.
pub fn environment() -> Environment {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Environment {
        aflora: env!("CARGO_PKG_VERSION").into(),
        commit: option_env!("AFLORA_COMMIT").map(String::from),
        libtorch: machine::libtorch_version().unwrap_or_else(|| "unknown".into()),
        command: std::env::args().collect(),
        platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        processor: processor(),
        processors: std::thread::available_parallelism().map_or(1, |n| n.get()),
        started_unix: now.map_or(0, |d| d.as_secs()),
    }
}

fn processor() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

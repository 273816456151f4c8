//! Compiled kernels are kept between processes; what is taken is whole, and of the same source.

mod emulated;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The files of a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Runs a test that needs a kernel in a process of its own, whose user has this folder for caches.
fn run(caches: &Path) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "decoders::an_rms_norm_of_a_residual_sum_and_its_gradients"])
        .env("XDG_CACHE_HOME", caches)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}

#[test]
fn kernels_that_a_gpu_ran_are_kept_and_made_anew_where_they_are_damaged() {
    let Some(_gpu) = crate::gpu() else { return };
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("aflora/kernels");
    run(place.path());
    let kept = files(&folder);
    assert!(!kept.is_empty());
    let state =
        || kept.iter().map(|file| (fs::read(file).unwrap(), fs::metadata(file).unwrap().ino()));
    let before: Vec<_> = state().collect();
    run(place.path());
    assert!(state().eq(before.iter().cloned()), "what is kept is not compiled again");
    for file in &kept {
        fs::write(file, &fs::read(file).unwrap()[..100]).unwrap();
    }
    run(place.path());
    assert!(state().map(|(bytes, _)| bytes).eq(before.into_iter().map(|(bytes, _)| bytes)));
}

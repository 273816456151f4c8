//! Lets `aflora` find the libtorch that it was built with, wherever it is started from.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Ok(libtorch) = std::env::var("LIBTORCH") {
        let lib = Path::new(&libtorch).join("lib");
        println!("cargo:rustc-link-arg-bins=-Wl,-rpath,{}", lib.display());
    }
    println!("cargo:rerun-if-changed=../../.git/HEAD");
    let commit = std::process::Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    if let Some(commit) = commit.ok().filter(|o| o.status.success()) {
        let commit = String::from_utf8_lossy(&commit.stdout);
        println!("cargo:rustc-env=AFLORA_COMMIT={}", commit.trim());
    }
}

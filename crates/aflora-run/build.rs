//! Lets `aflora` find the libtorch that it was built with, wherever it is started from, and know
//! the commit that it was built from.

use std::path::PathBuf;
use std::process::Command;

/// Set where scripts/dist.sh builds: a release finds libtorch beside itself.
const RELEASE: &str = "AFLORA_RELEASE";

fn main() {
    for variable in ["LIBTORCH", "LIBTORCH_USE_PYTORCH", RELEASE] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    if let Some(libtorch) = libtorch().filter(|_| std::env::var_os(RELEASE).is_none()) {
        println!("cargo:rustc-link-arg-bins=-Wl,-rpath,{}", libtorch.join("lib").display());
    }
    shipped_blocks();
    if let Some(commit) = packaged_commit().or_else(checked_out_commit) {
        println!("cargo:rustc-env=AFLORA_COMMIT={commit}");
    }
}

/// The commit that a package of this crate was made from, as cargo wrote it there: wherever it is
/// unpacked, a repository around it is another's.
fn packaged_commit() -> Option<String> {
    println!("cargo:rerun-if-changed=Cargo.toml");
    let about = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let commit = about.split_once("\"sha1\": \"")?.1.get(..7)?;
    let mark = if about.contains("\"dirty\": true") { "-dirty" } else { "" };
    Some(format!("{commit}{mark}"))
}

fn checked_out_commit() -> Option<String> {
    // Every commit and checkout adds a line to this log; HEAD itself only names a branch.
    let log = output("git", &["rev-parse", "--git-path", "logs/HEAD"])?;
    println!("cargo:rerun-if-changed={log}");
    println!("cargo:rerun-if-changed=..");
    let commit = output("git", &["rev-parse", "--short", "HEAD"])?;
    let changed = output("git", &["status", "--porcelain", "--", ".."]);
    let mark = if changed.is_some_and(|files| !files.is_empty()) { "-dirty" } else { "" };
    Some(format!("{commit}{mark}"))
}

/// Writes a table of the project's tasks, models and methods, which the program falls back on:
/// `(kind, name, text)` of each file of configs. `shipped` is a link to that folder, which a package
/// of this crate holds as files.
fn shipped_blocks() {
    // As it is now: checkouts that share a target folder share the program that this is, too.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let configs = PathBuf::from(here).join("shipped");
    let mut entries = String::new();
    for kind in ["task", "model", "method"] {
        let folder = configs.join(format!("{kind}s"));
        println!("cargo:rerun-if-changed={}", folder.display());
        let files = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = files
            .map(|file| file.path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
            .collect();
        files.sort();
        for path in files {
            let name = path.file_stem().unwrap_or_default();
            entries += &format!("({kind:?}, {name:?}, include_str!({path:?})),\n");
        }
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    std::fs::write(out.join("shipped_blocks.rs"), format!("&[\n{entries}]")).expect("OUT_DIR");
}

/// The folder that torch-sys links to, by its own rules: a Python's torch first.
fn libtorch() -> Option<PathBuf> {
    if std::env::var_os("LIBTORCH_USE_PYTORCH").is_some() {
        let path = "import os, torch; print(os.path.dirname(torch.__file__))";
        return output("python3", &["-c", path]).map(PathBuf::from);
    }
    std::env::var_os("LIBTORCH").map(PathBuf::from)
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_string())
}

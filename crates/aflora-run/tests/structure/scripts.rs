//! A script lies before Python's own modules in its path: one that is called like a module of them is taken for it by whatever
//! asks for that, and nothing says so. `bench/profile.py` once kept every peer from being measured.

use crate::common::root;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn scripts(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in folder.read_dir().unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("results") {
            scripts(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "py") {
            found.push(path);
        }
    }
}

#[test]
fn no_script_is_called_like_a_module_of_pythons_own() {
    let listed = Command::new("python3")
        .args(["-c", "import sys; print(*sys.stdlib_module_names)"])
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let own: BTreeSet<&str> = listed.split_whitespace().collect();
    assert!(own.contains("profile"), "{listed}");
    let mut found = Vec::new();
    for folder in ["bench", "scripts", "crates", "experiments"] {
        scripts(&root().join(folder), &mut found);
    }
    assert!(found.len() > 10, "{found:?}");
    let shadows = |path: &&PathBuf| own.contains(path.file_stem().unwrap().to_str().unwrap());
    let shadowing: Vec<&PathBuf> = found.iter().filter(shadows).collect();
    assert!(shadowing.is_empty(), "{shadowing:?}");
}

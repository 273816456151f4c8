//! Names are text wherever they stand, and do nothing to a reader.

use crate::support::*;
use aflora_record::results::{Claim, Outcome, Results};
use aflora_report::report::{csv, html, markdown, NamedResults, Report};
use serde_json::json;
use std::fs;

/// What could end an element, an attribute, a table or a field, or name another file.
const NASTY: &str = "<img src=x>&\"|'`*_/../ü\n";

/// Results with `part` in each of their texts.
fn with_everywhere(part: &str) -> Results {
    let mut results = results();
    let nasty = |name: &str| format!("{name}{part}");
    for cell in &mut results.cells {
        cell.model = nasty("m");
        cell.task = nasty(&cell.task);
        cell.method = nasty(&cell.method);
        if let Outcome::Done(f) = &mut cell.outcome {
            f.device = nasty("cpu");
            f.settings = json!({ (part): cell.method });
            f.provenance = provenance(part);
        }
    }
    *outcome(&mut results, &nasty("rte"), &nasty("lora"), 1) = Outcome::Failed { error: nasty("") };
    let layout = &mut results.layout;
    layout.title = nasty("title");
    layout.about = format!("About {part}");
    for task in &mut layout.tasks {
        task.name = nasty(&task.name);
        task.label = nasty("task");
    }
    for method in &mut layout.methods {
        method.name = nasty(&method.name);
        method.label = nasty(&method.label);
    }
    layout.reference = Some(nasty("lora"));
    layout.claims[0] = Claim { says: part.into(), order: vec![nasty("lora"), nasty("ours")] };
    results
}

#[test]
fn what_acts_on_a_terminal_or_a_reader_reaches_no_file_of_a_report() {
    let results = with_everywhere("\u{1b}[2J\r\u{202e}\u{feff}\u{ffff}");
    let name = "a\u{1b}[2J\u{202e}%".to_string();
    let report = Report::of(&NamedResults { name, results: results.clone() });
    let markdown = markdown::render(&report);
    assert!(markdown.contains("](<a%1B%5B2J%E2%80%AE%25-heatmap-"), "{markdown}");
    let mut files =
        vec![csv::render(&results).unwrap(), html::render(std::slice::from_ref(&report))];
    files.extend(report.chart_files().map(|(_, chart)| html::chart_file(chart)));
    assert!(files[1..].iter().all(|file| !file.contains('\u{ffff}')), "XML has no such character");
    files.push(markdown);
    for file in files {
        assert!(!file.contains(['\u{1b}', '\r', '\u{202e}', '\u{feff}']), "{file:?}");
        assert!(file.contains("u{202e}"), "{file:?}");
    }
}

#[test]
fn names_are_text_wherever_they_stand() {
    let results = with_everywhere(NASTY);
    let nasty = |name: &str| format!("{name}{NASTY}");
    let report = of(&results);
    let page = html::render(std::slice::from_ref(&report));
    assert!(page.contains("&lt;img src=x&gt;&amp;&quot;|&#39;"));
    let mut pages = vec![page, html::render(&[report.clone(), report.clone()])];
    for (name, chart) in report.chart_files() {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        assert!(name.chars().all(plain), "{name}");
        pages.push(html::chart_file(chart));
    }
    assert!(pages.len() > 2);
    for page in &pages {
        assert!(!page.contains("<img"), "{page}");
        well_formed(page);
    }
    let markdown = markdown::render(&report);
    let results_only = markdown.split("## In short").nth(1).unwrap();
    assert!(!results_only.contains("<img") && results_only.contains("&lt;img"));
    let columns = |line: &str| line.replace("\\|", "").matches('|').count();
    let table: Vec<&str> = results_only.lines().skip_while(|l| !l.starts_with('|')).collect();
    let table: Vec<&str> = table.into_iter().take_while(|l| l.starts_with('|')).collect();
    assert_eq!(table.len(), 4, "{table:?}");
    assert!(table.iter().all(|line| columns(line) == columns(table[0])), "{table:?}");
    let text = csv::render(&results).unwrap();
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    let first = reader.records().next().unwrap().unwrap();
    assert_eq!((&first[0], &first[2]), (nasty("m").as_str(), nasty("ours").as_str()));
}

#[test]
fn a_long_name_makes_a_report_all_the_same() {
    let place = tempfile::tempdir().unwrap();
    for letter in ["a", "b"] {
        // As long as a file's name can be.
        let name = format!("{}{letter}.json", "n".repeat(249));
        let method = "m".repeat(300);
        let text = serde_json::to_string(&results()).unwrap();
        let text = text.replace("\"lora\"", &format!("\"{method}\""));
        fs::write(place.path().join(name), text).unwrap();
    }
    let paths = report_on(place.path(), None).unwrap().paths;
    let mut each = paths.clone();
    each.sort();
    each.dedup();
    assert_eq!(each.len(), paths.len(), "two files of one name: {paths:?}");
    let svg = |path: &&std::path::PathBuf| path.extension().is_some_and(|e| e == "svg");
    assert!(paths.iter().filter(svg).count() >= 2, "{paths:?}");
    assert!(paths.iter().all(|path| path.is_file()), "{paths:?}");
}

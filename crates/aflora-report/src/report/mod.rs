//! `aflora report`: tables, charts and a page from results files.
//!
//! Results are all that goes in: the same files make the same bytes, today and in a year.
//!
//! * `grid`: questions to a results file; `numbers`: the statistics
//! * `runs`: run folders as results; `views`: results → sections, one view a file; `charts`: SVG
//! * [`document`]: what a section is; [`markdown`], [`html`], [`csv`]: its forms
//! * [`files`]: what is read and written

pub(crate) mod charts;
pub mod csv;
pub mod document;
pub mod files;
mod grid;
pub mod html;
mod inline;
pub mod markdown;
mod matrices;
pub(crate) mod numbers;
mod runs;
mod views;

pub use files::{command, report};

use aflora_record::Results;
use document::{Chart, DocumentBlock, Section, TableEntry};
use sha2::{Digest, Sha256};
use std::collections::HashSet;

/// The results of one file, with the name that its reports carry.
#[derive(Debug, Clone)]
pub struct NamedResults {
    /// The file's name without `.json`.
    pub name: String,
    /// What it holds.
    pub results: Results,
}

/// A part of a file's name, cut to `most` bytes with its digest behind if it has more: a whole
/// name has 255 bytes at most, and each its own.
fn short(name: &str, most: usize) -> String {
    if name.len() <= most {
        return name.to_string();
    }
    let digest = Sha256::digest(name.as_bytes());
    let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let end = (0..=most).rev().find(|&at| name.is_char_boundary(at)).unwrap_or(0);
    format!("{}-{digest}", &name[..end])
}

/// A report on one results file.
#[derive(Debug, Clone)]
pub struct Report {
    /// The name of its files: the results', cut if it is very long.
    pub name: String,
    /// The experiment's title.
    pub title: String,
    /// What it asks, in Markdown.
    pub about: String,
    /// What was asked, and what came out, in short.
    pub answers: Vec<[TableEntry; 2]>,
    /// Its sections.
    pub sections: Vec<Section>,
}

impl Report {
    /// Makes the report on a results file.
    pub fn of(named: &NamedResults) -> Report {
        let layout = &named.results.layout;
        let (sections, answers) = views::sections(&named.results);
        let mut report = Report {
            name: short(&named.name, 150),
            title: layout.title.clone(),
            about: layout.about.replace("\r\n", "\n"),
            answers,
            sections,
        };
        report.name_files();
        report
    }

    /// Gives charts that are files their whole names, fit for a file system and each another.
    fn name_files(&mut self) {
        let mut taken: HashSet<String> = HashSet::new();
        for block in self.sections.iter_mut().flat_map(|s| &mut s.blocks) {
            let DocumentBlock::Charts(charts) = block else { continue };
            for file in charts.iter_mut().filter_map(|c| c.file.as_mut()) {
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
                let fit: String = file.chars().map(|c| if plain(c) { c } else { '-' }).collect();
                let fit = short(&fit, 50);
                let mut name = format!("{}-{fit}.svg", self.name);
                let mut number = 2;
                while taken.contains(&name) {
                    name = format!("{}-{fit}-{number}.svg", self.name);
                    number += 1;
                }
                taken.insert(name.clone());
                *file = name;
            }
        }
    }

    /// The charts that are files of their own.
    pub fn chart_files(&self) -> impl Iterator<Item = (&str, &Chart)> {
        let blocks = self.sections.iter().flat_map(|s| &s.blocks);
        let charts = blocks.flat_map(|block| match block {
            DocumentBlock::Charts(charts) => charts.as_slice(),
            _ => &[],
        });
        charts.filter_map(|chart| Some((chart.file.as_deref()?, chart)))
    }
}

//! Ways of showing results, one a file: each makes a section of a report.

use super::document::{DocumentBlock, Section, TableEntry};
use super::grid::Grid;
use aflora_record::results::{Results, View};

mod bars;
mod best;
mod claims;
mod classes;
mod curves;
mod differences;
mod heatmap;
mod provenance;
mod settings;
mod steps;
mod summary;
mod table;
mod threshold;
mod trainable;

/// All sections of a report, in the order that the layout asks for, and its answers in short: what
/// was asked, and what came out.
pub fn sections(results: &Results) -> (Vec<Section>, Vec<[TableEntry; 2]>) {
    let grids = Grid::of(results);
    let (mut sections, mut answers) = (Vec::new(), Vec::new());
    for grid in &grids {
        let model = grid.model;
        let named = |mut section: Section| {
            if grids.len() > 1 {
                section.title = format!("{}: {model}", section.title);
                for block in &mut section.blocks {
                    let DocumentBlock::Charts(charts) = block else { continue };
                    for file in charts.iter_mut().filter_map(|c| c.file.as_mut()) {
                        *file += &format!("-{model}");
                    }
                }
            }
            section
        };
        let shown: Vec<Section> =
            results.layout.show.iter().map(|view| section(*view, grid)).collect();
        for [asked, mut found] in summary::answers(grid, &shown) {
            // What the paper says is of its own model.
            let sep = if found.note.is_empty() { "" } else { "\n" };
            found.note += &format!("{sep}on {model}");
            answers.push([asked, found]);
        }
        sections.push(named(summary::section(grid)));
        sections.extend(shown.into_iter().map(named));
    }
    sections.push(provenance::section(results));
    (sections, answers)
}

fn section(view: View, grid: &Grid) -> Section {
    let mut section = match view {
        View::Table => table::section(grid),
        View::Differences => differences::section(grid),
        View::Classes => classes::section(grid),
        View::Curves => curves::section(grid),
        View::Trainable => trainable::section(grid),
        View::Heatmap => heatmap::section(grid),
        View::Threshold => threshold::section(grid),
        View::Bars => bars::section(grid),
        View::Best => best::section(grid),
    };
    let empty =
        |block: &DocumentBlock| matches!(block, DocumentBlock::Charts(charts) if charts.is_empty());
    section.blocks.retain(|block| !empty(block));
    if section.blocks.is_empty() {
        section
            .blocks
            .push(DocumentBlock::Text("No finished run has anything to show here.".into()));
    }
    section
}

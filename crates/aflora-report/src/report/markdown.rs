//! A report as Markdown, as GitHub shows it: tables, and where the charts are.

use super::document::{Chart, DocumentBlock, Section, Table, Tone};
use super::html::PAGE;
use super::Report;
use aflora_files::printable;
use std::fmt::Write;

/// The whole file.
pub fn render(report: &Report) -> String {
    let mut out = format!("# {}\n\n", escape(&report.title));
    if !report.about.trim().is_empty() {
        // Markdown already, by whoever wrote the experiment.
        out += &format!("{}\n\n", printable(report.about.trim()));
    }
    for section in &report.sections {
        render_section(section, &mut out);
    }
    out.truncate(out.trim_end().len());
    out + "\n"
}

fn render_section(section: &Section, out: &mut String) {
    *out += &format!("## {}\n\n", escape(&section.title));
    for block in &section.blocks {
        match block {
            DocumentBlock::Text(text) => *out += &format!("{}\n\n", escape(text)),
            DocumentBlock::List(items) => {
                for item in items {
                    *out += &format!("- {}\n", escape(item));
                }
                *out += "\n";
            }
            DocumentBlock::Table { table, .. } => render_table(table, out),
            DocumentBlock::Charts(charts) => {
                for chart in charts {
                    render_chart(chart, out);
                }
                *out += "\n";
            }
        }
    }
}

fn render_table(table: &Table, out: &mut String) {
    *out += &format!("**{}**\n\n", escape(&table.caption));
    let line = |entries: Vec<String>| format!("| {} |\n", entries.join(" | "));
    *out += &line(table.head.iter().map(|h| escape(h)).collect());
    let columns = table.head.iter().enumerate();
    *out += &line(
        columns.map(|(i, _)| if i == 0 || table.words { "---" } else { "---:" }.into()).collect(),
    );
    for row in &table.rows {
        let entries = row.iter().map(|entry| {
            let mut text = escape(&entry.text);
            if entry.tone == Tone::Best {
                text = format!("**{text}**");
            }
            match entry.note.is_empty() {
                true => text,
                false => {
                    let lines: Vec<String> = entry.note.lines().map(escape).collect();
                    format!("{text}<br>{}", lines.join("<br>"))
                }
            }
        });
        *out += &line(entries.collect());
    }
    *out += "\n";
}

fn render_chart(chart: &Chart, out: &mut String) {
    let (title, finding) = (escape(&chart.title), escape(&chart.finding));
    match &chart.file {
        Some(file) => {
            *out += &format!("![{title}]({})\n\n{finding}\n\n", link(file));
        }
        None => *out += &format!("- {title} ([chart]({PAGE})): {finding}\n"),
    }
}

/// A file's name as an address, each byte of what an address or the brackets cannot hold encoded.
fn link(file: &str) -> String {
    let mut address = String::from("<");
    for c in file.chars() {
        match c.is_alphanumeric() || "-_. ".contains(c) {
            true => address.push(c),
            false => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| {
                // Writing to a string cannot fail.
                let _ = write!(address, "%{byte:02X}");
            }),
        }
    }
    address + ">"
}

/// Text that Markdown takes as it is, in a table too, and that does nothing to a terminal.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\n' => out.push(' '),
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '~' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

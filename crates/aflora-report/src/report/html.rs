//! A report as one page that needs nothing else: no script, no network.

use super::charts::canvas::escape;
use super::charts::STYLE as CHARTS;
use super::document::{Chart, DocumentBlock, Drawing, Section, Table, TableEntry, Tone};
use super::{inline, Report};
use std::fmt::Write;

/// The file of the page over all results.
pub const PAGE: &str = "report.html";

const STYLE: &str = include_str!("page.css");
/// Charts below this width stand three in a row.
const SMALL: f64 = 400.0;
/// Above this one, one a row.
const LARGE: f64 = 550.0;

/// The page over all reports.
pub fn render(reports: &[Report]) -> String {
    let title = match reports {
        [one] => one.title.clone(),
        _ => "Experiments".into(),
    };
    let title = escape(&title);
    let out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <style>\n{CHARTS}{STYLE}</style>\n</head>\n<body>\n<main>\n"
    );
    let mut page = Page { out, charts: 0 };
    if reports.len() > 1 {
        // Whoever opens the page reads first what came out.
        let _ = writeln!(page.out, "<h1>{title}</h1>");
        page.table(&answers(reports));
    }
    for (r, report) in reports.iter().enumerate() {
        page.report(r, report, reports.len() > 1);
    }
    page.out + "</main>\n</body>\n</html>\n"
}

/// A chart as a file that any viewer shows, on a light ground of its own.
pub fn chart_file(chart: &Chart) -> String {
    const EDGE: f64 = 14.0;
    const HEAD: f64 = 24.0;
    let Drawing { width, height, svg, .. } = &chart.drawing;
    let title = escape(&chart.title);
    let (w, h) = (
        width.max(chart.title.chars().count() as f64 * 7.2) + 2.0 * EDGE,
        height + HEAD + 2.0 * EDGE,
    );
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" role=\"img\" \
         aria-labelledby=\"t d\" viewBox=\"0 0 {w:.1} {h:.1}\" width=\"{w:.1}\" height=\"{h:.1}\">\n\
         <title id=\"t\">{title}</title>\n<desc id=\"d\">{}</desc>\n<style>{CHARTS}</style>\n\
         <rect x=\".5\" y=\".5\" width=\"{:.1}\" height=\"{:.1}\" rx=\"6\" fill=\"#fff\" \
         stroke=\"#d8dee4\"/>\n<text class=\"strong\" x=\"{EDGE}\" y=\"26\">{title}</text>\n\
         <g transform=\"translate({EDGE} {})\">{svg}</g>\n</svg>\n",
        escape(&chart.finding),
        w - 1.0,
        h - 1.0,
        EDGE + HEAD
    )
}

fn anchor(report: usize, section: usize) -> String {
    format!("r{}-{}", report + 1, section + 1)
}

/// What each experiment asked and what came out, with links to its report.
fn answers(reports: &[Report]) -> Table {
    let mut rows = Vec::new();
    for (r, report) in reports.iter().enumerate() {
        for (i, [asked, found]) in report.answers.iter().enumerate() {
            let experiment = match i {
                0 => TableEntry::new(&report.title).linked(format!("r{}", r + 1)),
                _ => TableEntry::new(""),
            };
            rows.push(vec![experiment, asked.clone(), found.clone()]);
        }
    }
    Table {
        caption: "What was asked, and what came out (intervals of 95 %)".into(),
        words: true,
        head: ["Experiment", "Asked", "Came out"].map(String::from).to_vec(),
        rows,
    }
}

/// Links to a report's sections.
fn contents(r: usize, report: &Report, out: &mut String) {
    let title = escape(&report.title);
    let _ = write!(out, "<nav aria-label=\"Contents of {title}\">\n<p>");
    for (s, section) in report.sections.iter().enumerate() {
        let _ = write!(out, " <a href=\"#{}\">{}</a>", anchor(r, s), escape(&section.title));
    }
    out.push_str("</p>\n</nav>\n");
}

/// The page so far; charts are numbered, so that their parts have names.
struct Page {
    out: String,
    charts: usize,
}

impl Page {
    fn report(&mut self, r: usize, report: &Report, several: bool) {
        let level = if several { 2 } else { 1 };
        let _ = write!(
            self.out,
            "<article id=\"r{}\">\n<h{level}>{}</h{level}>\n{}",
            r + 1,
            escape(&report.title),
            inline::paragraphs(&report.about)
        );
        contents(r, report, &mut self.out);
        for (s, section) in report.sections.iter().enumerate() {
            self.section(&anchor(r, s), level + 1, section);
        }
        self.out.push_str("</article>\n");
    }

    fn section(&mut self, id: &str, level: usize, section: &Section) {
        let title = escape(&section.title);
        let _ = write!(self.out, "<section id=\"{id}\">\n<h{level}>{title}</h{level}>\n");
        for block in &section.blocks {
            match block {
                DocumentBlock::Text(text) => {
                    let _ = writeln!(self.out, "<p>{}</p>", escape(text));
                }
                DocumentBlock::List(items) => {
                    self.out.push_str("<ul>\n");
                    for item in items {
                        let _ = writeln!(self.out, "<li>{}</li>", escape(item));
                    }
                    self.out.push_str("</ul>\n");
                }
                DocumentBlock::Table { table, folded: false } => self.table(table),
                DocumentBlock::Table { table, folded: true } => self.folded(&table.caption, table),
                DocumentBlock::Charts(charts) => {
                    let wide = charts.len() == 1 || charts.iter().any(|c| c.drawing.width > LARGE);
                    let small = charts.iter().all(|c| c.drawing.width < SMALL);
                    let class = match (wide, small) {
                        (true, _) => "charts wide",
                        (false, true) => "charts small",
                        (false, false) => "charts",
                    };
                    let _ = writeln!(self.out, "<div class=\"{class}\">");
                    for chart in charts {
                        self.chart(chart);
                    }
                    self.out.push_str("</div>\n");
                }
            }
        }
        self.out.push_str("</section>\n");
    }

    fn folded(&mut self, summary: &str, table: &Table) {
        let _ = writeln!(self.out, "<details><summary>{}</summary>", escape(summary));
        self.table(table);
        self.out.push_str("</details>\n");
    }

    fn table(&mut self, table: &Table) {
        // Wide tables scroll by themselves, by keyboard too, and leave the page where it is.
        let caption = escape(&table.caption);
        let class = if table.words { " class=\"words\"" } else { "" };
        let _ = write!(
            self.out,
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{caption}\">\n\
             <table{class}>\n\
             <caption>{caption}</caption>\n<thead><tr>"
        );
        for head in &table.head {
            let _ = write!(self.out, "<th scope=\"col\">{}</th>", escape(head));
        }
        self.out.push_str("</tr></thead>\n<tbody>\n");
        for row in &table.rows {
            self.out.push_str("<tr>");
            for (i, entry) in row.iter().enumerate() {
                self.entry(entry, i == 0);
            }
            self.out.push_str("</tr>\n");
        }
        self.out.push_str("</tbody>\n</table>\n</div>\n");
    }

    fn entry(&mut self, entry: &TableEntry, heads: bool) {
        let class = match entry.tone {
            Tone::Plain => "",
            Tone::Best => " class=\"best\"",
            Tone::Good => " class=\"good\"",
            Tone::Bad => " class=\"bad\"",
            Tone::Muted => " class=\"muted\"",
        };
        let title = match entry.title.is_empty() {
            true => String::new(),
            false => format!(" title=\"{}\"", escape(&entry.title)),
        };
        let note = match entry.note.is_empty() {
            true => String::new(),
            false => format!("<small>{}</small>", escape(&entry.note)),
        };
        let mut text = escape(&entry.text);
        if let Some(link) = &entry.link {
            text = format!("<a href=\"#{}\">{text}</a>", escape(link));
        }
        let _ = match heads {
            true => write!(self.out, "<th scope=\"row\"{class}{title}>{text}{note}</th>"),
            false => write!(self.out, "<td{class}{title}><span>{text}</span>{note}</td>"),
        };
    }

    fn chart(&mut self, chart: &Chart) {
        self.charts += 1;
        let id = format!("c{}", self.charts);
        let Drawing { width, height, svg, rigid } = &chart.drawing;
        let (title, finding) = (escape(&chart.title), escape(&chart.finding));
        // What may not shrink keeps its size and scrolls.
        let size = match rigid {
            true => format!(" width=\"{width:.0}\" height=\"{height:.0}\""),
            false => format!(" style=\"max-width:{:.0}px\"", width * 1.25),
        };
        let _ = write!(
            self.out,
            "<figure role=\"group\" aria-labelledby=\"{id}-c\">\n\
             <figcaption id=\"{id}-c\"><b>{title}</b> {finding}</figcaption>\n\
             <div class=\"scroll\"><svg class=\"chart\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\" \
             viewBox=\"0 0 {width:.1} {height:.1}\"{size}><title id=\"{id}-t\">{title}</title>\
             <desc id=\"{id}-d\">{finding}</desc>{svg}</svg></div>\n"
        );
        self.folded("Data", &chart.data);
        self.out.push_str("</figure>\n");
    }
}

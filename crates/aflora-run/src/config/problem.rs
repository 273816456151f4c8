//! A configuration's problems, each shown with the line that it stands in.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// The name of the source of overrides.
pub const COMMAND_LINE: &str = "command line";

/// A text that settings came from: a file, or an argument of the command line.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceText {
    /// What people call it: a file's path, or `command line`.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// A span of a [`SourceText`]: where a key or a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSpan {
    /// The text that the span is of.
    pub source: Arc<SourceText>,
    /// The bytes of the text that it covers.
    pub bytes: Range<usize>,
}

impl SourceSpan {
    /// The stretch `bytes` of `source`, cut to what the text holds.
    pub fn new(source: &Arc<SourceText>, bytes: Range<usize>) -> Self {
        let text = &source.text;
        let boundary = |at: usize| (at..text.len()).find(|&i| text.is_char_boundary(i));
        let start = boundary(bytes.start).unwrap_or(text.len());
        let end = boundary(bytes.end).unwrap_or(text.len()).max(start);
        SourceSpan { source: source.clone(), bytes: start..end }
    }

    /// What stands there.
    pub fn text(&self) -> &str {
        &self.source.text[self.bytes.clone()]
    }

    /// Line and column of its start, from 1.
    pub fn line_column(&self) -> (usize, usize) {
        let before = &self.source.text[..self.bytes.start];
        let line = before.rsplit('\n').next().unwrap_or_default();
        (before.matches('\n').count() + 1, line.chars().count() + 1)
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
    /// Where it stands, if in one place.
    pub span: Option<SourceSpan>,
}

impl Problem {
    /// A problem at `span`.
    pub fn at(span: impl Into<Option<SourceSpan>>, message: impl Into<String>) -> Self {
        Problem { message: message.into(), help: None, span: span.into() }
    }

    /// Says what would be right.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = Level::ERROR.primary_title(self.message.as_str());
        let mut report = match &self.span {
            None => Group::with_title(title),
            Some(span) => title.element(
                Snippet::source(span.source.text.as_str())
                    .path(span.source.name.as_str())
                    .annotation(AnnotationKind::Primary.span(span.bytes.clone())),
            ),
        };
        if let Some(help) = &self.help {
            report = report.element(Level::HELP.message(help.as_str()));
        }
        f.write_str(&Renderer::plain().render(&[report]))
    }
}

/// All problems of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Problem>);

impl ConfigErrors {
    /// The problems in the order in which they stand, each once: those of the run file, of the
    /// blocks, of the command line.
    pub fn new(problems: Vec<Problem>, run_file: &Path) -> Self {
        let mut sources: Vec<(Option<Arc<SourceText>>, Vec<Problem>)> = Vec::new();
        for problem in problems {
            let source = problem.span.as_ref().map(|span| span.source.clone());
            match sources.iter_mut().find(|(other, _)| *other == source) {
                Some((_, others)) if others.contains(&problem) => {}
                Some((_, others)) => others.push(problem),
                None => sources.push((source, vec![problem])),
            }
        }
        for (_, problems) in &mut sources {
            problems.sort_by_key(|p| p.span.as_ref().map(|span| span.bytes.start));
        }
        let run_file = run_file.display().to_string();
        sources.sort_by_key(|(source, _)| match source.as_ref().map(|s| s.name.as_str()) {
            None => 0,
            Some(name) if name == run_file => 1,
            Some(COMMAND_LINE) => 3,
            Some(_) => 2,
        });
        ConfigErrors(sources.into_iter().flat_map(|(_, problems)| problems).collect())
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "the configuration has a problem")?,
            n => write!(f, "the configuration has {n} problems")?,
        }
        self.0.iter().try_for_each(|problem| write!(f, "\n\n{problem}"))
    }
}

impl std::error::Error for ConfigErrors {}

/// The one of `known` that was probably meant by `name`.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let (whole, name) = (name, name.to_lowercase());
    let likeness = |known: &str| match known == whole {
        true => 2.0,
        false => strsim::jaro_winkler(&known.to_lowercase(), &name),
    };
    // The first of those that are alike, whatever the order of `known`.
    let best = sorted(known).into_iter().rev().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    best.filter(|best| likeness(best) > 0.7)
}

/// In the order of letters, each once: a list reads the same wherever it is told.
fn sorted<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    sorted
}

/// Help for a name that is none of `known`: what was probably meant, or all there is.
pub fn instead(name: &str, known: &[&str]) -> String {
    let all = sorted(known).join(", ");
    match nearest(name, known) {
        Some(near) if known.len() > 8 => format!("did you mean `{near}`?"),
        Some(near) => format!("did you mean `{near}`? Known: {all}"),
        None => format!("known: {all}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_listed_in_one_order_whatever_was_asked_for() {
        let known = ["sst2", "cola", "mrpc"];
        assert_eq!(instead("zzz", &known), "known: cola, mrpc, sst2");
        assert_eq!(instead("qqqq", &known), "known: cola, mrpc, sst2");
        assert_eq!(nearest("LABEL", &["text", "Label"]), Some("Label"), "letters of another size");
        assert_eq!(instead("mrcp", &known), "did you mean `mrpc`? Known: cola, mrpc, sst2");
    }
}

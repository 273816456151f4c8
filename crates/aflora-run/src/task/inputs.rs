//! Where a file to predict for, or to judge a run on, holds a task's texts, and what it calls classes.

use super::{Label, TaskSpec};
use crate::feed::row::Row;
use crate::feed::Source;

impl TaskSpec {
    /// The names that a row's text may have, best first, for each of the task's texts: the columns
    /// of its sources, for those it was trained on; then what the columns are for.
    pub fn input_names(&self) -> Vec<Vec<&str>> {
        self.names_of(self.roles(None))
    }

    /// The columns that its sources have for a role.
    fn columns(&self, role: &str) -> Vec<&str> {
        let sources = self.dataset.sources.iter();
        sources.filter_map(|(_, source)| source.columns.get(role)).map(String::as_str).collect()
    }

    /// What its texts are for: as its sources have it; without any, as `row` does, a pair where it
    /// has the texts of one.
    fn roles(&self, row: Option<&Row>) -> &'static [&'static str] {
        let inputs = self.rules().inputs();
        let is_used = |roles: &&[&str]| roles.iter().all(|role| !self.columns(role).is_empty());
        let in_row = |roles: &&[&str]| {
            let has = |row: &Row| roles.iter().all(|role| !matches!(row.find(role), Ok(None)));
            row.is_some_and(has)
        };
        let found = inputs.iter().copied().find(is_used);
        let found = found.or_else(|| inputs.iter().copied().rev().find(in_row));
        found.or(inputs.first().copied()).unwrap_or(&["text"])
    }

    /// The names of texts that are for these roles.
    fn names_of(&self, roles: &[&'static str]) -> Vec<Vec<&str>> {
        let names = |(i, role): (usize, &&'static str)| {
            let further = match (i, *role) {
                (0, "text") => Some("text_a"),
                (0, _) => Some("text"),
                _ => None,
            };
            let mut names: Vec<&str> = Vec::new();
            for name in self.columns(role).into_iter().chain([*role]).chain(further) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            names
        };
        roles.iter().enumerate().map(names).collect()
    }

    /// The task with its classes called in its files as they are in predictions.
    pub fn with_class_names_as_labels(&self) -> TaskSpec {
        let labels = self.class_names().into_iter().map(Label::from).collect();
        TaskSpec { labels, label_names: Vec::new(), ..self.clone() }
    }

    /// The text or texts of a row.
    ///
    /// # Errors
    /// It has not all of them; the names that it has are told, and those that are wanted.
    pub fn texts(&self, row: &Row) -> Result<Vec<String>, String> {
        let plain = Source::default();
        let sources = self.dataset.sources.iter().map(|(_, source)| source).chain([&plain]);
        for source in sources {
            if let Some(texts) = self.rules().whole(row, source)? {
                return Ok(texts);
            }
        }
        let mut found = Vec::new();
        let names = self.names_of(self.roles(Some(row)));
        for names in &names {
            let mut text = None;
            for name in names {
                text = self.rules().input(row, name)?;
                if text.is_some() {
                    break;
                }
            }
            found.extend(text);
        }
        match found.len() == names.len() {
            true => Ok(found.concat()),
            false => {
                // `text_a` alone is found, and not advised.
                let other = |names: &Vec<&str>| names.len() > 1 && names.ends_with(&["text_a"]);
                let single = names.len() == 1;
                let advised = |names: &Vec<&str>| names.len() - usize::from(single && other(names));
                let ways = names.iter().map(advised).min().unwrap_or(0);
                let way = |i: usize| {
                    let texts: Vec<String> =
                        names.iter().map(|names| format!("`{}`", names[i])).collect();
                    texts.join(" and ")
                };
                let wanted = (0..ways).map(way).collect::<Vec<_>>().join(", or ");
                Err(format!("the row has {}; `{}` wants {wanted}", row.shown(), self.name()))
            }
        }
    }
}

//! Which columns of a file to predict for hold a task's texts.

use super::TaskSpec;

impl TaskSpec {
    /// The names that a row's text may have, best first, for each of the task's texts: the columns
    /// of its sources, for those it was trained on; then what the columns are for.
    pub fn input_names(&self) -> Vec<Vec<&str>> {
        let columns = |role: &str| -> Vec<&str> {
            let sources = self.dataset.sources.iter();
            sources.filter_map(|(_, source)| source.columns.get(role)).map(String::as_str).collect()
        };
        let is_used = |roles: &&[&str]| roles.iter().all(|role| !columns(role).is_empty());
        let roles = self.rules().inputs().iter().copied().find(is_used).unwrap_or(&["text"]);
        let names = |(i, role): (usize, &&'static str)| {
            let further = match (i, *role) {
                (0, "text") => Some("text_a"),
                (0, _) => Some("text"),
                _ => None,
            };
            let mut names: Vec<&str> = Vec::new();
            for name in columns(role).into_iter().chain([*role]).chain(further) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            names
        };
        roles.iter().enumerate().map(names).collect()
    }
}

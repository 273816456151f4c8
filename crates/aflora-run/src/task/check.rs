//! What can be wrong with a task's file.

use super::{Kind, TaskSpec, INPUT};
use crate::feed::TRAIN;
use crate::hub::{is_repo, is_revision};
use crate::kinds;
use crate::metrics::Metric;
use std::fmt::Display;

/// Keys with dots, and what is wrong with their values.
pub type Problems = Vec<(String, String)>;

impl TaskSpec {
    /// Every value out of range.
    pub fn problems(&self) -> Problems {
        let mut problems = Vec::new();
        if self.task.is_empty() {
            problems.push(("task".into(), "the task block has no `task`".into()));
        }
        let mut need = |ok: bool, key: &str, value: &dyn Display, right: &str| {
            if !ok {
                let message = format!("`{key}` is {value}, but must be {right}");
                problems.push((key.to_string(), message));
            }
        };
        let holds = self.prompt.contains(INPUT);
        let right = "a text with `{input}` in it, where the example's input comes";
        need(holds, "prompt", &format!("{:?}", self.prompt), right);
        if let Err(error) = self.generation.validate() {
            let key = match &error {
                aflora_core::Error::Setting { field, .. } => field.to_string(),
                _ => String::new(),
            };
            problems.push((format!("generation.{key}"), error.to_string()));
        }
        problems
    }

    /// Everything that does not go together, or is missing.
    pub fn conflicts(&self) -> Problems {
        let mut problems = Vec::new();
        for key in self.idle_keys() {
            let (task, asks) = (&self.task, self.rules().asks_for());
            let words = format!("`{key}` has no say in the task `{task}`, which {asks}");
            problems.push((key.into(), words));
        }
        self.check_answers(&mut problems);
        self.check_dataset(&mut problems);
        problems
    }

    /// The keys that say something other than the default, and mean nothing to this kind.
    fn idle_keys(&self) -> Vec<&'static str> {
        let own = self.rules().keys();
        let every = Kind::ALL.iter().flat_map(|&kind| kinds::of(kind).keys());
        let mut idle: Vec<&str> = every.copied().filter(|key| !own.contains(key)).collect();
        idle.sort_unstable();
        idle.dedup();
        let as_value = |spec: &TaskSpec| serde_json::to_value(spec).unwrap_or_default();
        let (own, plain) = (as_value(self), as_value(&TaskSpec::default()));
        idle.retain(|key| own[*key] != plain[*key]);
        idle
    }

    fn check_answers(&self, problems: &mut Problems) {
        let mut tell = |key: &str, words: String| problems.push((key.to_string(), words));
        let kind = self.rules();
        kind.check(self, &mut tell);
        if self.metrics.is_empty() {
            let known = Metric::names().iter().filter_map(|name| Metric::named(name));
            let known = known.filter(|metric| metric.judges() == kind.answers());
            let known: Vec<&str> = known.map(Metric::name).collect();
            let known = known.join(", ");
            tell("metrics", format!("`metrics` is empty, but must have at least one of: {known}"));
        }
        for metric in self.metrics.iter().filter(|metric| metric.judges() != kind.answers()) {
            let judged = metric.judges().plural();
            let (name, asks) = (metric.name(), kind.asks_for());
            tell("metrics", format!("`{name}` judges {judged}, but the task {asks}"));
        }
    }

    fn check_dataset(&self, problems: &mut Problems) {
        let dataset = &self.dataset;
        let mut tell =
            |key: String, words: String| problems.push((format!("dataset.{key}"), words));
        match &dataset.evaluate_on[..] {
            [] => tell("evaluate_on".into(), "`dataset.evaluate_on` is empty".into()),
            splits if splits.iter().any(|split| !is_file_name(split) || split == TRAIN) => {
                let words = "`dataset.evaluate_on` must hold names other than `train`, no `/`";
                tell("evaluate_on".into(), words.into());
            }
            _ => {}
        }
        if let Some(test) = &dataset.test_on {
            let taken = test == TRAIN || dataset.evaluate_on.contains(test);
            if taken || !is_file_name(test) {
                let right = "a name other than `train` and those of `evaluate_on`, no `/`";
                tell(
                    "test_on".into(),
                    format!("`dataset.test_on` is {test:?}, but must be {right}"),
                );
            }
        }
        if dataset.sources.is_empty() {
            tell(
                "sources".into(),
                "the task does not say where its rows lie (`dataset.sources`)".into(),
            );
        }
        for (name, source) in dataset.sources.iter() {
            let mut tell = |key: &str, words: String| {
                let words = format!("`dataset.sources.{name}.{key}` {words}");
                tell(format!("sources.{name}.{key}"), words);
            };
            let is_list = |roles: &&[&str]| roles.iter().all(|r| source.columns.contains_key(*r));
            let texts = self.rules().inputs();
            let (target, further) = (self.rules().target(self), self.rules().further(self));
            let used = texts.iter().copied().find(is_list);
            let known = |role: &String| {
                let role = role.as_str();
                target == Some(role)
                    || further.contains(&role)
                    || used.is_some_and(|used| used.contains(&role))
            };
            if used.is_none()
                || !target.is_none_or(|target| source.columns.contains_key(target))
                || !source.columns.keys().all(known)
            {
                let forms: Vec<String> = texts
                    .iter()
                    .map(|roles| {
                        let roles: Vec<&str> = roles.iter().copied().chain(target).collect();
                        format!("{{{}: …}}", roles.join(": …, "))
                    })
                    .collect();
                tell("columns", format!("must be {}", forms.join(" or ")));
            }
            let drawn = source.hold_out.is_some();
            for split in dataset.splits_of(source) {
                if source.files(split).is_empty() {
                    tell("files", format!("has none for the split `{split}`"));
                }
            }
            for split in source.files.keys().filter(|key| !dataset.splits().any(|s| s == *key)) {
                let words = "is of no split: neither `train` nor one of `dataset.evaluate_on`, nor `dataset.test_on`";
                tell(&format!("files.{split}"), words.into());
            }
            if drawn
                && (dataset.evaluate_on.len() > 1
                    || source.hold_out.percent == 0
                    || source.hold_out.percent > 99)
            {
                tell("hold_out", "draws one evaluation split, of 1 to 99 percent".into());
            }
            let test = source.hold_out.test_percent;
            if test > 0
                && (source.hold_out.by.is_some()
                    || dataset.test_on.is_none()
                    || test + source.hold_out.percent > 99)
            {
                let words = "draws `test_percent` for `dataset.test_on`, by no column, and leaves \
                             rows to train on: 1 to 99 percent together";
                tell("hold_out", words.into());
            }
            // They become parts of paths and addresses.
            for (split, files) in &source.files {
                let whole = source.is_of_paths() && source.repo.is_none();
                if !whole && !files.0.iter().all(|file| is_below(file)) {
                    let words = "must lie below the source's folder (no `..`, no leading `/`), or \
                                 all files be named by their whole paths";
                    tell(&format!("files.{split}"), words.into());
                }
            }
            if source.repo.as_deref().is_some_and(|repo| !is_repo(repo)) {
                tell("repo", "must be `owner/name` on the hub".into());
            }
            if source.repo.is_some() != source.revision.is_some()
                || source.revision.as_deref().is_some_and(|revision| !is_revision(revision))
            {
                tell("revision", "must be a commit of the hub's, beside `repo`".into());
            }
        }
    }
}

/// Whether a text can be part of a file's name.
fn is_file_name(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('.') && !text.contains(['/', '\\'])
}

/// Whether a path leads to nothing but what is below a folder.
fn is_below(path: &str) -> bool {
    !path.is_empty()
        && !path.contains('\\')
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

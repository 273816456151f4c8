//! A data set of the hub by its name: which of its files are which split.
//!
//! `owner/name[@revision][/configuration[/split]]`. What its README.md says in `configs` decides;
//! else what its files are called, as Hugging Face's `datasets` goes by it; and where it holds a
//! script and no rows, the hub's own conversion of it to parquet.

use super::listing::Listing;
use super::{is_repo, is_revision, Hub, HubError, Repo};
use regex::Regex;
use serde_json::Value;
use std::collections::BTreeMap;

/// The branch with the hub's conversion to parquet.
const CONVERTED: &str = "refs/convert/parquet";

/// The most bytes of a README.md that are looked at.
const MOST: u64 = 4 << 20;

/// Splits by the words in the names of their files.
const WORDS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "val", "dev"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// What a data set is named by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetName {
    /// The data set and its revision.
    pub repo: Repo,
    /// The configuration, if one is named.
    pub configuration: Option<String>,
    /// The split, if one is named.
    pub split: Option<String>,
}

impl DatasetName {
    /// Reads `owner/name[@revision][/configuration[/split]]`.
    ///
    /// # Errors
    /// It is of another form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no data set; write hub:owner/name[@revision][/configuration[/split]]"
            )
        };
        let mut parts = text.split('/');
        let (Some(owner), Some(name)) = (parts.next(), parts.next()) else { return Err(wrong()) };
        let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
        let (configuration, split) = (parts.next(), parts.next());
        let repo = format!("{owner}/{name}");
        let whole = [configuration, split].into_iter().flatten().all(|part| !part.is_empty());
        if !is_repo(&repo) || !is_revision(revision) || !whole || parts.next().is_some() {
            return Err(wrong());
        }
        Ok(DatasetName {
            repo: Repo { repo, revision: revision.into(), dataset: true },
            configuration: configuration.map(String::from),
            split: split.map(String::from),
        })
    }
}

/// The splits of a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct DatasetFiles {
    /// The data set at the commit that its revision is now.
    pub repo: Repo,
    /// The files of each split.
    pub splits: BTreeMap<String, Vec<String>>,
    /// The names of the classes of the columns that have such, in the order of their numbers.
    pub classes: BTreeMap<String, Vec<String>>,
}

impl Hub {
    /// The splits of a data set, in the configuration that is named or the default one; `readable`
    /// says whether a file's name is that of a form that can be read.
    ///
    /// # Errors
    /// The hub cannot be asked; or there is no such data set or configuration, or no file in it that
    /// can be read.
    pub fn dataset(
        &self,
        name: &DatasetName,
        readable: &dyn Fn(&str) -> bool,
    ) -> Result<DatasetFiles, String> {
        let words = |error: HubError| error.to_string();
        let listing = self.list(&name.repo).map_err(words)?;
        let about = match listing.files.iter().any(|file| file == "README.md") {
            true => self.front_matter(&listing.repo)?,
            false => Value::Null,
        };
        let classes = classes(&about, name.configuration.as_deref());
        let configuration = name.configuration.as_deref();
        let said = by_readme(&about, configuration, &listing.files, readable)?;
        let splits = said.unwrap_or_else(|| by_names(configuration, &listing.files, readable));
        if !splits.is_empty() {
            return Ok(DatasetFiles { repo: listing.repo, splits, classes });
        }
        let converted = Repo { revision: CONVERTED.into(), ..name.repo.clone() };
        let none = || {
            let of = configuration.map_or(String::new(), |name| format!(" of `{name}`"));
            format!("{} has no files{of} of a form that can be read", name.repo.repo)
        };
        let Listing { repo, files } = self.list(&converted).map_err(|_| none())?;
        let configuration = configuration.unwrap_or("default");
        let splits = by_names(Some(configuration), &files, readable);
        match splits.is_empty() {
            true => Err(none()),
            false => Ok(DatasetFiles { repo, splits, classes }),
        }
    }

    /// What stands before the text of a README.md; null if nothing does.
    fn front_matter(&self, repo: &Repo) -> Result<Value, String> {
        let path = self.get(repo, "README.md", &mut |_, _| {}).map_err(|e| e.to_string())?;
        let text = aflora_files::read_text_at_most(&path, MOST)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let Some(rest) = text.trim_start_matches('\u{feff}').strip_prefix("---") else {
            return Ok(Value::Null);
        };
        let Some(end) = rest.find("\n---") else { return Ok(Value::Null) };
        let options = serde_saphyr::options! {
            with_snippet: false,
            budget: serde_saphyr::budget! { max_depth: 32, max_nodes: 200_000 },
        };
        // Whoever wrote it in another way is read by the files' names.
        Ok(serde_saphyr::from_str_with_options(&rest[..end], options).unwrap_or_default())
    }
}

/// The splits as README.md says them; none if it says nothing.
fn by_readme(
    about: &Value,
    wanted: Option<&str>,
    files: &[String],
    readable: &dyn Fn(&str) -> bool,
) -> Result<Option<BTreeMap<String, Vec<String>>>, String> {
    let configurations = about["configs"].as_array().map_or(&[][..], Vec::as_slice);
    let with_files = configurations.iter().filter(|config| !config["data_files"].is_null());
    let named: Vec<(&str, &Value)> =
        with_files.map(|c| (c["config_name"].as_str().unwrap_or("default"), c)).collect();
    if named.is_empty() {
        return Ok(None);
    }
    let usual = |(name, config): &&(&str, &Value)| *name == "default" || config["default"] == true;
    let chosen = match wanted {
        Some(wanted) => named.iter().find(|(name, _)| *name == wanted),
        None if named.len() == 1 => named.first(),
        None => named.iter().find(usual),
    };
    let Some((_, config)) = chosen else {
        let names: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
        let names = names.join(", ");
        return Err(match wanted {
            Some(wanted) => format!("it has no configuration `{wanted}`, but {names}"),
            None => format!("name one of its configurations, behind a slash: {names}"),
        });
    };
    let texts = |value: &Value| -> Vec<String> {
        let one = value.as_str().map(String::from).into_iter();
        let many = value.as_array().into_iter().flatten();
        one.chain(many.filter_map(|item| item.as_str().map(String::from))).collect()
    };
    let mut splits: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut add = |split: &str, patterns: Vec<String>| {
        let found = patterns.iter().flat_map(|pattern| matching(pattern, files));
        let found: Vec<String> = found.filter(|file| readable(file)).collect();
        if !found.is_empty() {
            splits.entry(split.to_string()).or_default().extend(found);
        }
    };
    let data_files = &config["data_files"];
    let plain = texts(data_files);
    if plain.is_empty() {
        for item in data_files.as_array().into_iter().flatten() {
            add(item["split"].as_str().unwrap_or("train"), texts(&item["path"]));
        }
    } else {
        add("train", plain);
    }
    Ok(Some(splits))
}

/// The files that a pattern such as `data/train-*` names.
fn matching(pattern: &str, files: &[String]) -> Vec<String> {
    let pattern = pattern.trim_start_matches("./");
    let mut regex = String::new();
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let (words, length) = match c {
            '*' if rest.starts_with("**/") => ("(?:.*/)?".to_string(), 3),
            '*' if rest.starts_with("**") => (".*".to_string(), 2),
            '*' => ("[^/]*".to_string(), 1),
            '?' => ("[^/]".to_string(), 1),
            c => (regex::escape(c.encode_utf8(&mut [0; 4])), c.len_utf8()),
        };
        regex.push_str(&words);
        rest = &rest[length..];
    }
    let Ok(regex) = Regex::new(&format!("^{regex}$")) else { return Vec::new() };
    files.iter().filter(|file| regex.is_match(file)).cloned().collect()
}

/// The splits as the files' names tell them: by the words in them, in the folder of the
/// configuration if one is named; files of no such name are all training rows.
fn by_names(
    configuration: Option<&str>,
    files: &[String],
    readable: &dyn Fn(&str) -> bool,
) -> BTreeMap<String, Vec<String>> {
    let below = configuration.map(|name| format!("{name}/"));
    let inside = |file: &&String| below.as_ref().is_none_or(|below| file.starts_with(below));
    let files: Vec<&String> = files.iter().filter(inside).filter(|file| readable(file)).collect();
    let mut splits: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in &files {
        let lower = file.to_ascii_lowercase();
        let words: Vec<&str> = lower.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        let split = WORDS.iter().find(|(_, known)| words.iter().any(|word| known.contains(word)));
        if let Some((split, _)) = split {
            splits.entry(split.to_string()).or_default().push(file.to_string());
        }
    }
    if splits.is_empty() && !files.is_empty() {
        splits.insert("train".into(), files.into_iter().cloned().collect());
    }
    splits
}

/// The names of classes that README.md tells of columns.
fn classes(about: &Value, configuration: Option<&str>) -> BTreeMap<String, Vec<String>> {
    let info = &about["dataset_info"];
    let infos: Vec<&Value> = info.as_array().map_or(vec![info], |all| all.iter().collect());
    let chosen = match configuration {
        Some(name) => infos.iter().find(|info| info["config_name"] == name),
        None if infos.len() == 1 => infos.first(),
        None => infos.iter().find(|info| info["config_name"] == "default"),
    };
    let features = chosen.and_then(|info| info["features"].as_array()).into_iter().flatten();
    let mut classes = BTreeMap::new();
    for feature in features {
        // Of a value, or of each value of a list.
        let forms = [&feature["dtype"], &feature["sequence"], &feature["list"]];
        let names = forms.into_iter().find_map(|form| form["class_label"]["names"].as_object());
        let (Some(column), Some(names)) = (feature["name"].as_str(), names) else {
            continue;
        };
        // Numbers as keys, in any order.
        let mut numbered: Vec<(usize, String)> = names
            .iter()
            .filter_map(|(n, name)| Some((n.parse().ok()?, name.as_str()?.to_string())))
            .collect();
        numbered.sort();
        if numbered.iter().enumerate().all(|(at, (n, _))| at == *n) && numbered.len() == names.len()
        {
            classes.insert(column.to_string(), numbered.into_iter().map(|(_, n)| n).collect());
        }
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    fn about(yaml: &str) -> Value {
        serde_saphyr::from_str(yaml).unwrap()
    }

    const READABLE: &dyn Fn(&str) -> bool = &|file| file.ends_with(".parquet");

    #[test]
    fn a_data_set_is_named_with_its_revision_configuration_and_split() {
        let name = DatasetName::parse("o/n@v1/c/s").unwrap();
        assert_eq!((name.repo.repo.as_str(), name.repo.revision.as_str()), ("o/n", "v1"));
        assert_eq!((name.configuration.as_deref(), name.split.as_deref()), (Some("c"), Some("s")));
        assert_eq!(DatasetName::parse("o/n").unwrap().repo.revision, "main");
        for wrong in ["n", "o/n/", "o/n/c/s/x", "o/../x", "o/n@a b", "", "/n"] {
            assert!(DatasetName::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn readme_says_which_files_are_which_split_of_which_configuration() {
        let about = about(
            "configs:\n- config_name: big\n  data_files:\n  - split: train\n    path: big/train-*\n\
             - config_name: small\n  default: true\n  data_files:\n  - split: train\n    path:\n    \
             - small/a.parquet\n    - small/b.*\n  - split: validation\n    path: '**/val.parquet'\n",
        );
        let names =
            ["big/train-0.parquet", "big/train-0.txt", "small/a.parquet", "small/b.parquet"];
        let files = files(&[&names[..], &["small/x/val.parquet"]].concat());
        let of = |wanted| by_readme(&about, wanted, &files, READABLE).map(Option::unwrap);
        assert_eq!(of(Some("big")).unwrap()["train"], ["big/train-0.parquet"]);
        let small = of(None).unwrap();
        assert_eq!(small["train"], ["small/a.parquet", "small/b.parquet"]);
        assert_eq!(small["validation"], ["small/x/val.parquet"]);
        assert_eq!(of(Some("none")).unwrap_err(), "it has no configuration `none`, but big, small");
    }

    #[test]
    fn names_of_files_tell_their_splits_where_nothing_else_does() {
        let names = ["data/train-00000.parquet", "data/dev.parquet", "x/test.parquet", "train.txt"];
        let splits = by_names(None, &files(&names), READABLE);
        assert_eq!(splits.keys().collect::<Vec<_>>(), ["test", "train", "validation"]);
        assert_eq!(by_names(Some("x"), &files(&names), READABLE).len(), 1);
        assert_eq!(by_names(None, &files(&["a.parquet"]), READABLE)["train"], ["a.parquet"]);
    }

    #[test]
    fn names_of_classes_are_those_of_their_numbers() {
        let yaml = "dataset_info:\n  features:\n  - name: text\n    dtype: string\n  - name: label\n    \
                    dtype:\n      class_label:\n        names:\n          '1': pos\n          '0': neg\n";
        assert_eq!(classes(&about(yaml), None)["label"], ["neg", "pos"]);
        let of_lists = yaml.replace("dtype:", "sequence:");
        assert_eq!(classes(&about(&of_lists), None)["label"], ["neg", "pos"]);
    }
}

//! Where a task's rows lie and what their columns are called, as the task's file says it.

use super::unpack::{unpacked_name, Packing};
use schemars::{json_schema, JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The split that is trained on.
pub const TRAIN: &str = "train";

/// What stands for the folder that the user named, among [`DatasetSpec::folders`].
pub const ITSELF: &str = ".";

/// Where a task's splits are looked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DatasetSpec {
    /// The splits that are evaluated on; the first decides which epoch was best.
    #[schemars(extend("takes" = "[splits]"))]
    pub evaluate_on: Vec<String>,
    /// The split that is judged once, at the end, with the best adapter; none if not given.
    #[schemars(extend("takes" = "split, null"))]
    pub test_on: Option<String>,
    /// Names, beside the task's own, of the folder with its files in the one that data names; with
    /// a dot, that may hold them itself.
    #[schemars(extend("takes" = "[names]"))]
    pub folders: Vec<String>,
    /// Folders of the one that data names in which those may lie, too.
    #[schemars(extend("takes" = "[names]"))]
    pub below: Vec<String>,
    /// The forms in which the rows are published, the preferred first.
    pub sources: Sources,
}

impl Default for DatasetSpec {
    fn default() -> Self {
        DatasetSpec {
            evaluate_on: vec!["dev".into()],
            test_on: None,
            folders: Vec::new(),
            below: Vec::new(),
            sources: Sources::default(),
        }
    }
}

impl DatasetSpec {
    /// Every split: the one that is trained on, then those that are evaluated on, then the one that
    /// is judged at the end.
    pub fn splits(&self) -> impl Iterator<Item = &str> {
        let held_out = self.evaluate_on.iter().chain(&self.test_on);
        std::iter::once(TRAIN).chain(held_out.map(String::as_str))
    }

    /// The splits that have files of their own in `source`: all, but for those that are held out of
    /// the training rows.
    pub fn splits_of(&self, source: &Source) -> impl Iterator<Item = &str> {
        let held_out = source.hold_out.is_some();
        let evaluated = self.evaluate_on.iter().filter(move |_| !held_out);
        let drawn = source.hold_out.test_percent > 0;
        let others = evaluated.chain(self.test_on.iter().filter(move |_| !drawn));
        std::iter::once(TRAIN).chain(others.map(String::as_str))
    }

    /// Whether the rows can be fetched.
    pub fn is_on_hub(&self) -> bool {
        self.sources.iter().any(|(_, source)| source.repo.is_some())
    }
}

/// One form in which a task's rows are published: files, and the columns in them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    /// The folder of the files that comes with the project, seen from the project's.
    #[schemars(extend("takes" = "folder, null"))]
    pub place: Option<PathBuf>,
    /// Whether what lies there is an example, and left alone where data names a folder.
    pub example: bool,
    /// The data set on the hub that holds the files.
    #[schemars(extend("takes" = "owner/name, null"))]
    pub repo: Option<String>,
    /// What to take from the hub.
    #[schemars(extend("takes" = "commit, null"))]
    pub revision: Option<String>,
    /// The files of each split, train and those that are evaluated on; by their whole paths, they
    /// are read where they lie.
    #[schemars(extend("takes" = "{split: file or [files]}"))]
    pub files: BTreeMap<String, Files>,
    /// The column of each of the texts, and of what is right for them.
    #[schemars(extend("takes" = "{text, label}, {text_a, text_b, label}, {tokens, tags}, {input, target}"))]
    pub columns: BTreeMap<String, String>,
    /// What stands between the cells of a line, which are quoted as in CSV; null: a tab in a .tsv
    /// file, and in a .csv file what its header has most of.
    #[serde(deserialize_with = "delimiter")]
    #[schemars(extend("takes" = "character, tab, null"))]
    pub delimiter: Option<char>,
    /// Whether the first line of a table names its columns; they have numbers from 1 if not.
    pub header: bool,
    /// Whether labels are the numbers of classes, from 0, and not the task's own values.
    pub numbered_labels: bool,
    /// Whether the published tables hold rows of another width, which are passed over.
    pub forgive_broken_rows: bool,
    /// Rows with one of these values in this column are left out.
    #[schemars(extend("takes" = "{column: [values]}"))]
    pub skip: BTreeMap<String, Vec<String>>,
    /// The column whose values come once: later rows are left out.
    #[schemars(extend("takes" = "column, null"))]
    pub unique: Option<String>,
    /// How the first evaluation split is drawn, where the training split's file holds it.
    pub hold_out: HoldOut,
    /// How to get the files.
    pub hint: Option<String>,
}

impl Default for Source {
    fn default() -> Self {
        Source {
            place: None,
            example: false,
            repo: None,
            revision: None,
            files: BTreeMap::new(),
            columns: BTreeMap::new(),
            delimiter: None,
            header: true,
            numbered_labels: false,
            forgive_broken_rows: false,
            skip: BTreeMap::new(),
            unique: None,
            hold_out: HoldOut::default(),
            hint: None,
        }
    }
}

impl Source {
    /// The files of a split; none if there are none of that split.
    pub fn files(&self, split: &str) -> &[String] {
        self.files.get(split).map_or(&[], |files| &files.0)
    }

    /// The name of the column that is for `role`; the role's own where it has none.
    pub fn column<'a>(&'a self, role: &'a str) -> &'a str {
        self.columns.get(role).map_or(role, String::as_str)
    }

    /// Whether all files are named by their whole paths.
    pub fn is_of_paths(&self) -> bool {
        let mut files = self.files.values().flat_map(|files| &files.0).peekable();
        files.peek().is_some() && files.all(|file| Path::new(file).is_absolute())
    }

    /// Every column that is read.
    pub(super) fn read_columns(&self) -> impl Iterator<Item = &String> {
        let drawn = self.unique.iter().chain(&self.hold_out.by).chain(&self.hold_out.within);
        self.columns.values().chain(self.skip.keys()).chain(drawn)
    }
}

/// Rows held out of the training split's files.
///
/// By the value of a column, rows with one value are all on one side: a value is held out if the
/// first eight bytes of its SHA-256, as a big-endian number, leave a remainder below `percent` when
/// divided by 100. Without one, the draw is by the texts and `seed`, and rows of one text and label are
/// on one side; it can also give the split that is judged at the end, which is drawn first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HoldOut {
    /// The column by whose values rows are held out; null: they are drawn.
    #[schemars(extend("takes" = "column, null"))]
    pub by: Option<String>,
    /// About how many of 100 values, or how many of 100 rows that are drawn; 0: none.
    pub percent: u64,
    /// How many of 100 rows are drawn for the split that is judged at the end; 0: none.
    pub test_percent: u64,
    /// Decides which rows are drawn.
    pub seed: u64,
    /// The column of whose every value that share is drawn; null: of all rows together.
    #[schemars(extend("takes" = "column, null"))]
    pub within: Option<String>,
}

impl HoldOut {
    /// Whether the first evaluation split comes out of the training split's files.
    pub fn is_some(&self) -> bool {
        self.by.is_some() || self.percent > 0
    }

    /// Whether the rows are drawn, when all are read.
    pub(super) fn is_drawn(&self) -> bool {
        self.by.is_none() && (self.percent > 0 || self.test_percent > 0)
    }
}

/// What stands between cells: a character, or the name of the one that is hard to type.
pub(crate) fn delimiter<'de, D: Deserializer<'de>>(from: D) -> Result<Option<char>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    let Some(text) = text else { return Ok(None) };
    let mut characters = text.chars();
    match (text.as_str(), characters.next(), characters.next()) {
        ("tab" | "\\t", ..) => Ok(Some('\t')),
        (_, Some(one), None) => Ok(Some(one)),
        _ => Err(D::Error::invalid_value(Unexpected::Str(&text), &"one character, or tab")),
    }
}

/// A split's files, in their order: in YAML one name, or a list of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Files(pub Vec<String>);

impl Serialize for Files {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

impl JsonSchema for Files {
    fn schema_name() -> Cow<'static, str> {
        "Files".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "array"], "takes": "file, [files]" })
    }
}

impl<'de> Deserialize<'de> for Files {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Files;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a file, or a list of files")
            }

            fn visit_str<E>(self, name: &str) -> Result<Files, E> {
                Ok(Files(vec![name.to_string()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Files, A::Error> {
                let mut files = Vec::new();
                while let Some(file) = seq.next_element()? {
                    files.push(file);
                }
                Ok(Files(files))
            }
        }
        deserializer.deserialize_any(OneOrMore)
    }
}

/// Sources by their names, in the order in which they stand in the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sources(Vec<(String, Source)>);

impl Sources {
    /// Every source with its name, in the order in which they stand in the file.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Source)> {
        self.0.iter().map(|(name, source)| (name.as_str(), source))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Sources {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl JsonSchema for Sources {
    fn schema_name() -> Cow<'static, str> {
        "Sources".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "takes": "{name: source}" })
    }
}

impl<'de> Deserialize<'de> for Sources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ByName;
        impl<'de> Visitor<'de> for ByName {
            type Value = Sources;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("sources by their names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sources, A::Error> {
                let mut sources = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    sources.push(entry);
                }
                Ok(Sources(sources))
            }
        }
        deserializer.deserialize_map(ByName)
    }
}

/// The endings of files that can be read, the preferred first.
const ENDINGS: [&str; 5] = ["jsonl", "parquet", "tsv", "csv", "conll"];

/// Whether a file's name says that it is parquet.
pub(crate) fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("parquet"))
}

/// Whether a file's name tells the form of its rows.
pub fn is_known_form(path: &Path) -> bool {
    let of = |path: &Path| {
        let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
        ending.to_str().map(str::to_string).unwrap_or_default()
    };
    let known = ["csv", "tsv", "jsonl", "json", "ndjson", "txt", "conll", "bio", "iob", "iob2"];
    is_parquet(path) || known.contains(&of(&unpacked_name(path)).as_str())
}

/// What a file that is called `name` may be called: itself; unpacked; and where the name has no
/// ending, that of each form.
pub(super) fn candidates(name: &str) -> Vec<String> {
    let ending = Path::new(name).extension().and_then(|ending| ending.to_str());
    match ending {
        Some(packed) if Packing::of(Path::new(name)).is_some() => {
            let unpacked = &name[..name.len() - packed.len() - 1];
            vec![name.into(), unpacked.into()]
        }
        _ if is_known_form(Path::new(name)) || Path::new(name).is_absolute() => vec![name.into()],
        _ => ENDINGS.iter().map(|ending| format!("{name}.{ending}")).collect(),
    }
}

//! What a report says, before it is Markdown or HTML.
//!
//! Views turn results into sections; writers turn sections into files. So both forms of a report
//! say the same, and no view knows how text is escaped: everything here is plain text.

/// A part of a report under one heading.
#[derive(Debug, Clone)]
pub struct Section {
    /// The heading.
    pub title: String,
    /// What follows it.
    pub blocks: Vec<DocumentBlock>,
}

/// A piece of a section.
#[derive(Debug, Clone)]
pub enum DocumentBlock {
    /// A paragraph.
    Text(String),
    /// Statements, one below the other.
    List(Vec<String>),
    /// A table; folded away at first if it is long and of interest to few.
    Table {
        /// The table.
        table: Table,
        /// Whether it is folded away.
        folded: bool,
    },
    /// Charts that are read side by side.
    Charts(Vec<Chart>),
}

impl DocumentBlock {
    /// A table in plain sight.
    pub fn table(table: Table) -> Self {
        DocumentBlock::Table { table, folded: false }
    }
}

/// A table. The first column heads its row.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// Names of the columns.
    pub head: Vec<String>,
    /// Whether its entries are words rather than numbers.
    pub words: bool,
    /// Rows, each as long as `head`.
    pub rows: Vec<Vec<TableEntry>>,
}

/// An entry of a table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TableEntry {
    /// What stands there.
    pub text: String,
    /// Smaller lines below it.
    pub note: String,
    /// An explanation on asking.
    pub title: String,
    /// Where on the page it leads, if anywhere.
    pub link: Option<String>,
    /// How it is set.
    pub tone: Tone,
}

/// How an entry is set. Tones repeat what the text says, so that nothing is told by looks alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tone {
    /// Set as all other text.
    #[default]
    Plain,
    /// The best of its column.
    Best,
    /// Better, or as the paper says.
    Good,
    /// Worse, or not as the paper says.
    Bad,
    /// Nothing, or nothing that can be told.
    Muted,
}

impl TableEntry {
    /// An entry that is text alone.
    pub fn new(text: impl Into<String>) -> Self {
        TableEntry { text: text.into(), ..TableEntry::default() }
    }

    /// The mark of what is not there, and why.
    pub fn none(why: impl Into<String>) -> Self {
        TableEntry {
            text: "–".into(),
            title: why.into(),
            tone: Tone::Muted,
            ..TableEntry::default()
        }
    }

    /// Adds smaller lines below the text.
    pub fn noted(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Adds an explanation, shown on asking.
    pub fn titled(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    /// Leading to a place on the page.
    pub fn linked(mut self, to: impl Into<String>) -> Self {
        self.link = Some(to.into());
        self
    }

    /// Set in another way.
    pub fn toned(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }
}

impl From<&str> for TableEntry {
    fn from(text: &str) -> Self {
        TableEntry::new(text)
    }
}

impl From<String> for TableEntry {
    fn from(text: String) -> Self {
        TableEntry::new(text)
    }
}

/// A chart with its text alternative and its data.
#[derive(Debug, Clone)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// What can be seen in it, in words.
    pub finding: String,
    /// The drawing.
    pub drawing: Drawing,
    /// The numbers drawn.
    pub data: Table,
    /// If it also is a file of its own: what its name ends with, such as `heatmap-mrpc`.
    pub file: Option<String>,
}

/// The inside of an SVG element, and its size in pixels.
#[derive(Debug, Clone, Default)]
pub struct Drawing {
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
    /// SVG elements; all text in them is escaped.
    pub svg: String,
    /// Whether it may not shrink below its size (its text would become too small).
    pub rigid: bool,
}

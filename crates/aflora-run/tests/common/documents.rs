//! The project's documents, and the blocks in them.

use std::path::{Path, PathBuf};
use std::{fs, iter};

/// A fenced block.
pub struct Block {
    /// What stands behind the fence, such as `sh run`.
    pub info: String,
    pub text: String,
    /// Where it begins, as `docs/first-run.md:12`.
    pub place: String,
}

/// A document by its name from the project's folder, such as `docs/first-run.md`.
pub struct Document {
    pub name: String,
    pub text: String,
}

/// Everything that people read: README.md, the book, and what lies beside the code. Generated
/// reports and fixtures are none.
pub fn all(root: &Path) -> Vec<Document> {
    let markdown = |folder: PathBuf| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        paths.filter(|path| path.extension().is_some_and(|e| e == "md")).collect::<Vec<_>>()
    };
    let folders = |folder: PathBuf| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect::<Vec<_>>()
    };
    let fixed = ["", "docs", "experiments", "bench", "upstream", "scripts/release"];
    let fixed = fixed.map(|name| root.join(name));
    let beside = ["crates", "upstream"].iter().flat_map(|name| folders(root.join(name)));
    let mut paths: Vec<PathBuf> = fixed.into_iter().chain(beside).flat_map(markdown).collect();
    paths.sort();
    let named = |path: &PathBuf| {
        let name = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
        Document { name, text: fs::read_to_string(path).unwrap() }
    };
    paths.iter().map(named).collect()
}

impl Document {
    /// Its fenced blocks.
    pub fn blocks(&self) -> Vec<Block> {
        let mut lines = self.text.lines().zip(1..);
        iter::from_fn(|| {
            let (info, at) =
                lines.by_ref().find_map(|(line, at)| Some((line.strip_prefix("```")?, at)))?;
            let inside =
                lines.by_ref().map(|(line, _)| line).take_while(|line| !line.starts_with("```"));
            let text = inside.fold(String::new(), |text, line| text + line + "\n");
            Some(Block { info: info.to_string(), text, place: format!("{}:{at}", self.name) })
        })
        .collect()
    }

    /// Its text without the fenced blocks, with the number of each line.
    pub fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut fenced = false;
        (1..).zip(self.text.lines()).filter(move |(_, line)| {
            let fence = line.starts_with("```");
            fenced ^= fence;
            !fenced && !fence
        })
    }
}

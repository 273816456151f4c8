//! The project's blocks (tasks, models, methods) as they were when this program was built: what a
//! configuration names is found wherever the program is started.

/// The kind of a block, its name, and its file's text.
const SHIPPED: &[(&str, &str, &str)] = include!(concat!(env!("OUT_DIR"), "/shipped_blocks.rs"));

/// The file of the block of that kind and name.
pub(super) fn text(kind: &str, name: &str) -> Option<&'static str> {
    let mut blocks = SHIPPED.iter();
    blocks.find(|(k, n, _)| (*k, *n) == (kind, name)).map(|(_, _, text)| *text)
}

/// The names of the blocks of a kind.
pub(super) fn names(kind: &str) -> impl Iterator<Item = &'static str> + '_ {
    SHIPPED.iter().filter(move |(k, _, _)| *k == kind).map(|(_, name, _)| *name)
}

/// What the name of such a file begins with, where messages name it.
const BUILT_IN: &str = "the built-in ";

/// What stands in a file's place where messages name it.
pub(super) fn source(kind: &str, name: &str) -> String {
    format!("{BUILT_IN}{kind} {name}")
}

/// Whether a source is one of these.
pub(super) fn is_source(name: &str) -> bool {
    name.starts_with(BUILT_IN)
}

//! Entities in tags of words (`B-PER`, `I-PER`, `O`; also of IOB1, IOE and IOBES), with the
//! conventions of seqeval's default mode, which are those of CoNLL's script: an entity is right if
//! its type and its bounds are.

use super::counts::total;
use aflora_record::by_class::Counts;
use std::collections::{BTreeMap, HashSet};

/// The share of words whose tag was found.
pub(super) fn accuracy(answers: &[Vec<String>], right: &[Vec<String>]) -> f64 {
    let (answers, right) = (answers.concat(), right.concat());
    let hits = answers.iter().zip(&right).filter(|(answer, right)| answer == right).count();
    hits as f64 / right.len() as f64
}

/// The share of the found entities that are right; 0 where none is found.
pub(super) fn precision(answers: &[Vec<String>], right: &[Vec<String>]) -> f64 {
    total(by_type(answers, right).into_values()).precision()
}

/// The share of the right entities that are found; 0 where there is none.
pub(super) fn recall(answers: &[Vec<String>], right: &[Vec<String>]) -> f64 {
    total(by_type(answers, right).into_values()).recall()
}

/// Twice the hits by the found and the right entities together; 0 where there are none.
pub(super) fn f1(answers: &[Vec<String>], right: &[Vec<String>]) -> f64 {
    total(by_type(answers, right).into_values()).f1()
}

/// How often there are entities of each type, how often they were found, and how often both at once.
pub fn by_type(answers: &[Vec<String>], right: &[Vec<String>]) -> BTreeMap<String, Counts> {
    let mut counts = BTreeMap::<String, Counts>::new();
    for (answer, right) in answers.iter().zip(right) {
        let (found, wanted) = (entities(answer), entities(right));
        let found_set: HashSet<&Entity> = found.iter().collect();
        let wanted_set: HashSet<&Entity> = wanted.iter().collect();
        for entity in &wanted {
            counts.entry(entity.kind.clone()).or_default().add(true, found_set.contains(entity));
        }
        for entity in found.iter().filter(|entity| !wanted_set.contains(entity)) {
            counts.entry(entity.kind.clone()).or_default().add(false, true);
        }
    }
    counts
}

/// An entity in a row of words.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entity {
    /// Its type, such as `PER`; `_` of a tag that names none.
    pub kind: String,
    /// Its first word, from 0.
    pub start: usize,
    /// The word behind its last.
    pub end: usize,
}

/// What stands before a row, and behind it.
const OUTSIDE: (&str, &str) = ("O", "_");

/// The entities of a row's tags.
pub fn entities(tags: &[String]) -> Vec<Entity> {
    let mut entities = Vec::new();
    let (mut before, mut start) = (OUTSIDE, 0);
    let parts = tags.iter().map(|tag| split(tag)).chain([OUTSIDE]);
    for (i, tag) in parts.enumerate() {
        if ends(before, tag) {
            entities.push(Entity { kind: before.1.to_string(), start, end: i });
        }
        if starts(before, tag) {
            start = i;
        }
        before = tag;
    }
    entities
}

/// A tag's place in its entity, one letter, and the entity's type.
fn split(tag: &str) -> (&str, &str) {
    let first = tag.chars().next().map_or(0, char::len_utf8);
    let (place, rest) = tag.split_at(first);
    let kind = rest.split_once('-').map_or(rest, |(_, kind)| kind);
    (place, if kind.is_empty() { "_" } else { kind })
}

/// Whether an entity ends between two tags.
fn ends((before, kind): (&str, &str), (tag, next): (&str, &str)) -> bool {
    match (before, tag) {
        ("E" | "S", _) | ("B" | "I", "B" | "S" | "O") => true,
        ("O" | "." | "", _) => false,
        _ => kind != next,
    }
}

/// Whether one starts there.
fn starts((before, kind): (&str, &str), (tag, next): (&str, &str)) -> bool {
    match (before, tag) {
        (_, "B" | "S") | ("E" | "S" | "O", "E" | "I") => true,
        (_, "O" | "." | "") => false,
        _ => kind != next,
    }
}

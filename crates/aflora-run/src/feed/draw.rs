//! Rows drawn out of the training rows, to evaluate on: a share of each class, by seed.
//!
//! A row's number in the draw is the first eight bytes of the SHA-256 of the seed and its texts, so
//! that it depends on neither the order of the rows nor on the other rows, and equal texts are on
//! one side. Within a class those of the lowest numbers are held out: as many as make up the share,
//! the remainders going to the classes that lack most, and one row at least stays to be trained on.

use super::row::{CellValue, Row};
use super::source::Source;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The columns that hold what is right, by what they are for; all others hold texts.
pub(super) const RIGHT: [&str; 3] = ["label", "tags", "target"];

/// A row's part in the draw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lot {
    class: String,
    number: u64,
}

impl Lot {
    /// The lot of a row of `source`.
    ///
    /// # Errors
    /// It lacks the column within whose values rows are drawn.
    pub fn of(source: &Source, row: &Row) -> Result<Lot, String> {
        let class = source.hold_out.within.as_ref();
        let class = class.map(|column| row.label(column)).transpose()?.unwrap_or_default();
        let mut digest = Sha256::new_with_prefix(source.hold_out.seed.to_le_bytes());
        for (role, column) in &source.columns {
            let Some(cell) = row.cell(column).filter(|_| !RIGHT.contains(&role.as_str())) else {
                continue;
            };
            let text = match cell {
                CellValue::Text(text) => text.clone(),
                CellValue::Json(json) => {
                    serde_json::from_str(json.get()).unwrap_or_else(|_| json.get().into())
                }
            };
            digest.update((text.len() as u64).to_le_bytes());
            digest.update(text);
        }
        let digest = digest.finalize();
        let number = digest.iter().take(8).fold(0, |n, &byte| n << 8 | u64::from(byte));
        Ok(Lot { class, number })
    }
}

/// Which rows are held out, of those with these lots.
pub(super) fn held_out(lots: &[Lot], percent: u64) -> Vec<bool> {
    let mut classes: BTreeMap<&str, Vec<(u64, usize)>> = BTreeMap::new();
    for (row, lot) in lots.iter().enumerate() {
        classes.entry(&lot.class).or_default().push((lot.number, row));
    }
    let mut classes: Vec<Vec<(u64, usize)>> = classes.into_values().collect();
    let share = |rows: usize| rows as u64 * percent;
    let mut counts: Vec<usize> = classes.iter().map(|c| (share(c.len()) / 100) as usize).collect();
    // What the whole share lacks goes to the classes with the largest remainders.
    let wanted = ((share(lots.len()) + 50) / 100) as usize;
    let mut lacking = wanted.saturating_sub(counts.iter().sum());
    let mut order: Vec<usize> = (0..classes.len()).collect();
    order.sort_by_key(|&class| std::cmp::Reverse(share(classes[class].len()) % 100));
    for class in order {
        if lacking > 0 && counts[class] + 1 < classes[class].len() {
            counts[class] += 1;
            lacking -= 1;
        }
    }
    let mut out = vec![false; lots.len()];
    for (class, count) in classes.iter_mut().zip(counts) {
        class.sort_unstable();
        let count = whole_groups(class, count);
        class[..count].iter().for_each(|&(_, row)| out[row] = true);
    }
    out
}

/// A number of rows near `count` that parts none of one number from the others of that number:
/// more where that leaves some, else fewer.
fn whole_groups(class: &[(u64, usize)], count: usize) -> usize {
    let parts = |at: usize| at > 0 && at < class.len() && class[at - 1].0 == class[at].0;
    let up = (count..class.len()).find(|&at| !parts(at));
    up.unwrap_or_else(|| (0..count).rev().find(|&at| !parts(at)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lots(classes: &[(&str, usize)]) -> Vec<Lot> {
        let lot = |class: &str, n: usize| {
            let digest = Sha256::digest(format!("{class}{n}"));
            Lot { class: class.into(), number: u64::from(digest[0]) << 8 | u64::from(digest[1]) }
        };
        classes.iter().flat_map(|&(class, n)| (0..n).map(move |i| lot(class, i))).collect()
    }

    fn counts(classes: &[(&str, usize)], percent: u64) -> Vec<usize> {
        let lots = lots(classes);
        let out = held_out(&lots, percent);
        let of = |class: &str| {
            lots.iter().zip(&out).filter(|(lot, out)| lot.class == class && **out).count()
        };
        classes.iter().map(|(class, _)| of(class)).collect()
    }

    #[test]
    fn the_share_is_held_out_of_each_class() {
        assert_eq!(counts(&[("a", 60), ("b", 40)], 10), [6, 4]);
        assert_eq!(counts(&[("a", 45), ("b", 30), ("c", 25)], 10), [5, 3, 2]);
        assert_eq!(counts(&[("", 7)], 50), [4]);
    }

    #[test]
    fn a_class_keeps_a_row_to_train_on() {
        assert_eq!(counts(&[("a", 1), ("b", 1), ("c", 98)], 50), [0, 0, 50]);
        assert_eq!(counts(&[("a", 1)], 99), [0]);
    }

    #[test]
    fn rows_of_one_text_are_on_one_side() {
        let lot = |number| Lot { class: String::new(), number };
        let lots = [lot(3), lot(1), lot(1), lot(1), lot(2)];
        assert_eq!(held_out(&lots, 20), [false, true, true, true, false]);
        assert_eq!(held_out(&[lot(1), lot(1), lot(1)], 40), [false; 3]);
    }
}

//! Rows drawn out of the training rows, to evaluate on and to judge the end by: a share of each class,
//! by seed.
//!
//! A row's number in the draw is the first eight bytes of the SHA-256 of the seed and its texts, so
//! that it depends on neither the order of the rows nor on the other rows, and equal texts of a class
//! are on one side. Within a class those of the lowest numbers are held out: as many as make up the
//! share, the remainders going to the classes that lack most, and one row at least stays to be trained
//! on. Rows of one text that are more than what is left of the share are passed over; where none fits,
//! the fewest that share a text are held out, so that there are some.
//!
//! What is judged at the end is drawn first, and what is evaluated on out of the rest; either share
//! is one of all rows.

use super::row::{CellValue, Row};
use super::source::{HoldOut, Source};
use sha2::{Digest, Sha256};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

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

/// Where a drawn row goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// To those that are trained on.
    Train,
    /// To those that are evaluated on.
    Evaluated,
    /// To those that are judged at the end.
    Tested,
}

/// Where the rows with these lots go.
pub(super) fn sides(lots: &[Lot], hold_out: &HoldOut) -> Vec<Side> {
    let mut sides = vec![Side::Train; lots.len()];
    let tested = hold_out.test_percent;
    let draws = [(Side::Tested, tested, 100), (Side::Evaluated, hold_out.percent, 100 - tested)];
    for (side, share, of) in draws.into_iter().filter(|(_, share, _)| *share > 0) {
        let left: Vec<usize> = (0..lots.len()).filter(|&row| sides[row] == Side::Train).collect();
        let own: Vec<&Lot> = left.iter().map(|&row| &lots[row]).collect();
        for (row, out) in left.into_iter().zip(held_out(&own, share, of)) {
            if out {
                sides[row] = side;
            }
        }
    }
    sides
}

/// How many rows have the text of another, and how many texts there are.
pub(super) fn shared(lots: &[Lot]) -> (usize, usize) {
    let mut rows: HashMap<u64, usize> = HashMap::new();
    for lot in lots {
        *rows.entry(lot.number).or_default() += 1;
    }
    (rows.values().filter(|rows| **rows > 1).sum(), rows.len())
}

/// Which rows are held out, of those with these lots: so many `of` so many.
fn held_out(lots: &[&Lot], share: u64, of: u64) -> Vec<bool> {
    let mut classes: BTreeMap<&str, Vec<(u64, usize)>> = BTreeMap::new();
    for (row, lot) in lots.iter().enumerate() {
        classes.entry(&lot.class).or_default().push((lot.number, row));
    }
    let mut classes: Vec<Vec<(u64, usize)>> = classes.into_values().collect();
    let part = |rows: usize| rows as u64 * share;
    let mut counts: Vec<usize> = classes.iter().map(|c| (part(c.len()) / of) as usize).collect();
    // What the whole share lacks goes to the classes with the largest remainders.
    let wanted = ((part(lots.len()) + of / 2) / of) as usize;
    let mut lacking = wanted.saturating_sub(counts.iter().sum());
    let mut order: Vec<usize> = (0..classes.len()).collect();
    order.sort_by_key(|&class| Reverse(part(classes[class].len()) % of));
    for class in order {
        if lacking > 0 && counts[class] + 1 < classes[class].len() {
            counts[class] += 1;
            lacking -= 1;
        }
    }
    let mut out = vec![false; lots.len()];
    let mut take = |group: &[(u64, usize)]| group.iter().for_each(|&(_, row)| out[row] = true);
    let mut none = true;
    for (class, mut left) in classes.iter_mut().zip(counts) {
        class.sort_unstable();
        for group in of_one_text(class) {
            if group.len() <= left {
                left -= group.len();
                none = false;
                take(group);
            }
        }
    }
    if none {
        let several = classes.iter().filter(|class| of_one_text(class).nth(1).is_some());
        let fewest = several.flat_map(|class| of_one_text(class)).min_by_key(|group| group.len());
        fewest.into_iter().for_each(take);
    }
    out
}

/// The rows of a class, by their texts.
fn of_one_text(class: &[(u64, usize)]) -> impl Iterator<Item = &[(u64, usize)]> {
    class.chunk_by(|a, b| a.0 == b.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lots(classes: &[(&str, usize)]) -> Vec<Lot> {
        let lot = |class: &str, n: usize| {
            let digest = Sha256::digest(format!("{class}{n}"));
            Lot {
                class: class.into(),
                number: digest[..4].iter().fold(0, |n, &b| n << 8 | u64::from(b)),
            }
        };
        classes.iter().flat_map(|&(class, n)| (0..n).map(move |i| lot(class, i))).collect()
    }

    fn counts(classes: &[(&str, usize)], percent: u64) -> Vec<usize> {
        let lots = lots(classes);
        let out = held_out(&lots.iter().collect::<Vec<_>>(), percent, 100);
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
        let out = |numbers: &[u64], percent| {
            let lot = |&number| Lot { class: String::new(), number };
            let lots: Vec<Lot> = numbers.iter().map(lot).collect();
            held_out(&lots.iter().collect::<Vec<_>>(), percent, 100)
        };
        assert_eq!(out(&[3, 1, 1, 1, 2], 60), [false, true, true, true, false]);
        // More than what is left of the share are passed over.
        assert_eq!(out(&[3, 1, 1, 1, 2], 40), [true, false, false, false, true]);
        // Where none fits, the fewest are held out; of one text, none can be.
        assert_eq!(out(&[2, 1, 1, 1, 2], 20), [true, false, false, false, true]);
        assert_eq!(out(&[1, 1, 1], 40), [false; 3]);
    }

    #[test]
    fn what_is_judged_at_the_end_is_drawn_first_and_both_shares_are_of_all_rows() {
        let lots = lots(&[("a", 60), ("b", 40)]);
        let count = |sides: &[Side], side| sides.iter().filter(|own| **own == side).count();
        let of = |percent, test_percent| {
            sides(&lots, &HoldOut { percent, test_percent, ..HoldOut::default() })
        };
        let both = of(20, 10);
        let counts = [Side::Tested, Side::Evaluated, Side::Train].map(|side| count(&both, side));
        assert_eq!(counts, [10, 20, 70]);
        // The rows that are judged at the end do not go by the other share.
        let alone = of(0, 10);
        let tested = |sides: &[Side]| -> Vec<bool> {
            sides.iter().map(|side| *side == Side::Tested).collect()
        };
        assert_eq!(tested(&alone), tested(&both));
        assert_eq!(count(&alone, Side::Evaluated), 0);
    }
}

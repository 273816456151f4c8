//! Short rows put together, so that little of a batch is padding.
//!
//! Each pack is one row of a batch, in which every token sees the tokens of its own row alone and
//! counts positions from that row's beginning: the losses are those of the rows by themselves.

use std::collections::BTreeMap;

/// Rows of these lengths in packs of at most `most` tokens, each in the fullest pack that has room
/// for it, the longest first; a row that is longer than that is alone. Packs are in the order of
/// their first rows.
pub(super) fn packs(lengths: &[usize], most: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&row| std::cmp::Reverse(lengths[row]));
    let mut packs: Vec<Vec<usize>> = Vec::new();
    // The packs that have so much room.
    let mut rooms: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for row in order {
        let length = lengths[row];
        let found = rooms.range(length..).next().map(|(&room, _)| room);
        let (pack, room) = match found {
            Some(room) => {
                let same = rooms.entry(room).or_default();
                let pack = same.pop().unwrap_or(packs.len());
                if same.is_empty() {
                    rooms.remove(&room);
                }
                (pack, room - length)
            }
            None => (packs.len(), most.saturating_sub(length)),
        };
        if pack == packs.len() {
            packs.push(Vec::new());
        }
        packs[pack].push(row);
        rooms.entry(room).or_default().push(pack);
    }
    packs.iter_mut().for_each(|pack| pack.sort_unstable());
    packs.sort();
    packs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_row_is_in_one_pack_and_none_is_too_long(
            lengths in prop::collection::vec(1usize..60, 0..200), most in 8usize..64,
        ) {
            let packs = packs(&lengths, most);
            let mut rows = packs.concat();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
            for pack in &packs {
                let length: usize = pack.iter().map(|&row| lengths[row]).sum();
                prop_assert!(!pack.is_empty() && (length <= most || pack.len() == 1));
            }
            // Two packs of which each is at most half full would have been one.
            let half = |pack: &&Vec<usize>| {
                2 * pack.iter().map(|&row| lengths[row]).sum::<usize>() <= most
            };
            prop_assert!(packs.iter().filter(half).count() <= 1);
        }
    }

    #[test]
    fn rows_fill_the_fullest_pack_that_has_room() {
        assert_eq!(packs(&[5, 3, 4, 2, 9], 8), [vec![0, 1], vec![2, 3], vec![4]]);
    }
}

//! In which order pieces are used: what comes next is what came next the last time.
//!
//! Forward they come one behind the other, backward the other way, and where blocks are checkpointed each is
//! used forward and then backward. Steps are alike, so the three pieces that were used last say where in
//! a step one is.

use std::collections::HashMap;

/// Pieces used last, the latest at the end.
type Recent = [Option<usize>; 3];

/// The order of use as it was seen.
#[derive(Debug, Default)]
pub(super) struct Order {
    recent: Recent,
    next: HashMap<Recent, usize>,
}

impl Order {
    /// A piece is used, another one than before.
    pub fn turn(&mut self, piece: usize) {
        self.next.insert(self.recent, piece);
        self.recent = shifted(self.recent, piece);
    }

    /// The two that come next, as far as that can be said.
    pub fn ahead(&self) -> impl Iterator<Item = usize> {
        let first = self.behind(self.recent);
        let second = first.and_then(|piece| self.behind(shifted(self.recent, piece)));
        first.into_iter().chain(second)
    }

    /// What comes behind some pieces: what did, or else the next in their direction.
    fn behind(&self, recent: Recent) -> Option<usize> {
        let [_, before, piece] = recent;
        let piece = piece?;
        let known = self.next.get(&recent).copied();
        known.or_else(|| match before.is_some_and(|before| before > piece) {
            true => piece.checked_sub(1),
            false => Some(piece + 1),
        })
    }
}

fn shifted([_, before, last]: Recent, piece: usize) -> Recent {
    [before, last, Some(piece)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of the turns of a step were foretold, once steps like it were seen.
    fn foretold(step: &[usize]) -> usize {
        let mut order = Order::default();
        for _ in 0..2 {
            step.iter().for_each(|piece| order.turn(*piece));
        }
        let mut right = 0;
        for &piece in step {
            right += usize::from(order.ahead().next() == Some(piece));
            order.turn(piece);
        }
        right
    }

    #[test]
    fn a_step_comes_as_the_one_before_it() {
        // Three blocks of attention and feed-forward layers, forward and back.
        let plain = [0, 1, 2, 3, 4, 5, 4, 3, 2, 1];
        assert_eq!(foretold(&plain), plain.len());
        // Checkpointed: each block is used forward once more before its gradient. What follows on the last
        // block's attention, behind its feed-forward layers, is one thing and then another.
        let checkpointed = [0, 1, 2, 3, 4, 5, 4, 5, 4, 2, 3, 2, 0, 1];
        assert!(foretold(&checkpointed) >= checkpointed.len() - 2);
    }

    #[test]
    fn what_was_not_seen_goes_on_in_its_direction() {
        let mut order = Order::default();
        assert_eq!(order.ahead().count(), 0);
        order.turn(2);
        assert_eq!(order.ahead().collect::<Vec<_>>(), [3, 4]);
        order.turn(1);
        assert_eq!(order.ahead().collect::<Vec<_>>(), [0]);
    }
}

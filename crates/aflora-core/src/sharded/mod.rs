//! A frozen base that no rank holds whole.
//!
//! The weights of a model's blocks are [spread](fn@crate::nn::spread) over the ranks that train together, in equal parts
//! to the byte. What is gathered at once is a *piece*: the layers of a block's attention, or its feed-forward layers.
//! Before a piece is used, in the forward pass or the backward pass, it is gathered in one of three rooms, while
//! those before it compute in the others. So a rank holds its part of the model, the attention of two blocks and one
//! block's feed-forward layers. Frozen weights have no gradient: nothing goes back.
//!
//! The one place where it comes in is [`Linear`](crate::nn::Linear), through which every frozen weight
//! is used: it asks for its piece before it computes, and puts a node behind its output that asks again
//! before its gradient is computed. What libtorch's graph keeps of a weight is its place in a room. Adapters
//! and models know nothing of it.
//!
//! Gathering is done by all ranks together, so all must use the same pieces in the same order: as they do
//! in training, where each makes as many passes as the others. Where each has work of its own
//! ([`go_apart`](ShardedBase::go_apart)), as in evaluation, they agree before each piece on whose turn it
//! is; nothing comes ahead then.

mod order;
mod packed;
mod rooms;

pub use aflora_cuda::World;

use crate::adapter::Block as Part;
use crate::weight::FrozenWeight;
use crate::{Error, Result};
use aflora_cuda::ops::{self, BeforeGradient};
use packed::Packed;
use rooms::Rooms;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tch::Tensor;

/// The frozen weights of a model's blocks, spread over the ranks of a world.
pub struct ShardedBase {
    world: World,
    /// The room of each piece.
    room: Vec<usize>,
    state: Mutex<State>,
}

enum State {
    /// The weights are being loaded. Of a piece that lacks some those that are there are whole.
    Filling(Vec<Piece>),
    Ready(Rooms),
}

enum Piece {
    Whole(Vec<Option<FrozenWeight>>),
    Spread(Packed),
}

/// What memory a rank needs for a spread base, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardedBytes {
    /// Its part of all pieces.
    pub own: i64,
    /// The rooms.
    pub rooms: i64,
    /// What all ranks hold together of the pieces.
    pub whole: i64,
}

impl ShardedBase {
    /// A base of pieces of so many weights each, in the order of the forward pass, none of which is there
    /// yet: see [`spread`](fn@crate::nn::spread).
    pub(crate) fn new(world: World, pieces: &[(Part, usize)]) -> ShardedBase {
        let empty = |(_, count): &(Part, usize)| Piece::Whole((0..*count).map(|_| None).collect());
        let state = State::Filling(pieces.iter().map(empty).collect());
        let parts: Vec<Part> = pieces.iter().map(|(part, _)| *part).collect();
        ShardedBase { world, room: rooms::of(&parts), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works with the rooms, which are there once all weights are.
    fn in_rooms<T>(&self, work: impl FnOnce(&mut Rooms) -> Result<T>) -> Result<T> {
        match &mut *self.state() {
            State::Filling(_) => Err(Error::NotLoaded),
            State::Ready(rooms) => work(rooms),
        }
    }

    /// Keeps this rank's part of a weight, once those of its whole piece are there.
    fn put(&self, (piece, index): (usize, usize), weight: FrozenWeight) -> Result<()> {
        let (rank, ranks) = (self.world.rank() as i64, self.world.size() as i64);
        let mut state = self.state();
        let State::Filling(pieces) = &mut *state else { return Err(Error::LoadedTwice) };
        let Piece::Whole(weights) = &mut pieces[piece] else { return Err(Error::LoadedTwice) };
        weights[index] = Some(weight);
        if weights.iter().any(Option::is_none) {
            return Ok(());
        }
        let weights: Vec<FrozenWeight> = weights.drain(..).flatten().collect();
        pieces[piece] = Piece::Spread(tch::no_grad(|| Packed::new(&weights, rank, ranks))?);
        drop(weights);
        if pieces.iter().all(|piece| matches!(piece, Piece::Spread(_))) {
            let spread = pieces.drain(..).filter_map(|piece| match piece {
                Piece::Spread(packed) => Some(packed),
                Piece::Whole(_) => None,
            });
            let (world, room) = (self.world.clone(), self.room.clone());
            let rooms = tch::no_grad(|| Rooms::new(world, spread.collect(), room))?;
            *state = State::Ready(rooms);
        }
        Ok(())
    }

    /// What memory this rank needs for it.
    ///
    /// # Errors
    /// Not all weights are there yet.
    pub fn bytes(&self) -> Result<ShardedBytes> {
        self.in_rooms(|found| {
            let (own, rooms) = found.bytes();
            Ok(ShardedBytes { own, rooms, whole: own * self.world.size() as i64 })
        })
    }

    /// Lets each rank use the model as often as it will, without gradients, until it
    /// [comes back](Self::come_together).
    ///
    /// # Errors
    /// Not all weights are there yet.
    pub fn go_apart(&self) -> Result<()> {
        self.in_rooms(|rooms| {
            rooms.go_apart();
            Ok(())
        })
    }

    /// Gives the others what they use, until all are here.
    ///
    /// # Errors
    /// A rank is lost.
    pub fn come_together(&self) -> Result<()> {
        self.in_rooms(Rooms::come_together)
    }
}

impl fmt::Debug for ShardedBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardedBase").field("ranks", &self.world.size()).finish_non_exhaustive()
    }
}

/// A layer's share in a [`ShardedBase`].
#[derive(Debug, Clone)]
pub(crate) struct Share {
    pub base: Arc<ShardedBase>,
    /// Its piece, and its place there.
    pub place: (usize, usize),
}

impl Share {
    /// Gives the layer its weight, which all ranks have.
    pub fn put(&self, weight: FrozenWeight) -> Result<()> {
        self.base.put(self.place, weight)
    }

    /// The weight as it was put there, until another piece is used; all ranks ask for it together.
    pub fn weight(&self) -> Result<FrozenWeight> {
        self.base.in_rooms(|rooms| {
            rooms.turn_to(self.place.0)?;
            Ok(rooms.weight(self.place))
        })
    }

    /// `y`, which was just computed with the weight: it is there again when the gradient is computed.
    pub fn keeps(&self, y: Tensor) -> Result<Tensor> {
        if !y.requires_grad() {
            return Ok(y);
        }
        let (base, piece) = (self.base.clone(), self.place.0);
        let call: BeforeGradient = Arc::new(move || {
            let turned = base.in_rooms(|rooms| rooms.turn_to(piece));
            turned.map_err(|error| error.to_string())
        });
        Ok(ops::before_backward(&y, call)?)
    }
}

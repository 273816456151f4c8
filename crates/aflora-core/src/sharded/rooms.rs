//! The rooms in which pieces are whole, and when they come there.

use super::order::Order;
use super::packed::Packed;
use crate::adapter::Block as Part;
use crate::weight::FrozenWeight;
use crate::Result;
use aflora_cuda::{Gathering, World};
use tch::{Device, Kind, Tensor};

/// The room of each of the pieces that hold these parts of blocks. Those of the part that comes first, attention,
/// take turns in two rooms, so that the next block's can come while this block's computes; all others
/// share a third.
pub(super) fn of(parts: &[Part]) -> Vec<usize> {
    let mut turn = 0;
    let room = |part: &Part| {
        if *part != parts[0] {
            return 2;
        }
        turn = 1 - turn;
        1 - turn
    };
    parts.iter().map(room).collect()
}

/// What a room holds.
#[derive(Debug)]
enum Held {
    Nothing,
    Here(usize),
    Coming(usize, Gathering),
}

/// All pieces, spread, and the rooms.
///
/// A piece has one room for life, so that what a graph keeps of a weight for its gradient is a place, in
/// which the piece is put again before the gradient is computed.
#[derive(Debug)]
pub(super) struct Rooms {
    world: World,
    pieces: Vec<Packed>,
    /// The room of each.
    room: Vec<usize>,
    /// The weights of each in its room.
    weights: Vec<Vec<FrozenWeight>>,
    rooms: Vec<Tensor>,
    held: Vec<Held>,
    /// The piece that is being used.
    used: Option<usize>,
    order: Order,
    /// Whether each rank uses pieces at its own pace.
    apart: bool,
}

impl Rooms {
    pub fn new(world: World, pieces: Vec<Packed>, room: Vec<usize>) -> Result<Rooms> {
        let device = pieces.first().map_or(Device::Cpu, |piece| piece.own.device());
        let mut largest = vec![0; room.iter().max().map_or(0, |last| last + 1)];
        for (piece, &room) in pieces.iter().zip(&room) {
            largest[room] = piece.bytes().max(largest[room]);
        }
        let all = |bytes: &i64| {
            Ok(Tensor::f_zeros([bytes * world.size() as i64], (Kind::Uint8, device))?)
        };
        let rooms: Vec<Tensor> = largest.iter().map(all).collect::<Result<_>>()?;
        let weights = pieces.iter().zip(&room).map(|(piece, &room)| piece.within(&rooms[room]));
        Ok(Rooms {
            weights: weights.collect::<Result<_>>()?,
            held: rooms.iter().map(|_| Held::Nothing).collect(),
            world,
            pieces,
            room,
            rooms,
            used: None,
            order: Order::default(),
            apart: false,
        })
    }

    /// A weight, in its room.
    pub fn weight(&self, (piece, index): (usize, usize)) -> FrozenWeight {
        self.weights[piece][index].shallow_clone()
    }

    /// Bytes that this rank keeps, and those of the rooms.
    pub fn bytes(&self) -> (i64, i64) {
        let rooms = self.rooms.iter().map(|room| room.numel() as i64).sum();
        (self.pieces.iter().map(Packed::bytes).sum(), rooms)
    }

    /// Brings a piece to where it is used; the one before is not used any more. Those that come next are on
    /// their way then, as far as they have rooms of their own.
    pub fn turn_to(&mut self, piece: usize) -> Result<()> {
        if self.used == Some(piece) {
            return Ok(());
        }
        self.used = None;
        if self.apart {
            while !matches!(self.held[self.room[piece]], Held::Here(held) if held == piece) {
                if let Some(wanted) = self.agree(Some(piece))? {
                    self.fetch(wanted)?;
                    self.arrive(wanted)?;
                }
            }
        } else {
            self.fetch(piece)?;
            self.arrive(piece)?;
            self.order.turn(piece);
            let mut taken = vec![self.room[piece]];
            for next in self.order.ahead() {
                if let Some(room) = self.room.get(next).filter(|room| !taken.contains(room)) {
                    taken.push(*room);
                    self.fetch(next)?;
                }
            }
        }
        self.used = Some(piece);
        Ok(())
    }

    /// Lets each rank use pieces as it will, as many times as it will, until it
    /// [comes back](Self::come_together).
    pub fn go_apart(&mut self) {
        (self.apart, self.used) = (true, None);
    }

    /// Gives the others what they use, until all are here.
    pub fn come_together(&mut self) -> Result<()> {
        self.used = None;
        while let Some(wanted) = self.agree(None)? {
            self.fetch(wanted)?;
            self.arrive(wanted)?;
        }
        self.apart = false;
        Ok(())
    }

    /// The piece that the first of the ranks wants that want one.
    fn agree(&self, wanted: Option<usize>) -> Result<Option<usize>> {
        let own = Tensor::from_slice(&[wanted.map_or(-1, |piece| piece as i64)]);
        let all = own.f_repeat([self.world.size() as i64])?;
        self.world.begin_gather(&own, &all)?.wait()?;
        let all = Vec::<i64>::try_from(&all)?;
        Ok(all.into_iter().find_map(|piece| usize::try_from(piece).ok()))
    }

    /// Lets a piece come, if it is not there or on its way.
    fn fetch(&mut self, piece: usize) -> Result<()> {
        let room = self.room[piece];
        let held = &mut self.held[room];
        if matches!(held, Held::Here(held) | Held::Coming(held, _) if *held == piece) {
            return Ok(());
        }
        // What comes must have come before the next can.
        if let Held::Coming(_, gathering) = std::mem::replace(held, Held::Nothing) {
            gathering.wait()?;
        }
        let own = &self.pieces[piece].own;
        let all = self.rooms[room].f_narrow(0, 0, own.numel() as i64 * self.world.size() as i64)?;
        self.held[room] = Held::Coming(piece, self.world.begin_gather(own, &all)?);
        Ok(())
    }

    /// Waits for a piece that was fetched.
    fn arrive(&mut self, piece: usize) -> Result<()> {
        let held = &mut self.held[self.room[piece]];
        if let Held::Coming(_, gathering) = std::mem::replace(held, Held::Nothing) {
            gathering.wait()?;
        }
        *held = Held::Here(piece);
        Ok(())
    }
}

//! The two rooms in which blocks are whole, and the order in which they come there.

use super::packed::Packed;
use crate::weight::FrozenWeight;
use crate::Result;
use aflora_cuda::{Gathering, World};
use tch::{Device, Kind, Tensor};

/// How many blocks are whole at once: one that is used, and the next.
const ROOMS: usize = 2;

/// What a room holds.
#[derive(Debug)]
enum Held {
    Nothing,
    Here(usize),
    Coming(usize, Gathering),
}

/// All blocks, spread, and the rooms.
///
/// A block has one room for life, so that what a graph keeps of a weight for its gradient is a place, in
/// which the block is put again before the gradient is computed.
#[derive(Debug)]
pub(super) struct Rooms {
    world: World,
    blocks: Vec<Packed>,
    /// The weights of each block in its room.
    weights: Vec<Vec<FrozenWeight>>,
    rooms: Vec<Tensor>,
    held: [Held; ROOMS],
    /// The block that is being used.
    used: Option<usize>,
    /// Whether blocks are used from the first to the last: as it was at last.
    forward: bool,
    /// Whether each rank uses blocks at its own pace.
    apart: bool,
}

impl Rooms {
    pub fn new(world: World, blocks: Vec<Packed>) -> Result<Rooms> {
        let device = blocks.first().map_or(Device::Cpu, |block| block.own.device());
        let largest = blocks.iter().map(Packed::bytes).max().unwrap_or(0) * world.size() as i64;
        let room = |_| Ok(Tensor::f_zeros([largest], (Kind::Uint8, device))?);
        let rooms: Vec<Tensor> = (0..blocks.len().min(ROOMS)).map(room).collect::<Result<_>>()?;
        let weights = blocks.iter().enumerate().map(|(i, block)| block.within(&rooms[i % ROOMS]));
        Ok(Rooms {
            weights: weights.collect::<Result<_>>()?,
            world,
            blocks,
            rooms,
            held: [Held::Nothing, Held::Nothing],
            used: None,
            forward: true,
            apart: false,
        })
    }

    /// A weight, in its room.
    pub fn weight(&self, (block, index): (usize, usize)) -> FrozenWeight {
        self.weights[block][index].shallow_clone()
    }

    /// Bytes that this rank keeps, and those of the rooms.
    pub fn bytes(&self) -> (i64, i64) {
        let rooms = self.rooms.iter().map(|room| room.numel() as i64).sum();
        (self.blocks.iter().map(Packed::bytes).sum(), rooms)
    }

    /// Brings a block to where it is used; the one before is not used any more. The next, by the
    /// direction in which they have been used so far, is on its way then.
    pub fn turn_to(&mut self, block: usize) -> Result<()> {
        if self.used == Some(block) {
            return Ok(());
        }
        let before = self.used.take();
        if self.apart {
            while !matches!(self.held[block % ROOMS], Held::Here(held) if held == block) {
                if let Some(wanted) = self.agree(Some(block))? {
                    self.fetch(wanted)?;
                    self.arrive(wanted)?;
                }
            }
        } else {
            self.fetch(block)?;
            self.arrive(block)?;
            if let Some(before) = before {
                self.forward = block > before;
            }
            let next = if self.forward { Some(block + 1) } else { block.checked_sub(1) };
            if let Some(next) = next.filter(|next| *next < self.blocks.len()) {
                self.fetch(next)?;
            }
        }
        self.used = Some(block);
        Ok(())
    }

    /// Lets each rank use blocks as it will, as many times as it will, until it
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
        (self.apart, self.forward) = (false, true);
        Ok(())
    }

    /// The block that the first of the ranks wants that want one.
    fn agree(&self, wanted: Option<usize>) -> Result<Option<usize>> {
        let own = Tensor::from_slice(&[wanted.map_or(-1, |block| block as i64)]);
        let all = own.f_repeat([self.world.size() as i64])?;
        self.world.begin_gather(&own, &all)?.wait()?;
        let all = Vec::<i64>::try_from(&all)?;
        Ok(all.into_iter().find_map(|block| usize::try_from(block).ok()))
    }

    /// Lets a block come, if it is not there or on its way.
    fn fetch(&mut self, block: usize) -> Result<()> {
        let room = block % ROOMS;
        let held = &mut self.held[room];
        if matches!(held, Held::Here(held) | Held::Coming(held, _) if *held == block) {
            return Ok(());
        }
        // What comes must have come before the next can.
        if let Held::Coming(_, gathering) = std::mem::replace(held, Held::Nothing) {
            gathering.wait()?;
        }
        let own = &self.blocks[block].own;
        let all = self.rooms[room].f_narrow(0, 0, own.numel() as i64 * self.world.size() as i64)?;
        self.held[room] = Held::Coming(block, self.world.begin_gather(own, &all)?);
        Ok(())
    }

    /// Waits for a block that was fetched.
    fn arrive(&mut self, block: usize) -> Result<()> {
        let held = std::mem::replace(&mut self.held[block % ROOMS], Held::Nothing);
        if let Held::Coming(_, gathering) = held {
            gathering.wait()?;
        }
        self.held[block % ROOMS] = Held::Here(block);
        Ok(())
    }
}

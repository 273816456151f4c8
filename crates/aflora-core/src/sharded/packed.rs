//! The weights of a piece as one stretch of bytes, of which each rank keeps its part.

use crate::weight::FrozenWeight;
use crate::Result;
use std::cell::RefCell;
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// Bytes that tensors begin at multiples of, as those do that libtorch makes: a product of them takes the same
/// way, and comes to the same bits.
const ALIGNMENT: i64 = 64;

/// Where a tensor lies in the stretch.
#[derive(Debug)]
struct Place {
    start: i64,
    size: Vec<i64>,
    kind: Kind,
}

impl Place {
    fn bytes(&self) -> i64 {
        self.size.iter().product::<i64>() * self.kind.elt_size_in_bytes() as i64
    }
}

/// A piece's weights, spread.
#[derive(Debug)]
pub(super) struct Packed {
    /// This rank's bytes, `[n]`, u8: of as many on every rank.
    pub own: Tensor,
    /// The weights without their numbers.
    bare: Vec<FrozenWeight>,
    /// Those of their tensors, in order.
    places: Vec<Place>,
}

impl Packed {
    /// Keeps the part of rank `rank` of `ranks`.
    pub fn new(weights: &[FrozenWeight], rank: i64, ranks: i64) -> Result<Packed> {
        let (places, tensors) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
        let end = RefCell::new(0);
        let take = |t: &Tensor| {
            let place = Place { start: *end.borrow(), size: t.size(), kind: t.kind() };
            *end.borrow_mut() += padded(place.bytes());
            places.borrow_mut().push(place);
            tensors.borrow_mut().push(t.shallow_clone());
            Tensor::empty([0], (t.kind(), Device::Cpu))
        };
        let bare = weights.iter().map(|weight| weight.map_tensors(&take)).collect();
        let (places, tensors, end) = (places.into_inner(), tensors.into_inner(), end.into_inner());
        let device = weights.first().map_or(Device::Cpu, FrozenWeight::device);
        let n = padded((end as u64).div_ceil(ranks as u64) as i64).max(ALIGNMENT);
        let own = Tensor::f_zeros([n], (Kind::Uint8, device))?;
        let kept = rank * n..(rank + 1) * n;
        for (place, tensor) in places.iter().zip(tensors) {
            let its = place.start..place.start + place.bytes();
            let both = its.start.max(kept.start)..its.end.min(kept.end);
            if both.start >= both.end {
                continue;
            }
            let bytes = tensor.detach().f_contiguous()?.f_view([-1])?.f_view_dtype(Kind::Uint8)?;
            part(&own, &both, kept.start)?.f_copy_(&part(&bytes, &both, its.start)?)?;
        }
        Ok(Packed { own, bare, places })
    }

    /// Bytes on every rank.
    pub fn bytes(&self) -> i64 {
        self.own.numel() as i64
    }

    /// The weights as they lie in `room`, `[any number]` of u8, where that holds the whole stretch.
    pub fn within(&self, room: &Tensor) -> Result<Vec<FrozenWeight>> {
        let view = |place: &Place| {
            let bytes = part(room, &(place.start..place.start + place.bytes()), 0)?;
            Ok(bytes.f_view_dtype(place.kind)?.f_view(place.size.as_slice())?)
        };
        let views: Result<Vec<Tensor>> = self.places.iter().map(view).collect();
        let views = RefCell::new(views?.into_iter());
        let fill = |empty: &Tensor| views.borrow_mut().next().unwrap_or(empty.shallow_clone());
        Ok(self.bare.iter().map(|weight| weight.map_tensors(&fill)).collect())
    }
}

/// The stretch `of` of `bytes`, which begin at `start`.
fn part(bytes: &Tensor, of: &Range<i64>, start: i64) -> Result<Tensor> {
    Ok(bytes.f_narrow(0, of.start - start, of.end - of.start)?)
}

fn padded(bytes: i64) -> i64 {
    (bytes as u64).next_multiple_of(ALIGNMENT as u64) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weight::{QuantisedWeight, WeightFormat};

    /// Of sizes that nothing divides, on one rank to five.
    #[test]
    fn the_parts_of_all_ranks_are_the_weights_to_the_bit() {
        let random = |shape: &[i64]| crate::adapter::normal(shape, 1.0, 1, &format!("{shape:?}"));
        let few = |format| QuantisedWeight::quantise(&random(&[5, 33]), format).unwrap();
        let weights = [
            FrozenWeight::Dense(random(&[3, 7])),
            FrozenWeight::Dense(random(&[11, 5]).to_kind(Kind::BFloat16)),
            FrozenWeight::Quantised(few(WeightFormat::Nf4Nested)),
            FrozenWeight::Quantised(few(WeightFormat::Int8)),
            FrozenWeight::Dense(random(&[1, 1])),
        ];
        for ranks in 1..=5 {
            let packed: Vec<Packed> =
                (0..ranks).map(|rank| Packed::new(&weights, rank, ranks).unwrap()).collect();
            let whole = packed.iter().map(Packed::bytes).sum::<i64>();
            // Of each tensor's bytes, up to where the next may begin.
            let least = 128 + 128 + (128 + 64 + 64 + 1024 + 64) + (192 + 64) + 64;
            assert!(whole >= least && whole < least + 64 * ranks, "{ranks}: {whole}");
            let room = Tensor::full([whole + 9], 7, (Kind::Uint8, Device::Cpu));
            let all: Vec<&Tensor> = packed.iter().map(|packed| &packed.own).collect();
            room.narrow(0, 0, whole).copy_(&Tensor::cat(&all, 0));
            for (found, weight) in packed[0].within(&room).unwrap().iter().zip(&weights) {
                assert_eq!(found.numbers(), weight.numbers(), "{ranks} ranks");
                if let FrozenWeight::Dense(found) = found {
                    assert_eq!(found.data_ptr() as usize % 64, room.data_ptr() as usize % 64);
                }
            }
        }
    }
}

//! A control: an order that nothing decides.
//!
//! What a rule is worth is what it adds to its schedule. The score of a matrix is a number from 0 to 1
//! that its name and the initial value of its first element draw, so that runs of other seeds have other
//! orders, and goes on to be that number.

use super::traits::{on_interval, Evidence, FreezeRule};
use crate::freeze::schedule::Schedule;
use crate::freeze::FreezeConfig;
use crate::optim::{Group, Parameter};
use tch::Tensor;

const DRAWN: &str = "freeze.drawn";

/// A matrix' score is drawn once.
#[derive(Debug)]
pub struct Random {
    interval: u64,
}

impl Random {
    pub fn new(config: &FreezeConfig) -> Self {
        Random { interval: config.interval }
    }
}

/// From 0 to 1, by a matrix' name: matrices that start at 0 differ by it alone.
fn place(matrix: &Parameter) -> f64 {
    // FNV-1a.
    let digest = matrix.name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |digest, byte| {
        (digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (digest >> 40) as f64 / (1u64 << 24) as f64
}

impl FreezeRule for Random {
    fn observe(&self, _: u64, group: &mut Group, _: &Tensor) {
        if group.has_state(DRAWN) {
            return;
        }
        let drawn = group.state(DRAWN);
        let places: Vec<f64> = group.open().map(|(matrix, _)| place(matrix)).collect();
        let slices = group.open_slices(group.values()).zip(group.open_slices(&drawn));
        for ((value, mut drawn), place) in slices.zip(places) {
            // Digits of the value that nobody chose.
            let first = value.narrow(0, 0, 1).abs() * 1e4 + place;
            drawn.copy_(&(&first - first.floor()));
        }
    }

    fn evidence(&self, group: &mut Group) -> Evidence {
        group.state(DRAWN).into()
    }

    fn is_due(&self, t: u64, schedule: &Schedule) -> bool {
        on_interval(t, self.interval, schedule)
    }
}

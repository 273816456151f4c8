//! Floating-point operations of an adapted layer, counted from shapes: what a method costs, and
//! what a freeze saves.
//!
//! Counted are matrix products, a multiplication with its addition as two, as is usual; the
//! elementwise work around them is smaller by a factor of the layer's width. For n tokens, a
//! layer in → out and rank r:
//!
//! | product | operations | computed |
//! |---|---|---|
//! | W0 x | 2 n · in · out | forward |
//! | A x, B h | 2 n · r · (in + out) | forward |
//! | gradient of x through W0 | 2 n · in · out | backward, where x has a gradient |
//! | gradient of h | 2 n · r · out | backward |
//! | gradient of x through A | 2 n · r · in | backward, where x has a gradient |
//! | gradient of the up-projection | 2 n · r · out | backward, where B or b trains |
//! | gradient of the down-projection | 2 n · r · in | backward, where A trains |
//!
//! The last row is what freezing A saves: the gradient of d alone is a sum over tokens.

use serde::{Deserialize, Serialize};
use std::ops::{Add, AddAssign};

/// Operations of the forward and of the backward pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flops {
    /// Operations of the forward pass.
    pub forward: i64,
    /// Operations of the backward pass.
    pub backward: i64,
}

impl Flops {
    /// Operations of both passes together.
    pub fn total(self) -> i64 {
        self.forward + self.backward
    }
}

impl Add for Flops {
    type Output = Flops;
    fn add(self, other: Flops) -> Flops {
        Flops { forward: self.forward + other.forward, backward: self.backward + other.backward }
    }
}

impl AddAssign for Flops {
    fn add_assign(&mut self, other: Flops) {
        *self = *self + other;
    }
}

/// Which weight gradients the backward pass computes as matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Products {
    /// The gradient of the down-projection.
    pub down: bool,
    /// The gradient of the up-projection.
    pub up: bool,
}

/// Operations of the frozen weight of a layer `from` → `to` on `tokens` tokens.
pub fn frozen_weight(from: i64, to: i64, tokens: i64, input_gradient: bool) -> Flops {
    let forward = 2 * tokens * from * to;
    Flops { forward, backward: if input_gradient { forward } else { 0 } }
}

/// Operations of a low-rank path beside a layer `from` → `to` on `tokens` tokens.
pub fn path(
    (from, to): (i64, i64),
    rank: i64,
    products: Products,
    tokens: i64,
    input_gradient: bool,
) -> Flops {
    let (down, up) = (2 * tokens * rank * from, 2 * tokens * rank * to);
    let if_so = |computed: bool, operations: i64| if computed { operations } else { 0 };
    Flops {
        forward: down + up,
        backward: up
            + if_so(input_gradient, down)
            + if_so(products.up, up)
            + if_so(products.down, down),
    }
}

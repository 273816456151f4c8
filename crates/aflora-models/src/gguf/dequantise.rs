//! Blocks as the numbers that they stand for, in single precision, to the bit as the `gguf` package
//! has them: the same products and sums in the same order.
//!
//! Q4_0 and its kin hold a scale `d`, some a least value `m`, and 32 numbers `q` of a few bits: a
//! number is `d · q` or `d · q + m`. The K formats hold 256 numbers in parts of 16 or 32 with scales
//! of their own, which are few bits of a common one.

use super::format::{BlockFormat, BLOCK, SUPER};
use half::f16;

/// Writes the numbers of `blocks` to `numbers`, as many as they are.
pub(crate) fn dequantise(format: BlockFormat, blocks: &[u8], numbers: &mut [f32]) {
    use BlockFormat::*;
    let of_block: fn(&[u8], &mut [f32]) = match format {
        Q4_0 => q4_0,
        Q4_1 => q4_1,
        Q5_0 => q5_0,
        Q5_1 => q5_1,
        Q8_0 => q8_0,
        Q2_K => q2_k,
        Q3_K => q3_k,
        Q4_K => q4_k,
        Q5_K => q5_k,
        Q6_K => q6_k,
    };
    let blocks = blocks.chunks_exact(format.bytes());
    for (block, numbers) in blocks.zip(numbers.chunks_exact_mut(format.numbers())) {
        of_block(block, numbers);
    }
}

/// The number in half precision at `at`.
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The fifth bits, one a number, of a block of 32.
fn fifth(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// The `i`-th number of 32 in four bits: the lower halves of 16 bytes come first.
fn four(bytes: &[u8], i: usize) -> u8 {
    match i < BLOCK / 2 {
        true => bytes[i] & 15,
        false => bytes[i - BLOCK / 2] >> 4,
    }
}

/// The `i`-th number of 32 in five bits.
fn five(bytes: &[u8], high: u32, i: usize) -> u8 {
    four(bytes, i) | ((high >> i & 1) as u8) << 4
}

fn q4_0(block: &[u8], numbers: &mut [f32]) {
    let (d, q) = (half(block, 0), &block[2..]);
    for (i, number) in numbers.iter_mut().enumerate() {
        *number = d * f32::from(four(q, i) as i8 - 8);
    }
}

fn q4_1(block: &[u8], numbers: &mut [f32]) {
    let (d, m, q) = (half(block, 0), half(block, 2), &block[4..]);
    for (i, number) in numbers.iter_mut().enumerate() {
        *number = d * f32::from(four(q, i)) + m;
    }
}

fn q5_0(block: &[u8], numbers: &mut [f32]) {
    let (d, high, q) = (half(block, 0), fifth(block, 2), &block[6..]);
    for (i, number) in numbers.iter_mut().enumerate() {
        *number = d * f32::from(five(q, high, i) as i8 - 16);
    }
}

fn q5_1(block: &[u8], numbers: &mut [f32]) {
    let (d, m, high, q) = (half(block, 0), half(block, 2), fifth(block, 4), &block[8..]);
    for (i, number) in numbers.iter_mut().enumerate() {
        *number = d * f32::from(five(q, high, i)) + m;
    }
}

fn q8_0(block: &[u8], numbers: &mut [f32]) {
    let d = half(block, 0);
    for (number, &q) in numbers.iter_mut().zip(&block[2..]) {
        *number = f32::from(q as i8) * d;
    }
}

/// The `i`-th number of 256 in two bits: each 32 bytes hold 128 numbers, the lowest bits of all of
/// them first.
fn two(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3
}

fn q2_k(block: &[u8], numbers: &mut [f32]) {
    let (scales, q) = (&block[..16], &block[16..80]);
    let (d, least) = (half(block, 80), half(block, 82));
    for (i, number) in numbers.iter_mut().enumerate() {
        let scale = scales[i / 16];
        let (d, m) = (d * f32::from(scale & 15), least * f32::from(scale >> 4));
        *number = d * f32::from(two(q, i)) - m;
    }
}

fn q3_k(block: &[u8], numbers: &mut [f32]) {
    let (mask, q, packed, d) = (&block[..32], &block[32..96], &block[96..108], half(block, 108));
    // Sixteen of six bits: the lower four of two in each of eight bytes, the upper two of four in
    // each of the four bytes behind.
    let scale = |part: usize| {
        let low = packed[part % 8] >> (part / 8 * 4) & 15;
        let high = packed[8 + part % 4] >> (part / 4 * 2) & 3;
        d * f32::from((low | high << 4) as i8 - 32)
    };
    let scales: [f32; SUPER / 16] = std::array::from_fn(scale);
    for (i, number) in numbers.iter_mut().enumerate() {
        // Where the bit is set, nothing is taken away.
        let below = match mask[i % 32] >> (i / 32) & 1 {
            1 => 0,
            _ => 4,
        };
        *number = scales[i / 16] * f32::from(two(q, i) as i8 - below);
    }
}

/// Eight scales and eight least values of six bits each, in twelve bytes: four of each kind in the
/// lower bits of four bytes; of the others, four bits in the last four bytes and two in the upper
/// bits of the first eight.
fn scales_and_least(packed: &[u8]) -> [(u8, u8); 8] {
    std::array::from_fn(|part| match part < 4 {
        true => (packed[part] & 63, packed[part + 4] & 63),
        false => {
            let (scale, least, last) = (packed[part - 4], packed[part], packed[part + 4]);
            (last & 15 | scale >> 2 & 48, last >> 4 | least >> 2 & 48)
        }
    })
}

/// The `i`-th number of 256 in four bits: each 32 bytes hold 64 numbers, the lower halves first.
fn four_of_super(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15
}

/// Parts of 32 numbers, each with a scale and a least value.
fn in_eight_parts(block: &[u8], numbers: &mut [f32], q: impl Fn(usize) -> u8) {
    let (d, least) = (half(block, 0), half(block, 2));
    let scales = scales_and_least(&block[4..16]);
    for (part, numbers) in numbers.chunks_exact_mut(32).enumerate() {
        let (scale, m) = scales[part];
        let (d, m) = (d * f32::from(scale), least * f32::from(m));
        for (i, number) in numbers.iter_mut().enumerate() {
            *number = d * f32::from(q(32 * part + i)) - m;
        }
    }
}

fn q4_k(block: &[u8], numbers: &mut [f32]) {
    in_eight_parts(block, numbers, |i| four_of_super(&block[16..], i));
}

fn q5_k(block: &[u8], numbers: &mut [f32]) {
    let (high, q) = (&block[16..48], &block[48..]);
    let five = |i: usize| four_of_super(q, i) | (high[i % 32] >> (i / 32) & 1) << 4;
    in_eight_parts(block, numbers, five);
}

fn q6_k(block: &[u8], numbers: &mut [f32]) {
    let (low, high, scales, d) =
        (&block[..128], &block[128..192], &block[192..208], half(block, 208));
    for (i, number) in numbers.iter_mut().enumerate() {
        let low = low[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4) & 15;
        let q = (low | two(high, i) << 4) as i8 - 32;
        *number = d * f32::from(scales[i / 16] as i8) * f32::from(q);
    }
}

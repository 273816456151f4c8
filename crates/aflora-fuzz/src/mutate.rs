//! Deterministic mutations of a file: bits, bytes, numbers at the edge, pieces cut, doubled and
//! moved.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The `number`th mutation of `seed`, always the same.
pub fn mutation(seed: &[u8], number: u64) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(number);
    let mut bytes = seed.to_vec();
    for _ in 0..1 << rng.random_range(0..4) {
        change(&mut bytes, &mut rng);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
    const EDGES: [u64; 10] =
        [0, 1, 0x7f, 0x80, 0xff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, i64::MAX as u64, u64::MAX];
    const WORDS: [&str; 12] = [
        "null",
        "-1",
        "1e999",
        "NaN",
        "99999999999999999999",
        "[[[[",
        "{\"a\":",
        "../",
        "\u{feff}",
        "\0",
        "\t",
        "\n",
    ];
    if bytes.is_empty() {
        bytes.push(rng.random());
    }
    // Headers stand at the front, and what is wrong there is what counts.
    let end = if rng.random() { bytes.len() } else { bytes.len().min(512) };
    let at = rng.random_range(0..end);
    let piece = at..(at + rng.random_range(1..64)).min(bytes.len());
    match rng.random_range(0..8) {
        0 => bytes[at] ^= 1 << rng.random_range(0..8),
        1 => bytes[at] = rng.random(),
        2 => {
            let width = [1, 2, 4, 8][rng.random_range(0..4)];
            let number = EDGES[rng.random_range(0..EDGES.len())].to_le_bytes();
            let end = (at + width).min(bytes.len());
            bytes[at..end].copy_from_slice(&number[..end - at]);
        }
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(piece)),
        5 => {
            let copy = bytes[piece].to_vec();
            let to = rng.random_range(0..=bytes.len());
            drop(bytes.splice(to..to, copy));
        }
        6 => {
            let word = WORDS[rng.random_range(0..WORDS.len())];
            drop(bytes.splice(at..at, word.bytes()));
        }
        _ => {
            let word = WORDS[rng.random_range(0..WORDS.len())];
            drop(bytes.splice(piece, word.bytes()));
        }
    }
}

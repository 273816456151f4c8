//! How numbers lie in a tensor of a GGUF file: plain ones, or blocks that share a scale.

use tch::Kind;

/// Numbers of a superblock of the K formats.
pub(super) const SUPER: usize = 256;
/// Numbers of a block of the others.
pub(super) const BLOCK: usize = 32;

/// A format that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Numbers as libtorch has them.
    Plain(Kind),
    /// Blocks of numbers in few bits.
    Blocks(BlockFormat),
}

/// A format of blocks, by its name in llama.cpp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub(crate) enum BlockFormat {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
}

impl Format {
    /// By its number in the format; the name of one that is not read, where it is known.
    pub(super) fn of(number: u32) -> Result<Self, Option<&'static str>> {
        use BlockFormat::*;
        Ok(match number {
            0 => Format::Plain(Kind::Float),
            1 => Format::Plain(Kind::Half),
            2 => Format::Blocks(Q4_0),
            3 => Format::Blocks(Q4_1),
            6 => Format::Blocks(Q5_0),
            7 => Format::Blocks(Q5_1),
            8 => Format::Blocks(Q8_0),
            10 => Format::Blocks(Q2_K),
            11 => Format::Blocks(Q3_K),
            12 => Format::Blocks(Q4_K),
            13 => Format::Blocks(Q5_K),
            14 => Format::Blocks(Q6_K),
            24 => Format::Plain(Kind::Int8),
            25 => Format::Plain(Kind::Int16),
            26 => Format::Plain(Kind::Int),
            27 => Format::Plain(Kind::Int64),
            28 => Format::Plain(Kind::Double),
            30 => Format::Plain(Kind::BFloat16),
            _ => {
                let known = UNREAD.iter().find(|(known, _)| *known == number);
                return Err(known.map(|(_, name)| *name));
            }
        })
    }

    /// Numbers of a block; rows are whole blocks.
    pub(crate) fn block(self) -> usize {
        match self {
            Format::Plain(_) => 1,
            Format::Blocks(format) => format.numbers(),
        }
    }

    /// Bytes of a block.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Format::Plain(kind) => kind.elt_size_in_bytes(),
            Format::Blocks(format) => format.bytes(),
        }
    }
}

/// Formats of llama.cpp that are not read, by their numbers.
const UNREAD: [(u32, &str); 15] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

impl BlockFormat {
    /// Numbers of a block.
    pub(crate) fn numbers(self) -> usize {
        use BlockFormat::*;
        match self {
            Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 => BLOCK,
            Q2_K | Q3_K | Q4_K | Q5_K | Q6_K => SUPER,
        }
    }

    /// Bytes of a block: its scales (half precision where nothing is said), then its numbers.
    pub(crate) fn bytes(self) -> usize {
        use BlockFormat::*;
        match self {
            Q4_0 => 2 + BLOCK / 2,
            Q4_1 => 2 + 2 + BLOCK / 2,
            Q5_0 => 2 + BLOCK / 8 + BLOCK / 2,
            Q5_1 => 2 + 2 + BLOCK / 8 + BLOCK / 2,
            Q8_0 => 2 + BLOCK,
            Q2_K => SUPER / 16 + SUPER / 4 + 2 + 2,
            Q3_K => SUPER / 8 + SUPER / 4 + 12 + 2,
            Q4_K => 2 + 2 + 12 + SUPER / 2,
            Q5_K => 2 + 2 + 12 + SUPER / 8 + SUPER / 2,
            Q6_K => SUPER / 2 + SUPER / 4 + SUPER / 16 + 2,
        }
    }
}

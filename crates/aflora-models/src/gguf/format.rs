//! How numbers lie in a tensor of a GGUF file: plain ones, or blocks that share a scale.

use aflora_core::weight::BlockFormat;
use tch::Kind;

/// A format that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Numbers as libtorch has them.
    Plain(Kind),
    /// Blocks of numbers in few bits.
    Blocks(BlockFormat),
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

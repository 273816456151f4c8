//! In how many bits a frozen weight is held.

/// Numbers that share a scale in NF4.
pub(super) const NF4_BLOCK: i64 = 64;

/// Scales that share a scale where they are nested.
pub(super) const NESTED_BLOCK: i64 = 256;

/// What a frozen weight is quantised to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightFormat {
    /// NF4 (Dettmers et al. 2023): codes of 4 bits, by quantiles of a normal distribution, and for
    /// each 64 numbers the largest magnitude in fp32. 4.5 bits a weight.
    Nf4,
    /// [NF4](Self::Nf4) whose magnitudes are codes of 8 bits, which share a scale by 256 ("double
    /// quantisation"). 4.13 bits a weight.
    Nf4Nested,
    /// Whole numbers of 8 bits, and for each row (each output) the largest magnitude in fp32: how
    /// LLM.int8 (Dettmers et al. 2022) stores weights. They are restored and multiplied as any, so
    /// that no outlying inputs need to be kept apart.
    Int8,
    /// [`Int8`](Self::Int8) whose products are of whole numbers, on a CPU ("dynamic quantisation"): what the weights are
    /// multiplied by is rounded to 127ths of its row's largest magnitude, and so is the gradient.
    Int8Dynamic,
    /// Floating point numbers of 8 bits (e4m3: 4 bits of exponent, 3 of fraction), and for each row the
    /// least power of two that brings it to 448 or less. What they are multiplied by is rounded to
    /// such numbers, too, row by row, so that tensor cores multiply in 8 bits.
    Fp8,
}

impl WeightFormat {
    /// Bytes of a weight `[rows, columns]` in memory, but for the maps of some hundred bytes.
    pub fn bytes(self, rows: i64, columns: i64) -> i64 {
        const SINGLE: i64 = 4;
        let numbers = rows * columns;
        let (codes, blocks) = (ceil(numbers, 2), ceil(numbers, NF4_BLOCK));
        match self {
            WeightFormat::Nf4 => codes + SINGLE * blocks,
            WeightFormat::Nf4Nested => codes + blocks + SINGLE * ceil(blocks, NESTED_BLOCK),
            WeightFormat::Int8 | WeightFormat::Int8Dynamic | WeightFormat::Fp8 => {
                numbers + SINGLE * rows
            }
        }
    }
}

/// How many `parts` it takes to hold `n`.
pub(super) fn ceil(n: i64, part: i64) -> i64 {
    (n + part - 1) / part
}

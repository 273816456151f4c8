//! Numbers in blocks of few bits, as GGUF files hold them (kernels/blocks.cuh).

use std::ffi::c_int;

/// A format of blocks, by its name and its number in llama.cpp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types, missing_docs)]
#[non_exhaustive]
pub enum BlockFormat {
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q2_K = 10,
    Q3_K = 11,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
}

impl BlockFormat {
    /// All of them.
    pub const ALL: [BlockFormat; 10] = {
        use BlockFormat::*;
        [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K]
    };

    /// Numbers of a block.
    pub fn numbers(self) -> usize {
        use BlockFormat::*;
        match self {
            Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 => 32,
            Q2_K | Q3_K | Q4_K | Q5_K | Q6_K => 256,
        }
    }

    /// Bytes of a block: its scales (half precision where nothing is said), then its numbers.
    pub fn bytes(self) -> usize {
        use BlockFormat::*;
        let numbers = self.numbers();
        match self {
            Q4_0 => 2 + numbers / 2,
            Q4_1 => 2 + 2 + numbers / 2,
            Q5_0 => 2 + numbers / 8 + numbers / 2,
            Q5_1 => 2 + 2 + numbers / 8 + numbers / 2,
            Q8_0 => 2 + numbers,
            Q2_K => numbers / 16 + numbers / 4 + 2 + 2,
            Q3_K => numbers / 8 + numbers / 4 + 12 + 2,
            Q4_K => 2 + 2 + 12 + numbers / 2,
            Q5_K => 2 + 2 + 12 + numbers / 8 + numbers / 2,
            Q6_K => numbers / 2 + numbers / 4 + numbers / 16 + 2,
        }
    }
}

extern "C" {
    fn aflora_blocks(format: c_int, from: *const u8, count: i64, out: *mut f32);
}

/// Writes the numbers of `blocks` to `numbers`, in single precision, to the bit as the `gguf` package
/// has them: of as many blocks as both have whole.
pub fn restore(format: BlockFormat, blocks: &[u8], numbers: &mut [f32]) {
    let count = (blocks.len() / format.bytes()).min(numbers.len() / format.numbers());
    // SAFETY: so many blocks are read, and so many numbers written, as both have.
    unsafe {
        aflora_blocks(format as c_int, blocks.as_ptr(), count as i64, numbers.as_mut_ptr());
    }
}

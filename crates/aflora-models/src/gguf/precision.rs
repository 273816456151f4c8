//! The formats that files are written in.

/// How the tensors of a written file lie in it: those of one dimension in single precision, as
/// llama.cpp wants them, the others as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// Half precision with the range of single precision.
    Bf16,
    /// Blocks of 32 numbers of eight bits with a scale; in half precision where rows are no whole
    /// blocks.
    Q8_0,
}

impl Precision {
    /// The format of a tensor of this shape.
    pub(super) fn of(self, shape: &[i64]) -> Self {
        match (self, shape) {
            (_, [] | [_]) => Precision::F32,
            (Precision::Q8_0, [.., row]) if row % 32 != 0 => Precision::F16,
            _ => self,
        }
    }

    /// Its number as a tensor's format, and as that of most of a file.
    pub(super) fn numbers(self) -> [u32; 2] {
        match self {
            Precision::F32 => [0, 0],
            Precision::F16 => [1, 1],
            Precision::Bf16 => [30, 32],
            Precision::Q8_0 => [8, 7],
        }
    }

    /// Bytes of so many numbers.
    pub(super) fn bytes(self, numbers: usize) -> usize {
        match self {
            Precision::F32 => 4 * numbers,
            Precision::F16 | Precision::Bf16 => 2 * numbers,
            Precision::Q8_0 => numbers / 32 * 34,
        }
    }
}

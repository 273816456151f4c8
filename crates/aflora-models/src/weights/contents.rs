//! Where the tensors of a file lie: what every format of checkpoints is read to.

use crate::gguf::Arrangement;
use aflora_core::weight::BlockFormat;
use serde::Deserialize;
use std::collections::BTreeMap;
use tch::Kind;

/// Where a tensor lies in a file, and how its elements are laid out there.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TensorEntry {
    /// Elements in each dimension.
    pub shape: Vec<i64>,
    pub layout: Layout,
    /// Bytes from the start of the file.
    pub offset: usize,
    /// What its format has made of the model's own tensor.
    pub arrangement: Arrangement,
}

/// How a tensor's elements are laid out.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Layout {
    /// Numbers of a kind, with so many elements from one to the next in each dimension.
    Strided(Kind, Vec<i64>),
    /// One after the other, in blocks that share a scale.
    Blocks(BlockFormat),
    /// In codes, with what they stand for in other tensors.
    Codes(Box<Codes>),
}

/// A weight in codes, as bitsandbytes writes it: where its tensors lie, by the ends of their names,
/// each with the number of its file, and what else is said of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Codes {
    pub parts: BTreeMap<&'static str, (usize, TensorEntry)>,
    pub state: CodesState,
}

/// The numbers of a weight in codes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct CodesState {
    pub blocksize: i64,
    pub shape: Vec<i64>,
    #[serde(default)]
    pub nested_blocksize: i64,
    #[serde(default)]
    pub nested_offset: f64,
}

impl TensorEntry {
    /// A tensor as the model has it.
    pub(super) fn strided(shape: Vec<i64>, stride: Vec<i64>, kind: Kind, offset: usize) -> Self {
        let layout = Layout::Strided(kind, stride);
        TensorEntry { shape, layout, offset, arrangement: Arrangement::Own }
    }

    /// The kind of its numbers, those that blocks stand for among them.
    pub(super) fn kind(&self) -> Kind {
        match &self.layout {
            Layout::Strided(kind, _) => *kind,
            Layout::Blocks(_) | Layout::Codes(_) => Kind::Float,
        }
    }

    /// Bytes from the first element to the end of the last; `None` if no machine has so many.
    pub(super) fn extent(&self) -> Option<usize> {
        if self.shape.contains(&0) {
            return Some(0);
        }
        let (kind, stride) = match &self.layout {
            Layout::Strided(kind, stride) => (kind, stride),
            // Made of entries that were found inside their files.
            Layout::Codes(_) => return None,
            Layout::Blocks(format) => {
                let size = |&n: &i64| usize::try_from(n).ok();
                let mut sizes = self.shape.iter().map(size);
                let elements = sizes.try_fold(1usize, |n, d| n.checked_mul(d?))?;
                return elements.div_ceil(format.numbers()).checked_mul(format.bytes());
            }
        };
        let mut last = 0usize;
        for (&n, &step) in self.shape.iter().zip(stride) {
            let steps = usize::try_from(n - 1).ok()?;
            last = last.checked_add(steps.checked_mul(usize::try_from(step).ok()?)?)?;
        }
        last.checked_add(1)?.checked_mul(kind.elt_size_in_bytes())
    }
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Where each of its tensors lies, by name.
    pub tensors: BTreeMap<String, TensorEntry>,
    /// What else it has, by name, and what that is: numbers of a type that is not read, things
    /// that are no tensors. Nobody may need it.
    pub unread: BTreeMap<String, String>,
}

/// The steps of a tensor whose elements lie one after the other.
pub(super) fn contiguous(shape: &[i64]) -> Vec<i64> {
    let mut stride = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        stride[i - 1] = i64::saturating_mul(stride[i], shape[i].max(1));
    }
    stride
}

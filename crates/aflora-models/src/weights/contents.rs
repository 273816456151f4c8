//! Where the tensors of a file lie: what every format of checkpoints is read to.

use std::collections::BTreeMap;
use tch::Kind;

/// Where a tensor lies in a file, and how its elements are laid out there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TensorEntry {
    /// Elements in each dimension.
    pub shape: Vec<i64>,
    /// Elements from one to the next in each dimension.
    pub stride: Vec<i64>,
    pub kind: Kind,
    /// Bytes from the start of the file.
    pub offset: usize,
}

impl TensorEntry {
    /// Bytes from the first element to the end of the last; `None` if no machine has so many.
    pub(super) fn extent(&self) -> Option<usize> {
        if self.shape.contains(&0) {
            return Some(0);
        }
        let mut last = 0usize;
        for (&n, &step) in self.shape.iter().zip(&self.stride) {
            let steps = usize::try_from(n - 1).ok()?;
            last = last.checked_add(steps.checked_mul(usize::try_from(step).ok()?)?)?;
        }
        last.checked_add(1)?.checked_mul(self.kind.elt_size_in_bytes())
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

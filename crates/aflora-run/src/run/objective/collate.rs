//! Rows of tokens as a batch: padded to one width, packed rows told apart.

use super::texts::{TextPairs, IDS, LABELS, NONE};
use crate::run::batches::width_for;
use crate::run::tokens::Tokens;
use crate::task::Examples;
use aflora_models::Batch;
use tch::{Kind, Tensor};

/// The document that padding is of.
const PADDING: i64 = -1;

impl TextPairs {
    /// A batch to write on after.
    pub(super) fn beginning(&self, prompts: &[&[i64]]) -> Batch {
        let device = self.device;
        let left_padded = self.tokens.decoder_start.is_none();
        let width = prompts.iter().map(|p| p.len()).max().unwrap_or(0);
        let (ids, mask) = padded(prompts, width, self.pad, left_padded);
        let (ids, mask) = (ids.to_device(device), mask.to_device(device));
        let decoder_input_ids = self
            .tokens
            .decoder_start
            .map(|start| Tensor::full([prompts.len() as i64, 1], start, (Kind::Int64, device)));
        Batch { left_padded, decoder_input_ids, ..Batch::new(ids, mask) }
    }

    /// A batch to learn from, on the host, whose rows are packs of the table's; with what its decoder
    /// reads for an encoder-decoder.
    pub(super) fn collate(&self, table: &Tokens, packs: &[&[usize]]) -> Examples {
        let device = self.device;
        let column = |column: usize| -> Vec<Vec<i64>> {
            let of =
                |pack: &&[usize]| pack.iter().flat_map(|&row| table.get(row, column)).collect();
            packs.iter().map(of).collect()
        };
        let longest = |of: &[Vec<i64>]| of.iter().map(Vec::len).max().unwrap_or(0);
        let (ids, labels) = (column(IDS), column(LABELS));
        let width = width_for(longest(&ids), self.max_length, device);
        let (input_ids, mask) = padded(&ids, width, self.pad, false);
        let batch = Batch::new(input_ids, mask);
        match self.tokens.decoder_start {
            None => {
                let documents = self.packing.then(|| {
                    let numbers = packs.iter().map(|pack| numbers(table, pack));
                    padded(&numbers.collect::<Vec<_>>(), width, PADDING, false).0
                });
                let labels = padded(&labels, width, NONE, false).0;
                Examples { batch: Batch { documents, ..batch }, labels }
            }
            Some(start) => {
                let width = width_for(longest(&labels), self.task.max_target_length, device);
                let shifted = labels.iter().map(|labels| {
                    std::iter::once(start).chain(labels.iter().copied()).take(labels.len())
                });
                let shifted: Vec<Vec<i64>> = shifted.map(Iterator::collect).collect();
                let read = padded(&shifted, width, self.pad, false).0;
                let batch = Batch { decoder_input_ids: Some(read), ..batch };
                Examples { batch, labels: padded(&labels, width, NONE, false).0 }
            }
        }
    }
}

/// For each token of a pack the number of its row in it.
fn numbers(table: &Tokens, pack: &[usize]) -> Vec<i64> {
    let rows = pack.iter().zip(0..);
    rows.flat_map(|(&row, number)| std::iter::repeat_n(number, table.length(row, IDS))).collect()
}

/// Rows as one tensor and its mask, filled up with `fill` before or behind.
fn padded<R: AsRef<[i64]>>(rows: &[R], width: usize, fill: i64, left: bool) -> (Tensor, Tensor) {
    let (mut ids, mut mask) = (vec![fill; rows.len() * width], vec![0; rows.len() * width]);
    for (i, row) in rows.iter().map(AsRef::as_ref).enumerate() {
        let start = i * width + if left { width - row.len() } else { 0 };
        ids[start..start + row.len()].copy_from_slice(row);
        mask[start..start + row.len()].fill(1);
    }
    let shape = [rows.len() as i64, width as i64];
    let tensor = |values: &[i64]| Tensor::from_slice(values).view(shape);
    (tensor(&ids), tensor(&mask))
}

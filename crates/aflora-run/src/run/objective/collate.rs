//! Rows of tokens as a batch: padded to one width, packed rows told apart.

use super::texts::{TextPairs, IDS, LABELS, NONE};
use crate::run::batches::width_for;
use crate::run::tokens::Tokens;
use crate::task::Examples;
use aflora_models::{Batch, Documents};
use tch::{Device, Kind, Tensor};

/// The document that padding is of.
const PADDING: i64 = -1;

/// How rows become batches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Collator {
    pad: i64,
    /// What a text begins with that an encoder-decoder writes.
    decoder_start: Option<i64>,
    packing: bool,
    /// The longest rows that are read, and written.
    longest: [usize; 2],
    device: Device,
}

impl TextPairs {
    pub(super) fn collator(&self) -> Collator {
        Collator {
            pad: self.pad,
            decoder_start: self.tokens.decoder_start,
            packing: self.packing,
            longest: [self.max_length, self.task.max_target_length],
            device: self.device,
        }
    }
}

impl Collator {
    /// A batch to write on after.
    pub fn beginning(&self, prompts: &[&[i64]]) -> Batch {
        let device = self.device;
        let left_padded = self.decoder_start.is_none();
        let width = prompts.iter().map(|p| p.len()).max().unwrap_or(0);
        let (ids, mask) = padded(prompts, width, self.pad, left_padded);
        let (ids, mask) = (ids.to_device(device), mask.to_device(device));
        let decoder_input_ids = self
            .decoder_start
            .map(|start| Tensor::full([prompts.len() as i64, 1], start, (Kind::Int64, device)));
        Batch { left_padded, decoder_input_ids, ..Batch::new(ids, mask) }
    }

    /// A batch to learn from, on the host, whose rows are packs of the table's; with what its decoder
    /// reads for an encoder-decoder.
    pub fn collate(&self, table: &Tokens, packs: &[&[usize]]) -> Examples {
        let device = self.device;
        let column = |column: usize| -> Vec<Vec<i64>> {
            let of =
                |pack: &&[usize]| pack.iter().flat_map(|&row| table.get(row, column)).collect();
            packs.iter().map(of).collect()
        };
        let longest = |of: &[Vec<i64>]| of.iter().map(Vec::len).max().unwrap_or(0);
        let (ids, labels) = (column(IDS), column(LABELS));
        let width = width_for(longest(&ids), self.longest[0], device);
        let (input_ids, mask) = padded(&ids, width, self.pad, false);
        let batch = Batch::new(input_ids, mask);
        match self.decoder_start {
            None => {
                let documents = self.packing.then(|| {
                    let numbers = packs.iter().map(|pack| numbers(table, pack));
                    Documents::new(padded(&numbers.collect::<Vec<_>>(), width, PADDING, false).0)
                });
                let labels = padded(&labels, width, NONE, false).0;
                Examples { batch: Batch { documents, ..batch }, labels }
            }
            Some(start) => {
                let width = width_for(longest(&labels), self.longest[1], device);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What ends a text, and fills rows up, too.
    const END: i64 = 9;

    fn collator(decoder_start: Option<i64>, packing: bool) -> Collator {
        let longest = [8, 8];
        Collator { pad: END, decoder_start, packing, longest, device: Device::Cpu }
    }

    /// Two texts that end, after a prompt of one token each.
    fn table() -> Tokens {
        Tokens::in_memory(2, |table| {
            table.push(&[&[1, 2, 3, END], &[2, 3, END, NONE]], 0)?;
            Ok(table.push(&[&[1, END], &[END, NONE]], 0)?)
        })
        .unwrap()
    }

    fn rows(tensor: &Tensor) -> Vec<Vec<i64>> {
        Vec::try_from(tensor).unwrap()
    }

    #[test]
    fn an_end_that_is_the_padding_too_is_read_and_learned_where_it_ends_a_text_alone() {
        let found = collator(None, false).collate(&table(), &[&[0], &[1]]);
        assert_eq!(rows(&found.batch.input_ids), [[1, 2, 3, END], [1, END, END, END]]);
        assert_eq!(rows(&found.batch.attention_mask), [[1, 1, 1, 1], [1, 1, 0, 0]]);
        assert_eq!(rows(&found.labels), [[2, 3, END, NONE], [END, NONE, NONE, NONE]]);

        let found = collator(None, true).collate(&table(), &[&[0, 1], &[1]]);
        assert_eq!(rows(&found.batch.attention_mask), [[1; 6], [1, 1, 0, 0, 0, 0]]);
        assert_eq!(rows(&found.labels)[0], [2, 3, END, NONE, END, NONE]);
        assert_eq!(rows(&found.labels)[1], [END, NONE, NONE, NONE, NONE, NONE]);
        let documents = rows(found.batch.documents.unwrap().of_tokens());
        assert_eq!(documents, [vec![0, 0, 0, 0, 1, 1], vec![0, 0, -1, -1, -1, -1]]);
    }

    #[test]
    fn an_encoder_decoder_learns_the_end_and_no_padding_that_is_the_same_token() {
        let table = Tokens::in_memory(2, |table| {
            table.push(&[&[1, 2, END], &[4, 5, END]], 0)?;
            Ok(table.push(&[&[1, END], &[END]], 0)?)
        });
        let found = collator(Some(END), false).collate(&table.unwrap(), &[&[0], &[1]]);
        assert_eq!(rows(&found.batch.attention_mask), [[1, 1, 1], [1, 1, 0]]);
        assert_eq!(rows(&found.labels), [[4, 5, END], [END, NONE, NONE]]);
        let read = rows(&found.batch.decoder_input_ids.unwrap());
        assert_eq!(read, [[END, 4, 5], [END, END, END]]);
    }

    #[test]
    fn an_end_within_a_prompt_is_read_and_padding_before_it_is_not() {
        let found = collator(None, false).beginning(&[&[1, END, 2], &[END]]);
        assert!(found.left_padded);
        assert_eq!(rows(&found.input_ids), [[1, END, 2], [END, END, END]]);
        assert_eq!(rows(&found.attention_mask), [[1, 1, 1], [0, 0, 1]]);

        let found = collator(Some(0), false).beginning(&[&[1, END], &[END]]);
        assert!(!found.left_padded);
        assert_eq!(rows(&found.attention_mask), [[1, 1], [1, 0]]);
        assert_eq!(rows(&found.decoder_input_ids.unwrap()), [[0], [0]]);
    }
}

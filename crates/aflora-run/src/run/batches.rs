//! Encoded examples, and the batches made of them.
//!
//! Batches hold examples of similar length and are padded to their own longest, so little time
//! goes into padding. The order is random all the same: rows are shuffled, long stretches of
//! them sorted by length and cut into batches, and the batches shuffled again.

use super::tokens::{CacheKey, TableWriter, Tokens, TRUNCATED};
use crate::metrics::Answers;
use crate::task::pair;
use crate::ui::Progress;
use aflora_models::tokenizer::{Encoded, EncodedWords};
use aflora_models::TextEncoder;
use anyhow::Result;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Batches whose rows are sorted by length together.
const STRETCH: usize = 16;

/// Widths of batches on a GPU are multiples of this.
const WIDTHS: usize = 32;

/// Texts that are tokenised together.
pub(crate) const CHUNK: usize = 8192;

/// Columns of the table of tokens.
const IDS: usize = 0;
const TYPES: usize = 1;
/// Of words: the place of each one's first token, or [`NO_TOKEN`].
const FIRSTS: usize = 2;

/// What stands for the place of a token that a word has not.
const NO_TOKEN: i64 = -1;

/// Examples as token ids, with their labels.
#[derive(Debug)]
pub struct EncodedSet {
    tokens: Tokens,
    /// What is right for each; none for texts to predict for.
    pub right: Answers,
}

impl EncodedSet {
    /// Tokenises texts or pairs of texts, or maps what an earlier run left of that in `cache`.
    ///
    /// # Errors
    /// A text cannot be encoded.
    pub fn of_texts(
        encoder: &TextEncoder,
        rows: &[&[String]],
        right: Answers,
        cache: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let texts: Vec<(&str, Option<&str>)> = rows.iter().map(|row| pair(row)).collect();
        let mut key = CacheKey::new(&encoder.fingerprint()?, &"texts with labels");
        for &(a, b) in &texts {
            key.add(Some(a));
            key.add(b);
        }
        let tokens = tokens(cache, key, 2, &texts, progress, |chunk, writer| {
            for text in encoder.encode(chunk)? {
                writer.push(&[&text.ids, &text.type_ids], flags(&text))?;
            }
            Ok(())
        })?;
        Ok(EncodedSet { tokens, right })
    }

    /// The same of texts whose words are known, each a row's part.
    ///
    /// # Errors
    /// A word cannot be encoded.
    pub fn of_words(
        encoder: &TextEncoder,
        rows: &[&[String]],
        right: Answers,
        cache: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let mut key = CacheKey::new(&encoder.fingerprint()?, &"words with tags");
        for row in rows {
            key.add(None);
            row.iter().for_each(|word| key.add(Some(word)));
        }
        let tokens = tokens(cache, key, 3, rows, progress, |chunk, writer| {
            for EncodedWords { encoded, firsts } in encoder.encode_words(chunk)? {
                let firsts = firsts.into_iter().map(|first| first.map_or(NO_TOKEN, |at| at as i64));
                let firsts: Vec<i64> = firsts.collect();
                writer.push(&[&encoded.ids, &encoded.type_ids, &firsts], flags(&encoded))?;
            }
            Ok(())
        })?;
        Ok(EncodedSet { tokens, right })
    }

    /// Of a row whose words are known, for each of them the place of its first token; none where it
    /// was cut off, or has none.
    pub fn first_tokens(&self, row: usize) -> impl Iterator<Item = Option<usize>> + '_ {
        self.tokens.get(row, FIRSTS).map(|at| usize::try_from(at).ok())
    }

    /// How many texts there are.
    pub fn rows(&self) -> usize {
        self.tokens.rows()
    }

    /// The tokens of a text.
    pub fn ids(&self, row: usize) -> Vec<i64> {
        self.tokens.get(row, IDS).collect()
    }

    /// How many texts were cut to the maximum length.
    pub fn truncated(&self) -> usize {
        self.tokens.count(TRUNCATED)
    }

    /// Whether a row's text was cut to the maximum length.
    pub fn is_truncated(&self, row: usize) -> bool {
        self.tokens.has(row, TRUNCATED)
    }

    /// Tokens of all texts together.
    pub fn tokens(&self) -> usize {
        self.lengths().iter().sum()
    }

    fn lengths(&self) -> Vec<usize> {
        (0..self.tokens.rows()).map(|row| self.tokens.length(row, IDS)).collect()
    }

    /// The batches of a training epoch: every row once, the last batch may be smaller.
    pub fn training_batches(&self, batch_size: usize, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
        shuffled_by_length(&self.lengths(), batch_size, seed, epoch)
    }

    /// All rows, the longest first: what does not fit into memory shows at once, and what is
    /// evaluated together is of similar length.
    pub fn longest_first(&self) -> Vec<usize> {
        let lengths = self.lengths();
        let mut rows: Vec<usize> = (0..lengths.len()).collect();
        rows.sort_by_key(|&row| std::cmp::Reverse(lengths[row]));
        rows
    }

    /// Tokens of the longest of these rows.
    pub fn longest(&self, rows: &[usize]) -> usize {
        rows.iter().map(|&row| self.tokens.length(row, IDS)).max().unwrap_or(0)
    }

    /// Token ids, mask and token types of these rows, each `[rows, width]`, Int64, on the host. Rows
    /// are filled up with `pad_id`; none may be longer than `width`.
    pub fn collate(&self, rows: &[usize], width: usize, pad_id: i64) -> [Tensor; 3] {
        let (mut ids, mut mask, mut types) = (Vec::new(), Vec::new(), Vec::new());
        for &row in rows {
            let length = self.tokens.length(row, IDS);
            let padding = width - length;
            ids.extend(self.tokens.get(row, IDS));
            ids.extend(std::iter::repeat_n(pad_id, padding));
            mask.extend(std::iter::repeat_n(1i64, length));
            mask.extend(std::iter::repeat_n(0i64, padding));
            types.extend(self.tokens.get(row, TYPES));
            types.extend(std::iter::repeat_n(0i64, padding));
        }
        let shape = [rows.len() as i64, width as i64];
        [ids, mask, types].map(|values| Tensor::from_slice(&values).view(shape))
    }

    /// What is right for these rows: classes, `[rows]`, Int64; or scores, `[rows]`, of several
    /// `[rows, scores]`, fp32; or sets, `[rows, classes]`, 1 for each class in it, fp32. Rows whose
    /// answers are tags or texts have no labels here: `[0]`.
    pub fn labels(&self, rows: &[usize]) -> Tensor {
        fn of<T: Copy>(all: &[T], rows: &[usize]) -> Vec<T> {
            rows.iter().map(|&row| all[row]).collect()
        }
        match &self.right {
            Answers::Classes(classes) => Tensor::from_slice(&of(classes, rows)),
            Answers::Scores(scores) => Tensor::from_slice(&of(scores, rows)).to_kind(Kind::Float),
            Answers::SeveralScores(scores) => {
                let all = rows.iter().flat_map(|&row| scores[row].iter().copied());
                let all: Vec<f64> = all.collect();
                Tensor::from_slice(&all).to_kind(Kind::Float).view([rows.len() as i64, -1])
            }
            Answers::Sets(sets) => {
                let all = rows.iter().flat_map(|&row| sets[row].iter().copied());
                let all: Vec<bool> = all.collect();
                Tensor::from_slice(&all).to_kind(Kind::Float).view([rows.len() as i64, -1])
            }
            Answers::Tags(_) | Answers::Texts(_) => Tensor::from_slice::<i64>(&[]),
        }
    }
}

/// A table of the tokens that `encode` writes of some rows at a time.
fn tokens<R>(
    cache: Option<&Path>,
    key: CacheKey,
    columns: usize,
    rows: &[R],
    progress: &mut dyn Progress,
    encode: impl Fn(&[R], &mut TableWriter) -> Result<()>,
) -> Result<Tokens> {
    Tokens::cached(cache, key, columns, |writer| {
        progress.begin("tokens", rows.len() as u64);
        for (done, chunk) in (1..).zip(rows.chunks(CHUNK)) {
            encode(chunk, writer)?;
            progress.update((done * CHUNK).min(rows.len()) as u64, "");
        }
        progress.end();
        Ok(())
    })
}

fn flags(text: &Encoded) -> u8 {
    if text.truncated {
        TRUNCATED
    } else {
        0
    }
}

/// The width of a batch whose longest row has so many tokens, of at most `max_length`. On a CPU
/// every column costs the same; on a GPU few widths mean few graphs to record, and tensor cores
/// want multiples of 8.
pub fn width_for(longest: usize, max_length: usize, device: Device) -> usize {
    match device {
        Device::Cpu => longest,
        _ => longest.next_multiple_of(WIDTHS).min(max_length.max(longest)),
    }
}

/// The batches of an epoch over rows of these lengths: every row once, in random batches of
/// similar length.
pub fn shuffled_by_length(
    lengths: &[usize],
    batch_size: usize,
    seed: u64,
    epoch: u64,
) -> Vec<Vec<usize>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(epoch);
    let rng = &mut rng;
    let mut rows: Vec<usize> = (0..lengths.len()).collect();
    shuffle(&mut rows, rng);
    for stretch in rows.chunks_mut(batch_size * STRETCH) {
        stretch.sort_by_key(|&row| lengths[row]);
    }
    let mut batches: Vec<Vec<usize>> = rows.chunks(batch_size).map(<[usize]>::to_vec).collect();
    shuffle(&mut batches, rng);
    batches
}

/// Fisher-Yates on ChaCha8: the order of a seed stays what it is in every release.
fn shuffle<T>(items: &mut [T], rng: &mut ChaCha8Rng) {
    for i in (1..items.len()).rev() {
        // The bias of a remainder of 2⁶⁴ by a row count is far below anything observable.
        items.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(lengths: &[usize]) -> EncodedSet {
        let fill = |writer: &mut TableWriter| {
            let mut push = |&n: &usize| writer.push(&[&vec![7; n], &vec![0; n]], 0);
            Ok(lengths.iter().try_for_each(&mut push)?)
        };
        let right = Answers::Classes(vec![1; lengths.len()]);
        EncodedSet { tokens: Tokens::in_memory(2, fill).unwrap(), right }
    }

    proptest! {
        #[test]
        fn every_row_comes_once_an_epoch(
            lengths in prop::collection::vec(1usize..40, 1..300), size in 1usize..40, seed: u64,
        ) {
            let batches = set(&lengths).training_batches(size, seed, 3);
            prop_assert!(batches.iter().all(|b| !b.is_empty() && b.len() <= size));
            prop_assert_eq!(batches.len(), lengths.len().div_ceil(size));
            for mut rows in [batches.concat(), set(&lengths).longest_first()] {
                rows.sort_unstable();
                prop_assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn the_order_depends_on_seed_and_epoch_alone() {
        let set = set(&(1..200).collect::<Vec<_>>());
        assert_eq!(set.training_batches(8, 1, 0), set.training_batches(8, 1, 0));
        assert_ne!(set.training_batches(8, 1, 0), set.training_batches(8, 1, 1));
        assert_ne!(set.training_batches(8, 1, 0), set.training_batches(8, 2, 0));
    }

    #[test]
    fn padding_is_masked() {
        let set = set(&[3, 1]);
        let [ids, mask, _] = set.collate(&[0, 1], 4, 9);
        let rows = |t: &Tensor| Vec::<Vec<i64>>::try_from(t).unwrap();
        assert_eq!(rows(&ids), [[7, 7, 7, 9], [7, 9, 9, 9]]);
        assert_eq!(rows(&mask), [[1, 1, 1, 0], [1, 0, 0, 0]]);
        assert_eq!(set.labels(&[0, 1]).kind(), Kind::Int64);
    }

    #[test]
    fn few_widths_on_a_gpu_and_none_beyond_the_maximum() {
        assert_eq!(width_for(33, 512, Device::Cuda(0)), 64);
        assert_eq!(width_for(33, 60, Device::Cuda(0)), 60);
        assert_eq!(width_for(33, 512, Device::Cpu), 33);
    }
}

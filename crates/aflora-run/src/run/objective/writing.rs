//! What a model writes for many prompts.
//!
//! A decoder's texts of one beam flow: where one is done, the next prompt takes its place. Those of several
//! beams, and of encoder-decoders, are written in step, so many at once.

use super::texts::TextPairs;
use crate::interrupt;
use crate::run::passes::Passes;
use aflora_models::generate::{self, ContinuousWriter, Pace, Written};
use aflora_models::AdaptedModel;
use anyhow::Result;
use std::ops::ControlFlow;

/// The number of a text, by which it has its share of chance where tokens are drawn: its prompt's
/// (FNV-1a), so that a row's text depends neither on the rows beside it nor on its place among them.
pub(super) fn number(prompt: &[i64]) -> u64 {
    let bytes = prompt.iter().flat_map(|id| id.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl TextPairs {
    /// What `model` writes for these inputs, so many at once as `passes` says, in their order,
    /// each with whether its prompt was cut.
    ///
    /// # Errors
    /// The model fails.
    pub fn write(
        &self,
        model: &AdaptedModel,
        inputs: &[&str],
        passes: &Passes,
    ) -> Result<Vec<(String, bool)>> {
        let begun = self.begin(inputs)?.into_iter();
        let (prompts, cut): (Vec<Vec<i64>>, Vec<bool>) =
            begun.map(|begun| self.fitted(begun)).unzip();
        let written = self.write_after(model, &prompts, passes, &mut |_| {})?;
        Ok(written.into_iter().zip(cut).collect())
    }

    pub(super) fn write_after(
        &self,
        model: &AdaptedModel,
        prompts: &[Vec<i64>],
        passes: &Passes,
        done: &mut dyn FnMut(usize),
    ) -> Result<Vec<String>> {
        let mut order: Vec<usize> = (0..prompts.len()).collect();
        order.sort_by_key(|&row| std::cmp::Reverse(prompts[row].len()));
        let mut finished = 0;
        let all = passes.flowing(&order, |rows, at_once, found| {
            let pace = Pace::of(self.device, at_once);
            let pace = Pace { record: pace.record && passes.records(), ..pace };
            self.write_rows(model, prompts, rows, pace, &mut |row, ids| {
                found(row, self.encoder().decode(&ids)?.trim().to_string());
                finished += 1;
                done(finished);
                Ok(())
            })
        })?;
        let mut written = vec![String::new(); prompts.len()];
        for (row, text) in all {
            written[row] = text;
        }
        Ok(written)
    }

    /// Writes on after the prompts of these rows, and hands over each text with its row: as soon as
    /// it is done, or with those that were written in step with it.
    fn write_rows(
        &self,
        model: &AdaptedModel,
        prompts: &[Vec<i64>],
        rows: &[usize],
        pace: Pace,
        done: &mut dyn FnMut(usize, Vec<i64>) -> Result<()>,
    ) -> Result<()> {
        let (generator, generation) = (model.writer()?, &self.generation);
        let prompts: Vec<&[i64]> = rows.iter().map(|&row| prompts[row].as_slice()).collect();
        let numbers: Vec<u64> = prompts.iter().map(|prompt| number(prompt)).collect();
        let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        if let Some(mut writer) =
            ContinuousWriter::new(generator, generation, pace, i64::try_from(longest)?)?
        {
            let mut ended = Ok(());
            writer.write(&prompts, &numbers, &mut |written| {
                ended = match (interrupt::check(), written) {
                    (Err(signal), _) => Err(signal.into()),
                    (Ok(()), Written::Text(at, ids)) => done(rows[at], ids),
                    (Ok(()), Written::Token(..)) => Ok(()),
                };
                match ended {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            })?;
            return ended;
        }
        let mut go_on = |_, _| ControlFlow::Continue(());
        let beside = prompts.chunks(pace.slots).zip(numbers.chunks(pace.slots));
        for (rows, (prompts, numbers)) in rows.chunks(pace.slots).zip(beside) {
            interrupt::check()?;
            let batch = self.collator().beginning(prompts);
            let texts = generate::write_each(generator, &batch, generation, numbers, &mut go_on)?;
            for (&row, ids) in rows.iter().zip(texts) {
                done(row, ids)?;
            }
        }
        Ok(())
    }
}

//! Writing on after the texts of a batch.

use super::beam::{padding, search};
use super::continuous::paired;
use super::{ContinuousWriter, GenerationConfig, Pace, TextGenerator, Written};
use crate::batch::Batch;
use crate::Result;
use std::ops::ControlFlow;
use tch::Device;

/// Writes on after each text of `batch`; gives the new tokens, without the end token.
///
/// # Errors
/// A setting is out of range, the model knows no end token, or its positions do not suffice.
pub fn write(
    generator: &dyn TextGenerator,
    batch: &Batch,
    config: &GenerationConfig,
) -> Result<Vec<Vec<i64>>> {
    let numbers: Vec<u64> = (0..batch.input_ids.size()[0] as u64).collect();
    write_each(generator, batch, config, &numbers, &mut |_, _| ControlFlow::Continue(()))
}

/// [`write()`], of texts with these `numbers`, by which they have their share of chance where tokens
/// are drawn. With one beam `each` is told every token as it is written, with its text's place in the
/// batch, but for the end token; it may end the whole search, whose texts are then as far as they
/// came.
///
/// # Errors
/// As there; or the scores to draw by are no numbers.
pub fn write_each(
    generator: &dyn TextGenerator,
    batch: &Batch,
    config: &GenerationConfig,
    numbers: &[u64],
    each: &mut dyn FnMut(usize, i64) -> ControlFlow<()>,
) -> Result<Vec<Vec<i64>>> {
    config.validate()?;
    let _no_grad = tch::no_grad_guard();
    let rows = batch.input_ids.size()[0] as usize;
    paired(numbers, rows)?;
    let pace = Pace { stride: 1, ..Pace::of(batch.input_ids.device(), rows) };
    let longest = batch.input_ids.size()[1];
    let Some(mut writer) = ContinuousWriter::new(generator, config, pace, longest)? else {
        return search(generator, batch, config, numbers, each);
    };
    let ids = Vec::<Vec<i64>>::try_from(batch.input_ids.to_device(Device::Cpu))?;
    let padding = padding(batch)?;
    let prompts: Vec<&[i64]> = ids.iter().zip(padding).map(|(ids, n)| &ids[n..]).collect();
    let mut texts = vec![Vec::new(); rows];
    writer.write(&prompts, numbers, &mut |written| match written {
        Written::Token(text, id) => {
            texts[text].push(id);
            each(text, id)
        }
        Written::Text(..) => ControlFlow::Continue(()),
    })?;
    Ok(texts)
}

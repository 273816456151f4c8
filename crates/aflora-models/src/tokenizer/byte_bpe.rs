//! The byte-level BPE of RoBERTa, BART, GPT-2 and DeBERTa-v1 from its `vocab.json` and `merges.txt`.

use super::damaged;
use super::settings::Class;
use crate::Result;
use std::path::Path;
use tokenizers::models::bpe::BPE;
use tokenizers::Tokenizer;

/// What GPT-2's texts end with.
pub(super) const GPT2_END: &str = "<|endoftext|>";

/// The vocabulary of the two files.
pub(super) fn read(vocab: &Path, merges: &Path) -> Result<Tokenizer> {
    let (Some(vocab_name), Some(merges_name)) = (vocab.to_str(), merges.to_str()) else {
        return Err(damaged(vocab, "its path is not UTF-8"));
    };
    let model = BPE::from_file(vocab_name, merges_name)
        .build()
        .map_err(|e| damaged(vocab, &format!("with merges.txt beside it: {e}")))?;
    Ok(Tokenizer::new(model))
}

/// Whose vocabulary it is, where no file says it: GPT-2 and its kin put nothing around a text.
pub(super) fn class(tokenizer: &Tokenizer) -> Class {
    let has = |token: &str| tokenizer.token_to_id(token).is_some();
    match has(GPT2_END) && !has("<s>") {
        true => Class::Gpt2,
        false => Class::Roberta,
    }
}

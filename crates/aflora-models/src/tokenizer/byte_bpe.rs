//! The byte-level BPE of RoBERTa, BART and GPT-2 from its `vocab.json` and `merges.txt`.

use super::damaged;
use crate::Result;
use std::path::Path;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, Tokenizer};

/// What GPT-2's texts end with.
const GPT2_END: &str = "<|endoftext|>";

/// The tokenizer of the two files; `add_prefix_space` comes from the folder's
/// `tokenizer_config.json`.
pub(super) fn read(vocab: &Path, merges: &Path, add_prefix_space: bool) -> Result<Tokenizer> {
    let (Some(vocab_name), Some(merges_name)) = (vocab.to_str(), merges.to_str()) else {
        return Err(damaged(vocab, "its path is not UTF-8"));
    };
    let model = BPE::from_file(vocab_name, merges_name)
        .build()
        .map_err(|e| damaged(vocab, &format!("with merges.txt beside it: {e}")))?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer
        .with_pre_tokenizer(Some(ByteLevel::new(add_prefix_space, true, true)))
        .with_decoder(Some(ByteLevel::default()));
    // GPT-2 and its kin put nothing around a text.
    if tokenizer.token_to_id(GPT2_END).is_some() && tokenizer.token_to_id("<s>").is_none() {
        tokenizer.add_special_tokens(&[AddedToken::from(GPT2_END, true).normalized(false)]);
        return Ok(tokenizer);
    }
    let special = |token: &str| {
        let id = tokenizer.token_to_id(token);
        id.map(|id| (token.to_string(), id))
            .ok_or_else(|| damaged(vocab, &format!("no {token} in it, as RoBERTa's have")))
    };
    let (cls, sep) = (special("<s>")?, special("</s>")?);
    special("<pad>")?;
    let mut processing = RobertaProcessing::new(sep, cls);
    processing.add_prefix_space = add_prefix_space;
    processing.trim_offsets = true;
    tokenizer.with_post_processor(Some(processing));
    let plain =
        ["<s>", "<pad>", "</s>", "<unk>"].map(|t| AddedToken::from(t, true).normalized(false));
    tokenizer.add_special_tokens(&plain);
    // The mask takes the space before it along.
    let mask = AddedToken::from("<mask>", true).normalized(false).lstrip(true);
    tokenizer.add_special_tokens(&[mask]);
    Ok(tokenizer)
}

//! RoBERTa's byte-level BPE from its `vocab.json` and `merges.txt`.

use super::damaged;
use crate::Result;
use std::path::Path;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, Tokenizer};

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
    tokenizer
        .with_pre_tokenizer(Some(ByteLevel::new(add_prefix_space, true, true)))
        .with_post_processor(Some(processing));
    let plain =
        ["<s>", "<pad>", "</s>", "<unk>"].map(|t| AddedToken::from(t, true).normalized(false));
    tokenizer.add_special_tokens(&plain);
    // The mask takes the space before it along.
    let mask = AddedToken::from("<mask>", true).normalized(false).lstrip(true);
    tokenizer.add_special_tokens(&[mask]);
    Ok(tokenizer)
}

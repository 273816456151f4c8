//! DeBERTa-v2 and v3's tokenizer from their SentencePiece `spm.model`.
//!
//! The file is a protobuf message: pieces with scores, and the table of the normaliser that
//! the model was trained with. What is built of them agrees with SentencePiece itself and with
//! transformers 4. (transformers 5 leaves the normaliser's table out: for `ﬁ`, `Ａ` or `™`
//! it gives other ids than the models were pretrained with.)

use super::{damaged, limits, spm_file};
use crate::Result;
use std::path::Path;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::{Lowercase, Precompiled, Replace, Sequence, Strip};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::pre_tokenizers::sequence::Sequence as PreSequence;
use tokenizers::{
    AddedToken, Model, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer,
};

/// The special tokens, in the order in which a vocabulary without them gets them.
const SPECIAL: [&str; 5] = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"];

/// The tokenizer of `spm.model`; `lowercase` and `split_punctuation` come from the folder's
/// `tokenizer_config.json`.
pub(super) fn read(path: &Path, lowercase: bool, split_punctuation: bool) -> Result<Tokenizer> {
    let damaged = |words: &str| damaged(path, words);
    let (proto, trainer) = spm_file::read(path, spm_file::UNIGRAM)?;
    let pieces: Vec<(String, f64)> =
        proto.pieces.into_iter().map(|p| (p.piece, f64::from(p.score))).collect();
    limits::check_pieces(pieces.iter().map(|(piece, _)| piece.as_str()))
        .map_err(|words| damaged(&words))?;
    let unk = trainer.unknown(path, pieces.len())?;
    let model = Unigram::from(pieces, Some(unk), false).map_err(|e| damaged(&e.to_string()))?;
    let missing: Vec<&str> =
        SPECIAL[..4].iter().filter(|t| model.token_to_id(t).is_none()).copied().collect();
    if !missing.is_empty() {
        return Err(damaged(&format!("it has no piece {}, as DeBERTa's have", missing.join(", "))));
    }

    let charsmap = proto.normalizer.map(|n| n.precompiled_charsmap).unwrap_or_default();
    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    if lowercase {
        normalizers.push(Lowercase.into());
    }
    normalizers.push(Strip::new(true, true).into());
    if !charsmap.is_empty() {
        limits::check_table(path, &charsmap)?;
        let table = Precompiled::from(&charsmap).map_err(|e| damaged(&e.to_string()))?;
        normalizers.push(table.into());
    }
    let spaces = tokenizers::normalizers::replace::ReplacePattern::Regex(" {2,}".into());
    normalizers.push(Replace::new(spaces, " ").map_err(|e| damaged(&e.to_string()))?.into());

    let mut splits: Vec<PreTokenizerWrapper> = Vec::new();
    if split_punctuation {
        splits.push(Punctuation::new(SplitDelimiterBehavior::Isolated).into());
    }
    splits.push(Metaspace::new('▁', PrependScheme::Always, true).into());

    let mut tokenizer = Tokenizer::new(model);
    tokenizer
        .with_normalizer(Some(Sequence::new(normalizers)))
        .with_pre_tokenizer(Some(PreSequence::new(splits)));
    // [MASK] is no piece: it gets the id after the last. In a text, special tokens are themselves;
    // only the unknown token is looked for after normalising, as transformers has it.
    let added = SPECIAL.map(|t| AddedToken::from(t, true).normalized(t == "[UNK]"));
    tokenizer.add_special_tokens(&added);
    Ok(tokenizer)
}

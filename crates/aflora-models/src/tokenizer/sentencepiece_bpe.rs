//! LLaMA's tokenizer from its SentencePiece `tokenizer.model`.
//!
//! A BPE whose merges are not in the file: they are all pairs of pieces that make a piece, the
//! best score first. What has no piece is written as its bytes. Texts get a space before them and
//! `<s>`; nothing else is normalised.

use super::{damaged, limits, spm_file};
use crate::Result;
use std::collections::HashMap;
use std::path::Path;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as DecoderSequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{Prepend, Replace, Sequence};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, NormalizerWrapper, Tokenizer};

/// The tokenizer of `tokenizer.model`.
pub(super) fn read(path: &Path) -> Result<Tokenizer> {
    let damaged = |words: &str| damaged(path, words);
    let (proto, trainer) = spm_file::read(path, spm_file::BPE)?;
    if !trainer.byte_fallback.unwrap_or(false) {
        return Err(damaged("it has no pieces for bytes, as LLaMA's have"));
    }
    let normalizer = proto.normalizer.unwrap_or_default();
    if !normalizer.precompiled_charsmap.is_empty()
        || normalizer.remove_extra_whitespaces.unwrap_or(true)
    {
        return Err(damaged("it normalises texts, which LLaMA's do not"));
    }
    let unk = trainer.unknown(path, proto.pieces.len())?;
    // Every cut of every piece is looked up below.
    limits::check_pieces(path, proto.pieces.iter().map(|p| p.piece.as_str()))?;
    let pieces = &proto.pieces;
    let ids: HashMap<&str, u32> = pieces.iter().map(|p| p.piece.as_str()).zip(0..).collect();
    let vocabulary = ids.iter().map(|(piece, &id)| (piece.to_string(), id));
    let model = BPE::builder()
        .vocab_and_merges(vocabulary.collect::<Vocabulary>(), merges(pieces, &ids))
        .unk_token(pieces[unk].piece.clone())
        .fuse_unk(true)
        .byte_fallback(true)
        .build()
        .map_err(|e| damaged(&e.to_string()))?;

    let replace = |from: &str, to: &str| {
        Replace::new(from.to_string(), to).map_err(|e| damaged(&e.to_string()))
    };
    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    if normalizer.add_dummy_prefix.unwrap_or(true) {
        normalizers.push(Prepend::new("▁".into()).into());
    }
    normalizers.push(replace(" ", "▁")?.into());
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(Sequence::new(normalizers))).with_decoder(Some(
        DecoderSequence::new(vec![
            replace("▁", " ")?.into(),
            ByteFallback::default().into(),
            Fuse::default().into(),
            Strip::new(' ', 1, 0).into(),
        ]),
    ));
    let special: Vec<AddedToken> = pieces
        .iter()
        .filter(|p| matches!(p.kind, Some(spm_file::CONTROL | spm_file::UNKNOWN)))
        .map(|p| AddedToken::from(p.piece.clone(), true).normalized(false))
        .collect();
    tokenizer.add_special_tokens(&special);
    let bos = usize::try_from(trainer.bos_id.unwrap_or(1)).ok().and_then(|id| pieces.get(id));
    if let Some(bos) = bos.map(|p| p.piece.as_str()) {
        let template = TemplateProcessing::builder()
            .try_single(format!("{bos} $A"))
            .map_err(|e| damaged(&e))?
            .special_tokens(vec![(bos.to_string(), ids[bos])])
            .build()
            .map_err(|e| damaged(&e.to_string()))?;
        tokenizer.with_post_processor(Some(template));
    }
    Ok(tokenizer)
}

type Vocabulary = tokenizers::models::bpe::Vocab;

/// All pairs of pieces that make a piece; those of the best-scored piece first.
fn merges(pieces: &[spm_file::Piece], ids: &HashMap<&str, u32>) -> Vec<(String, String)> {
    let mut merges: Vec<(f32, u32, u32)> = Vec::new();
    for piece in pieces {
        let splits = piece.piece.char_indices().skip(1).map(|(i, _)| piece.piece.split_at(i));
        let known = splits.filter_map(|(a, b)| Some((*ids.get(a)?, *ids.get(b)?)));
        let mut own: Vec<(f32, u32, u32)> = known.map(|(a, b)| (piece.score, a, b)).collect();
        own.sort_by_key(|&(_, a, b)| (a, b));
        merges.extend(own);
    }
    // Stable: of equal scores the first piece's come first.
    merges.sort_by(|x, y| y.0.total_cmp(&x.0));
    let name = |id: u32| pieces[id as usize].piece.clone();
    merges.into_iter().map(|(_, a, b)| (name(a), name(b))).collect()
}

//! LLaMA's tokenizer from its SentencePiece `tokenizer.model`.
//!
//! A BPE whose merges are not in the file: they are all pairs of pieces that make a piece, the
//! best score first. What has no piece is written as its bytes. Texts get a space before them and
//! `<s>`; nothing else is normalised.

use super::spm_file::Piece;
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
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, Tokenizer};

/// The tokenizer of `tokenizer.model`.
pub(super) fn read(path: &Path) -> Result<Tokenizer> {
    let PieceModel { pieces, unk, bos, prefix } = read_pieces(path)?;
    of_pieces(&pieces, unk, [bos, None], prefix).map_err(|words| damaged(path, &words))
}

/// What stands in a `tokenizer.model`.
#[derive(Debug)]
pub(crate) struct PieceModel {
    pub pieces: Vec<Piece>,
    /// The places of the unknown piece and of that which stands before a text.
    pub unk: usize,
    pub bos: Option<usize>,
    /// Whether a text gets a space before it.
    pub prefix: bool,
}

/// Reads a `tokenizer.model`.
///
/// # Errors
/// It is damaged, or of another kind than LLaMA's.
pub(crate) fn read_pieces(path: &Path) -> Result<PieceModel> {
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
    let bos = usize::try_from(trainer.bos_id.unwrap_or(1)).ok();
    let bos = bos.filter(|bos| *bos < proto.pieces.len());
    let prefix = normalizer.add_dummy_prefix.unwrap_or(true);
    let mut pieces = proto.pieces;
    for own in pieces.iter_mut().filter(|piece| piece.kind == Some(spm_file::USER_DEFINED)) {
        // They are found in a text before its spaces are written as ▁.
        own.piece = own.piece.replace('▁', " ");
    }
    Ok(PieceModel { pieces, unk, bos, prefix })
}

/// The tokenizer of these pieces, by the places of the unknown one and of those that stand before and
/// behind a text; with `prefix`, a text gets a space before it.
///
/// # Errors
/// A piece is too long, or they are no vocabulary.
pub(crate) fn of_pieces(
    pieces: &[Piece],
    unk: usize,
    around: [Option<usize>; 2],
    prefix: bool,
) -> std::result::Result<Tokenizer, String> {
    // Every cut of every piece is looked up below.
    limits::check_pieces(pieces.iter().map(|p| p.piece.as_str()))?;
    let ids: HashMap<&str, u32> = pieces.iter().map(|p| p.piece.as_str()).zip(0..).collect();
    let vocabulary = ids.iter().map(|(piece, &id)| (piece.to_string(), id));
    let model = BPE::builder()
        .vocab_and_merges(vocabulary.collect::<Vocabulary>(), merges(pieces))
        .unk_token(pieces[unk].piece.clone())
        .fuse_unk(true)
        .byte_fallback(true)
        .build()
        .map_err(|e| e.to_string())?;

    let replace =
        |from: &str, to: &str| Replace::new(from.to_string(), to).map_err(|e| e.to_string());
    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    let mut decoders: Vec<DecoderWrapper> =
        vec![replace("▁", " ")?.into(), ByteFallback::default().into(), Fuse::default().into()];
    if prefix {
        normalizers.push(Prepend::new("▁".into()).into());
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    normalizers.push(replace(" ", "▁")?.into());
    let mut tokenizer = Tokenizer::new(model);
    tokenizer
        .with_normalizer(Some(Sequence::new(normalizers)))
        .with_decoder(Some(DecoderSequence::new(decoders)));
    let added = |kinds: &[i32], special: bool| -> Vec<AddedToken> {
        let of_kind = pieces.iter().filter(|p| p.kind.is_some_and(|kind| kinds.contains(&kind)));
        of_kind.map(|p| AddedToken::from(p.piece.clone(), special).normalized(false)).collect()
    };
    tokenizer.add_special_tokens(&added(&[spm_file::CONTROL, spm_file::UNKNOWN], true));
    tokenizer.add_tokens(&added(&[spm_file::USER_DEFINED], false));
    let [first, last] = around.map(|place| place.map(|place| pieces[place].piece.as_str()));
    if first.is_some() || last.is_some() {
        let mut special: Vec<(String, u32)> =
            first.iter().chain(&last).map(|piece| (piece.to_string(), ids[*piece])).collect();
        special.dedup();
        let single: Vec<&str> = first.into_iter().chain(["$A"]).chain(last).collect();
        let template = TemplateProcessing::builder()
            .try_single(single)?
            .special_tokens(special)
            .build()
            .map_err(|e| e.to_string())?;
        tokenizer.with_post_processor(Some(template));
    }
    Ok(tokenizer)
}

type Vocabulary = tokenizers::models::bpe::Vocab;

/// All pairs of pieces that make a piece; those of the best-scored piece first.
pub(crate) fn merges(pieces: &[Piece]) -> Vec<(String, String)> {
    let ids: HashMap<&str, u32> = pieces.iter().map(|p| p.piece.as_str()).zip(0..).collect();
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

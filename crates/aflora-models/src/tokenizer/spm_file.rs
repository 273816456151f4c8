//! SentencePiece's model file: a protobuf message of pieces with scores, how it was trained, and
//! how texts are normalised.

use super::damaged;
use crate::Result;
use prost::Message;
use std::path::Path;

/// sentencepiece_model.proto, as far as it is needed.
#[derive(Message)]
pub(super) struct ModelProto {
    #[prost(message, repeated, tag = "1")]
    pub pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    pub trainer: Option<TrainerSpec>,
    #[prost(message, optional, tag = "3")]
    pub normalizer: Option<NormalizerSpec>,
}

#[derive(Message)]
pub(crate) struct Piece {
    #[prost(string, tag = "1")]
    pub piece: String,
    #[prost(float, tag = "2")]
    pub score: f32,
    /// [`CONTROL`], [`BYTE`] and others; a plain piece if not given.
    #[prost(int32, optional, tag = "3")]
    pub kind: Option<i32>,
}

/// A piece that stands for no text, such as `<s>`.
pub(super) const CONTROL: i32 = 3;
/// The unknown piece.
pub(super) const UNKNOWN: i32 = 2;
/// A piece that is found in a text before anything else is.
pub(super) const USER_DEFINED: i32 = 4;

#[derive(Message)]
pub(super) struct TrainerSpec {
    /// [`UNIGRAM`] if not given.
    #[prost(int32, optional, tag = "3")]
    pub model_type: Option<i32>,
    #[prost(bool, optional, tag = "35")]
    pub byte_fallback: Option<bool>,
    #[prost(int32, optional, tag = "40")]
    pub unk_id: Option<i32>,
    #[prost(int32, optional, tag = "41")]
    pub bos_id: Option<i32>,
}

pub(super) const UNIGRAM: i32 = 1;
pub(super) const BPE: i32 = 2;

#[derive(Message)]
pub(super) struct NormalizerSpec {
    #[prost(bytes = "vec", tag = "2")]
    pub precompiled_charsmap: Vec<u8>,
    #[prost(bool, optional, tag = "3")]
    pub add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    pub remove_extra_whitespaces: Option<bool>,
}

/// Reads a file that must hold a model of this kind.
pub(super) fn read(path: &Path, kind: i32) -> Result<(ModelProto, TrainerSpec)> {
    let bytes = aflora_files::read(path).map_err(crate::Error::io(path))?;
    let mut proto = ModelProto::decode(&bytes[..])
        .map_err(|e| damaged(path, &format!("not a SentencePiece model: {e}")))?;
    let trainer =
        proto.trainer.take().ok_or_else(|| damaged(path, "it does not say what kind it is"))?;
    match (trainer.model_type.unwrap_or(UNIGRAM), kind) {
        (found, wanted) if found == wanted => Ok((proto, trainer)),
        (_, UNIGRAM) => Err(damaged(path, "it is no unigram model, as DeBERTa's are")),
        _ => Err(damaged(path, "it is no BPE model, as LLaMA's are")),
    }
}

impl TrainerSpec {
    /// The unknown piece, one of so many.
    pub(super) fn unknown(&self, path: &Path, pieces: usize) -> Result<usize> {
        let unk = usize::try_from(self.unk_id.unwrap_or(0)).unwrap_or(usize::MAX);
        if unk >= pieces {
            let words = format!("its unknown token {unk} is none of {pieces} pieces");
            return Err(damaged(path, &words));
        }
        Ok(unk)
    }
}

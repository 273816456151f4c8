//! The normaliser, the pre-tokenizer and the decoder that a class makes by its settings.

use super::settings::{Class, TokenizerSettings};
use crate::Result;
use std::path::Path;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as DecoderSequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::normalizers::{
    BertNormalizer, Lowercase, Precompiled, Replace, Sequence, StripAccents, NFKD,
};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::pre_tokenizers::sequence::Sequence as PreSequence;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::{
    DecoderWrapper, Model, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper,
    SplitDelimiterBehavior, Tokenizer,
};

/// Gives `tokenizer` the parts of its class by the settings in `folder`; those of a class that has
/// none of its own stay.
pub(super) fn make(
    class: Class,
    tokenizer: &mut Tokenizer,
    folder: &Path,
    settings: &TokenizerSettings,
    from_json: bool,
) -> Result<()> {
    let flag =
        |key: &str, default: bool| settings.flag(folder, key).map(|said| said.unwrap_or(default));
    match class {
        Class::Bert | Class::Mpnet => {
            let normalizer = BertNormalizer::new(
                true,
                flag("tokenize_chinese_chars", true)?,
                settings.flag(folder, "strip_accents")?,
                flag("do_lower_case", true)?,
            );
            tokenizer
                .with_normalizer(Some(normalizer))
                .with_pre_tokenizer(Some(BertPreTokenizer))
                .with_decoder(Some(WordPieceDecoder::default()));
            unknown(tokenizer, settings);
        }
        Class::Roberta | Class::Gpt2 | Class::DebertaV1 => {
            let space = flag("add_prefix_space", false)?;
            tokenizer
                .with_normalizer(None::<NormalizerWrapper>)
                .with_pre_tokenizer(Some(ByteLevel::new(space, true, true)))
                .with_decoder(Some(ByteLevel::default()));
        }
        Class::Llama if from_json => {
            let space = flag("add_prefix_space", puts_a_mark(tokenizer))?;
            let scheme = match (space, flag("legacy", false)?) {
                (false, _) => PrependScheme::Never,
                (true, true) => PrependScheme::Always,
                (true, false) => PrependScheme::First,
            };
            let mut decoders: Vec<DecoderWrapper> =
                vec![replace("▁", " ")?, ByteFallback::default().into(), Fuse::default().into()];
            if space {
                decoders.push(Strip::new(' ', 1, 0).into());
            }
            tokenizer
                .with_normalizer(None::<NormalizerWrapper>)
                .with_pre_tokenizer(Some(Metaspace::new('▁', scheme, false)))
                .with_decoder(Some(DecoderSequence::new(decoders)));
        }
        Class::Albert => {
            let mut normalizers = vec![replace("``", "\"")?, replace("''", "\"")?];
            if !flag("keep_accents", false)? {
                normalizers.extend([NFKD.into(), StripAccents.into()]);
            }
            if flag("do_lower_case", true)? {
                normalizers.push(Lowercase.into());
            }
            normalizers.extend(table(tokenizer).map(NormalizerWrapper::from));
            tokenizer.with_normalizer(Some(Sequence::new(normalizers)));
            words_of_pieces(tokenizer, flag("add_prefix_space", true)?);
        }
        Class::XlmRoberta => {
            let table = table(tokenizer);
            tokenizer.with_normalizer(table);
            words_of_pieces(tokenizer, flag("add_prefix_space", true)?);
        }
        Class::Deberta if from_json => {
            // The rest of its normaliser is SentencePiece's own.
            let lowers = |step: &NormalizerWrapper| matches!(step, NormalizerWrapper::Lowercase(_));
            let mut steps = normalizers(tokenizer.get_normalizer());
            let lower = flag("do_lower_case", false)?;
            if steps.iter().any(lowers) != lower {
                steps.retain(|step| !lowers(step));
                steps.splice(..0, lower.then(|| Lowercase.into()));
                tokenizer.with_normalizer(Some(Sequence::new(steps)));
            }
            let splits =
                |step: &PreTokenizerWrapper| matches!(step, PreTokenizerWrapper::Punctuation(_));
            let mut steps = pre_tokenizers(tokenizer.get_pre_tokenizer());
            let split = flag("split_by_punct", false)?;
            if steps.iter().any(splits) != split {
                let isolated = Punctuation::new(SplitDelimiterBehavior::Isolated);
                steps.retain(|step| !splits(step));
                steps.splice(..0, split.then(|| isolated.into()));
                tokenizer.with_pre_tokenizer(Some(PreSequence::new(steps)));
            }
        }
        Class::Llama | Class::Deberta | Class::Plain => {}
    }
    Ok(())
}

/// Whether texts are cut by bytes alone, as GPT-2 and its kin do, and not normalised.
pub(super) fn are_bytes(tokenizer: &Tokenizer) -> bool {
    let is_bytes = |step: &PreTokenizerWrapper| match step {
        PreTokenizerWrapper::ByteLevel(bytes) => bytes.use_regex,
        _ => false,
    };
    let steps = pre_tokenizers(tokenizer.get_pre_tokenizer());
    tokenizer.get_normalizer().is_none() && !steps.is_empty() && steps.iter().all(is_bytes)
}

/// Whether all that is done to texts is what LLaMA does: spaces become marks.
pub(super) fn are_marks(tokenizer: &Tokenizer) -> bool {
    let normalizers = normalizers(tokenizer.get_normalizer());
    let pre_tokenizers = pre_tokenizers(tokenizer.get_pre_tokenizer());
    let marks = |step: &NormalizerWrapper| match step {
        NormalizerWrapper::Prepend(_) => true,
        NormalizerWrapper::Replace(replace) => replace.content == "▁",
        _ => false,
    };
    let spaces = |step: &PreTokenizerWrapper| matches!(step, PreTokenizerWrapper::Metaspace(_));
    normalizers.iter().all(marks) && pre_tokenizers.iter().all(spaces)
}

/// Whether LLaMA's tokenizer.json puts a mark before a text.
fn puts_a_mark(tokenizer: &Tokenizer) -> bool {
    let prepends = |step: &NormalizerWrapper| matches!(step, NormalizerWrapper::Prepend(_));
    let begins = |step: &PreTokenizerWrapper| match step {
        PreTokenizerWrapper::Metaspace(marks) => marks.prepend_scheme != PrependScheme::Never,
        _ => false,
    };
    normalizers(tokenizer.get_normalizer()).iter().any(prepends)
        || pre_tokenizers(tokenizer.get_pre_tokenizer()).iter().any(begins)
}

/// Lets words that no pieces make become the token that the settings name, if they name one.
fn unknown(tokenizer: &mut Tokenizer, settings: &TokenizerSettings) {
    let named = settings.named().find(|(name, _)| *name == "unk_token");
    let (Some((_, named)), ModelWrapper::WordPiece(model)) = (named, tokenizer.get_model()) else {
        return;
    };
    if model.unk_token != named.content && model.token_to_id(&named.content).is_some() {
        let mut model = model.clone();
        model.unk_token.clone_from(&named.content);
        tokenizer.with_model(model);
    }
}

/// Words at spaces, each with a mark before it: as SentencePiece's unigram models of the BERT kind
/// have them.
fn words_of_pieces(tokenizer: &mut Tokenizer, marked: bool) {
    let scheme = if marked { PrependScheme::Always } else { PrependScheme::Never };
    let mark = Metaspace::new('▁', scheme, true);
    tokenizer
        .with_pre_tokenizer(Some(PreSequence::new(vec![
            WhitespaceSplit.into(),
            mark.clone().into(),
        ])))
        .with_decoder(Some(mark));
}

/// SentencePiece's own table of a tokenizer.json, which no setting says.
fn table(tokenizer: &Tokenizer) -> Option<Precompiled> {
    normalizers(tokenizer.get_normalizer()).into_iter().find_map(|step| match step {
        NormalizerWrapper::Precompiled(table) => Some(table),
        _ => None,
    })
}

/// The steps of a normaliser, whatever sequences they stand in.
fn normalizers(part: Option<&NormalizerWrapper>) -> Vec<NormalizerWrapper> {
    match part {
        Some(NormalizerWrapper::Sequence(list)) => {
            list.as_ref().iter().flat_map(|step| normalizers(Some(step))).collect()
        }
        part => part.cloned().into_iter().collect(),
    }
}

/// The steps of a pre-tokenizer, whatever sequences they stand in.
fn pre_tokenizers(part: Option<&PreTokenizerWrapper>) -> Vec<PreTokenizerWrapper> {
    match part {
        Some(PreTokenizerWrapper::Sequence(list)) => {
            list.as_ref().iter().flat_map(|step| pre_tokenizers(Some(step))).collect()
        }
        part => part.cloned().into_iter().collect(),
    }
}

fn replace<T: From<Replace>>(from: &str, to: &str) -> Result<T> {
    let made = Replace::new(from.to_string(), to);
    made.map(T::from).map_err(|e| crate::Error::Encode(e.to_string()))
}

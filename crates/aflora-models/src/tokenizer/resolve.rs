//! A folder's tokenizer out of all its files, as transformers 5's fast classes put it together.
//!
//! The vocabulary comes from the first of [`VOCABULARIES`](super::VOCABULARIES) that there is. A
//! class with settings of its own ([`Class`]) then has its own normaliser and pre-tokenizer, by
//! those settings and not by the tokenizer.json (`parts`); any other tokenizer.json is taken as it
//! is, and of settings that do not count there we warn (`unmet`). What differs from transformers 5,
//! which gives other ids there than the models were pretrained with:
//! SentencePiece's own normalising is kept (`spm.model`, `tokenizer.model`, and a tokenizer.json
//! made of them), a tokenizer.json that cuts texts otherwise than the class that its settings name is
//! taken as it is, LLaMA's texts begin with `<s>` unless it is said that they do not, and a padding
//! or default token that a vocabulary lacks does not get an id that the model has no embedding for.

use super::settings::{Class, TokenizerSettings};
use super::{
    byte_bpe, damaged, limits, parts, sentencepiece, sentencepiece_bpe, unmet, VOCABULARIES,
};
use crate::{model_file, Error, Result};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, ModelWrapper, Tokenizer};

/// Files that hold a vocabulary, too: Mistral's, T5's and ALBERT's, and LLaMA 3's.
const UNREAD: [&str; 3] = ["tekken.json", "spiece.model", "tiktoken.model"];

/// The folder's tokenizer, and the settings beside it.
pub(super) fn read(folder: &Path) -> Result<(Tokenizer, TokenizerSettings)> {
    let [json, spm, llama, bpe, merges, words] = VOCABULARIES.map(|name| folder.join(name));
    let settings = TokenizerSettings::read(folder)?;
    let flag = |key: &str| settings.flag(folder, key);
    let (tokenizer, class, from_json) = if model_file::is_there(&json) {
        let text = model_file::read_text(&json)?;
        limits::check(&json, &text)?;
        let tokenizer = Tokenizer::from_str(&text).map_err(|e| damaged(&json, &e.to_string()))?;
        limits::check_model(&json, tokenizer.get_model())?;
        let class = settings.class_beside_json();
        let class = class.filter(|&class| fits(class, &tokenizer)).unwrap_or(Class::Plain);
        (tokenizer, class, true)
    } else if spm.is_file() {
        let lowercase = flag("do_lower_case")?.unwrap_or(false);
        let split = flag("split_by_punct")?.unwrap_or(false);
        (sentencepiece::read(&spm, lowercase, split)?, Class::Deberta, false)
    } else if llama.is_file() {
        (sentencepiece_bpe::read(&llama)?, Class::Llama, false)
    } else if bpe.is_file() && merges.is_file() {
        let tokenizer = byte_bpe::read(&bpe, &merges)?;
        let byte_level = |c: &Class| matches!(c, Class::Roberta | Class::Gpt2 | Class::DebertaV1);
        let class = settings.class.filter(byte_level);
        let class = class.unwrap_or_else(|| byte_bpe::class(&tokenizer));
        (tokenizer, class, false)
    } else if words.is_file() {
        let class = settings.class.filter(|&class| class == Class::Mpnet);
        (word_piece(&words, &settings)?, class.unwrap_or(Class::Bert), false)
    } else {
        let unread = UNREAD.into_iter().find(|name| folder.join(name).is_file());
        return Err(Error::NoTokenizer { path: folder.to_path_buf(), unread });
    };
    let file = [json, spm, llama, bpe, words].into_iter().find(|path| model_file::is_there(path));
    let mut made =
        Made { tokenizer, folder, file: file.unwrap_or_default(), settings: &settings, from_json };
    if !from_json {
        settings.warn_of_class(folder, &made.file, class);
    }
    parts::make(class, &mut made.tokenizer, folder, &settings, from_json)?;
    made.add(class)?;
    made.around(class)?;
    made.tokenizer
        .set_encode_special_tokens(settings.flag(folder, "split_special_tokens")?.unwrap_or(false));
    unmet::warn(folder, &settings, &made.file, &made.tokenizer)?;
    Ok((made.tokenizer, settings))
}

/// Whether a tokenizer.json is of the class's kind; a sentence encoder of BERT's type may well have a
/// SentencePiece vocabulary.
fn fits(class: Class, tokenizer: &Tokenizer) -> bool {
    match (class, tokenizer.get_model()) {
        (Class::Bert | Class::Mpnet, ModelWrapper::WordPiece(_)) => true,
        // SmolLM's names GPT-2's class, and cuts numbers into digits.
        (Class::Roberta | Class::Gpt2 | Class::DebertaV1, ModelWrapper::BPE(_)) => {
            parts::are_bytes(tokenizer)
        }
        // LLaMA 3's names LLaMA's class, and is another.
        (Class::Llama, ModelWrapper::BPE(_)) => parts::are_marks(tokenizer),
        (Class::Deberta | Class::Albert | Class::XlmRoberta, ModelWrapper::Unigram(_)) => true,
        _ => false,
    }
}

/// BERT's vocabulary, one token a line.
fn word_piece(vocab: &Path, settings: &TokenizerSettings) -> Result<Tokenizer> {
    let damaged = |words: &str| damaged(vocab, words);
    let path = vocab.to_str().ok_or_else(|| damaged("its path is not UTF-8"))?;
    let unknown = settings.token("unk_token", "[UNK]").map_or("[UNK]".into(), |t| t.content);
    let model = WordPiece::from_file(path)
        .unk_token(unknown)
        .build()
        .map_err(|e| damaged(&e.to_string()))?;
    Ok(Tokenizer::new(model))
}

/// A tokenizer in the making.
struct Made<'a> {
    tokenizer: Tokenizer,
    folder: &'a Path,
    /// The file of its vocabulary.
    file: PathBuf,
    settings: &'a TokenizerSettings,
    from_json: bool,
}

impl Made<'_> {
    fn damaged(&self, words: &str) -> Error {
        damaged(&self.file, words)
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.settings.flag(self.folder, key)
    }

    /// Adds the tokens that are none of the vocabulary's, and makes special ones special.
    fn add(&mut self, class: Class) -> Result<()> {
        let settings = self.settings;
        let mut tokens: Vec<AddedToken> = settings.added.values().cloned().collect();
        let known = self.tokenizer.get_added_tokens_decoder();
        let mut known: Vec<String> = known.into_values().map(|token| token.content).collect();
        known.extend(tokens.iter().map(|token| token.content.clone()));
        let mut add = |token: AddedToken, tokens: &mut Vec<AddedToken>| {
            if !known.contains(&token.content) {
                known.push(token.content.clone());
                tokens.push(token);
            }
        };
        for &(name, content) in defaults(class) {
            let Some(token) = settings.token(name, content) else { continue };
            // RoBERTa's mask, and its kin's, takes the space before it along.
            let takes_space = matches!(
                class,
                Class::Roberta | Class::Mpnet | Class::XlmRoberta | Class::DebertaV1
            ) && name == "mask_token";
            let token = if takes_space && !self.from_json { token.lstrip(true) } else { token };
            if self.tokenizer.token_to_id(&token.content).is_some() {
                add(token, &mut tokens);
            }
        }
        for (name, token) in settings.named() {
            if name != "pad_token" || self.tokenizer.token_to_id(&token.content).is_some() {
                add(token.clone(), &mut tokens);
            }
        }
        settings.extra.iter().for_each(|token| add(token.clone(), &mut tokens));
        self.tokenizer.add_tokens(&tokens);
        if !self.from_json {
            for (&id, token) in &settings.added {
                let found = self.tokenizer.token_to_id(&token.content);
                if found != Some(id) {
                    return Err(self.damaged(&format!(
                        "the added token `{}` should have the id {id}, but is number {} behind the \
                         vocabulary; ids of added tokens follow it without a gap",
                        token.content,
                        found.map_or("none".into(), |id| id.to_string())
                    )));
                }
            }
        }
        Ok(())
    }

    /// What stands around a text.
    fn around(&mut self, class: Class) -> Result<()> {
        let names = match class {
            Class::Bert | Class::DebertaV1 | Class::Deberta => {
                [("cls_token", "[CLS]"), ("sep_token", "[SEP]")]
            }
            // ALBERT's special tokens are put there only where the file has no post-processor.
            Class::Albert if self.tokenizer.get_post_processor().is_none() => {
                [("cls_token", "[CLS]"), ("sep_token", "[SEP]")]
            }
            Class::Roberta | Class::Mpnet => [("cls_token", "<s>"), ("sep_token", "</s>")],
            Class::XlmRoberta => [("bos_token", "<s>"), ("eos_token", "</s>")],
            Class::Gpt2 | Class::Llama | Class::Albert | Class::Plain => {
                return self.begin_and_end(class)
            }
        };
        let [first, last] = names.map(|(name, default)| self.special(name, default));
        let (first, last) = (first?, last?);
        if matches!(class, Class::Roberta | Class::Mpnet) {
            self.special("pad_token", "<pad>")?;
            let mut processing = RobertaProcessing::new(last, first);
            processing.add_prefix_space = self.flag("add_prefix_space")?.unwrap_or(false);
            processing.trim_offsets = self.flag("trim_offsets")?.unwrap_or(true);
            self.tokenizer.with_post_processor(Some(processing));
            return Ok(());
        }
        if class == Class::Bert && !self.from_json {
            self.special("unk_token", "[UNK]")?;
        }
        let (open, close) = (first.0.as_str(), last.0.as_str());
        let closed = format!("{close}:1");
        let pair = match class {
            Class::XlmRoberta => vec![open, "$A", close, close, "$B", close],
            _ => vec![open, "$A", close, "$B:1", &closed],
        };
        self.template(&[open, "$A", close], &pair, vec![first.clone(), last.clone()])
    }

    /// `add_bos_token` and `add_eos_token`, which count where there is no tokenizer.json.
    fn begin_and_end(&mut self, class: Class) -> Result<()> {
        let (bos, eos) = (self.flag("add_bos_token")?, self.flag("add_eos_token")?);
        // LLaMA's vocabulary has its own beginning already.
        if self.from_json || (class == Class::Llama && bos.is_none() && eos.is_none()) {
            return Ok(());
        }
        let (first, last) = match class {
            Class::Llama => ("<s>", "</s>"),
            _ => (byte_bpe::GPT2_END, byte_bpe::GPT2_END),
        };
        let bos = match bos.unwrap_or(class == Class::Llama) {
            true => Some(self.special("bos_token", first)?),
            false => None,
        };
        let eos = match eos.unwrap_or(false) {
            true => Some(self.special("eos_token", last)?),
            false => None,
        };
        let second =
            |token: &Option<(String, u32)>| token.as_ref().map(|(token, _)| format!("{token}:1"));
        let first = |token: &Option<(String, u32)>| token.as_ref().map(|(token, _)| token.clone());
        let single: Vec<String> =
            [first(&bos), Some("$A".into()), first(&eos)].into_iter().flatten().collect();
        let behind = [second(&bos), Some("$B:1".into()), second(&eos)].into_iter().flatten();
        let pair: Vec<String> = single.iter().cloned().chain(behind).collect();
        let single: Vec<&str> = single.iter().map(String::as_str).collect();
        let pair: Vec<&str> = pair.iter().map(String::as_str).collect();
        self.template(&single, &pair, [bos, eos].into_iter().flatten().collect())
    }

    fn template(
        &mut self,
        single: &[&str],
        pair: &[&str],
        mut special: Vec<(String, u32)>,
    ) -> Result<()> {
        special.dedup();
        let template = TemplateProcessing::builder()
            .try_single(single.to_vec())
            .and_then(|builder| builder.try_pair(pair.to_vec()))
            .map_err(|e| self.damaged(&e))?
            .special_tokens(special)
            .build()
            .map_err(|e| self.damaged(&e.to_string()))?;
        self.tokenizer.with_post_processor(Some(template));
        Ok(())
    }

    /// A special token that the class cannot do without.
    fn special(&self, name: &str, default: &str) -> Result<(String, u32)> {
        let token = self.settings.token(name, default).map(|token| token.content);
        let token = token.ok_or_else(|| self.damaged(&format!("its settings have no {name}")))?;
        match self.tokenizer.token_to_id(&token) {
            Some(id) => Ok((token, id)),
            None => Err(self.damaged(&format!("no {token} in it"))),
        }
    }
}

/// The special tokens of a class where no file names others.
fn defaults(class: Class) -> &'static [(&'static str, &'static str)] {
    match class {
        Class::Bert => &[
            ("unk_token", "[UNK]"),
            ("sep_token", "[SEP]"),
            ("pad_token", "[PAD]"),
            ("cls_token", "[CLS]"),
            ("mask_token", "[MASK]"),
        ],
        Class::DebertaV1 => &[
            ("bos_token", "[CLS]"),
            ("eos_token", "[SEP]"),
            ("unk_token", "[UNK]"),
            ("sep_token", "[SEP]"),
            ("pad_token", "[PAD]"),
            ("cls_token", "[CLS]"),
            ("mask_token", "[MASK]"),
        ],
        Class::Albert => &[
            ("bos_token", "[CLS]"),
            ("eos_token", "[SEP]"),
            ("unk_token", "<unk>"),
            ("sep_token", "[SEP]"),
            ("pad_token", "<pad>"),
            ("cls_token", "[CLS]"),
            ("mask_token", "[MASK]"),
        ],
        Class::Mpnet => &[
            ("bos_token", "<s>"),
            ("eos_token", "</s>"),
            ("unk_token", "[UNK]"),
            ("sep_token", "</s>"),
            ("pad_token", "<pad>"),
            ("cls_token", "<s>"),
            ("mask_token", "<mask>"),
        ],
        Class::Roberta | Class::XlmRoberta => &[
            ("bos_token", "<s>"),
            ("eos_token", "</s>"),
            ("unk_token", "<unk>"),
            ("sep_token", "</s>"),
            ("pad_token", "<pad>"),
            ("cls_token", "<s>"),
            ("mask_token", "<mask>"),
        ],
        Class::Gpt2 => &[
            ("bos_token", byte_bpe::GPT2_END),
            ("eos_token", byte_bpe::GPT2_END),
            ("unk_token", byte_bpe::GPT2_END),
        ],
        // The readers of SentencePiece's files know theirs.
        Class::Llama | Class::Deberta | Class::Plain => &[],
    }
}

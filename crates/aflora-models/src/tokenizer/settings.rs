//! What stands beside a vocabulary: tokenizer_config.json, special_tokens_map.json,
//! added_tokens.json, and the class that config.json names or its model type has.
//!
//! Which file says what is as in transformers 5: where tokenizer_config.json has
//! `added_tokens_decoder`, the two older files are not read; else special_tokens_map.json comes
//! before tokenizer_config.json, and added_tokens.json names what was added.

use super::damaged;
use crate::{json, said, Result};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;
use tokenizers::{AddedToken, ModelWrapper, TruncationDirection};

/// The tokens with a name, in the order in which new ones are added.
const NAMED: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Where special tokens without a name are listed: the old key, and transformers 5's.
const EXTRA: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

/// How a tokenizer is put together, by the class that transformers has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// BERT's word pieces.
    Bert,
    /// MPNet's word pieces, with RoBERTa's tokens around a text.
    Mpnet,
    /// RoBERTa's and BART's byte-level BPE, with `<s>` and `</s>` around a text.
    Roberta,
    /// GPT-2's byte-level BPE.
    Gpt2,
    /// LLaMA's BPE with a mark for spaces.
    Llama,
    /// DeBERTa-v1's byte-level BPE, with BERT's tokens around a text.
    DebertaV1,
    /// DeBERTa-v2's unigram pieces.
    Deberta,
    /// ALBERT's unigram pieces.
    Albert,
    /// XLM-RoBERTa's and CamemBERT's unigram pieces.
    XlmRoberta,
    /// As its tokenizer.json says.
    Plain,
}

impl Class {
    /// The tokens with a name that a writer's class has where no file says another.
    pub(super) fn usual_tokens(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Class::Gpt2 => &[
                ("bos_token", "<|endoftext|>"),
                ("eos_token", "<|endoftext|>"),
                ("unk_token", "<|endoftext|>"),
            ],
            Class::Llama => &[("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")],
            _ => &[],
        }
    }

    /// Whose it is, in words.
    fn whose(self) -> &'static str {
        match self {
            Class::Bert => "BERT's",
            Class::Mpnet => "MPNet's",
            Class::Roberta => "RoBERTa's",
            Class::Gpt2 => "GPT-2's",
            Class::Llama => "LLaMA's",
            Class::DebertaV1 => "DeBERTa-v1's",
            Class::Deberta => "DeBERTa's",
            Class::Albert => "ALBERT's",
            Class::XlmRoberta => "XLM-RoBERTa's",
            Class::Plain => "it is",
        }
    }
}

/// What the files beside a vocabulary say.
#[derive(Debug, Default)]
pub(super) struct TokenizerSettings {
    keys: Map<String, Value>,
    /// Tokens with a name, by it; none of them where a file says null.
    named: BTreeMap<&'static str, Option<AddedToken>>,
    /// Special tokens beyond those with a name.
    pub extra: Vec<AddedToken>,
    /// Tokens beyond the vocabulary, by their ids.
    pub added: BTreeMap<u32, AddedToken>,
    /// What transformers would make of the folder; none if nothing says it.
    pub class: Option<Class>,
    /// Whether the model is one whose tokenizer.json transformers takes as it is, whatever class its
    /// settings name.
    as_it_is: bool,
    /// The class by its name in transformers, and the file that names it.
    pub class_name: Option<(&'static str, String)>,
}

impl TokenizerSettings {
    /// Reads the tokenizer's settings from the files in `folder`.
    ///
    /// # Errors
    /// A file is damaged, or a setting has a value that it cannot have.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let mut keys = object(folder, "tokenizer_config.json")?;
        let model = object(folder, "config.json")?;
        let word = |keys: &Map<String, Value>, key: &str| {
            keys.get(key).and_then(Value::as_str).map(str::to_string)
        };
        let class_name = [("tokenizer_config.json", &keys), ("config.json", &model)]
            .into_iter()
            .find_map(|(file, keys)| Some((file, word(keys, "tokenizer_class")?)));
        let class = match &class_name {
            Some((_, name)) => Some(class_of(name.trim_end_matches("Fast"))),
            None => word(&model, "model_type").map(|kind| class_of_model(&kind)),
        };
        // Mistral's and Phi-3's name LLaMA's, and have other words.
        let as_it_is = word(&model, "model_type")
            .is_some_and(|kind| ["mistral", "modernbert", "phi3"].contains(&kind.as_str()));

        let mut added = BTreeMap::new();
        let decoder = keys.remove("added_tokens_decoder");
        if let Some(decoder) = decoder.as_ref().filter(|value| !value.is_null()) {
            let problem = |words: &str| damaged(&folder.join("tokenizer_config.json"), words);
            let decoder = decoder
                .as_object()
                .ok_or_else(|| problem("`added_tokens_decoder` must map ids to tokens"))?;
            for (id, value) in decoder {
                let number = id.parse::<u32>().ok();
                let token = number.zip(token(value, false)).ok_or_else(|| {
                    problem(&format!("`added_tokens_decoder` has no token for `{id}`"))
                })?;
                added.insert(token.0, token.1);
            }
        } else {
            let mut map = object(folder, "special_tokens_map.json")?;
            let listed = |key: &str| keys.get(key).is_some_and(|value| !value.is_null());
            if EXTRA.into_iter().any(listed) {
                map.remove(EXTRA[0]);
            }
            keys.extend(map);
        }
        let mut settings =
            TokenizerSettings { keys, class, as_it_is, class_name, ..TokenizerSettings::default() };
        settings.names(folder)?;
        if decoder.is_none() {
            for (content, id) in object(folder, "added_tokens.json")? {
                let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
                    let words = format!("`{content}` has the id {id}, which is no token's");
                    damaged(&folder.join("added_tokens.json"), &words)
                })?;
                let special = settings.special().any(|token| token.content == content);
                added.insert(id, AddedToken::from(content, special).normalized(!special));
            }
        }
        // The list of added tokens knows more of a token than its bare name.
        for token in settings.named.values_mut().flatten().chain(&mut settings.extra) {
            match added.values_mut().find(|known| known.content == token.content) {
                Some(known) => {
                    known.special = true;
                    *token = known.clone();
                }
                None => token.special = true,
            }
        }
        settings.added = added;
        Ok(settings)
    }

    /// What transformers would make of a tokenizer.json; none if nothing says it.
    pub(super) fn class_beside_json(&self) -> Option<Class> {
        self.class.filter(|_| !self.as_it_is)
    }

    /// Warns where a file names another class than the one that its vocabulary, no tokenizer.json,
    /// is read as.
    pub(super) fn warn_of_class(&self, folder: &Path, vocabulary: &Path, class: Class) {
        let Some((file, name)) = self.class_name.as_ref().filter(|_| self.class != Some(class))
        else {
            return;
        };
        let vocabulary = vocabulary.file_name().unwrap_or_default().to_string_lossy();
        let words = format!(
            "`tokenizer_class` is `{name}`, which is not built of a {vocabulary}: it is read as {}",
            class.whose()
        );
        said::warn(&folder.join(file), &words);
    }

    /// Picks the special tokens out of the keys.
    fn names(&mut self, folder: &Path) -> Result<()> {
        let problem = |key: &str, value: &Value| {
            let words = format!("`{key}` is {value}, but must be a token");
            damaged(&folder.join("tokenizer_config.json"), &words)
        };
        for (key, value) in &self.keys {
            let name = NAMED.into_iter().find(|name| name == key);
            match (name, value) {
                (Some(name), Value::Null) => {
                    self.named.insert(name, None);
                }
                (Some(name), value) => {
                    let token = token(value, true).ok_or_else(|| problem(key, value))?;
                    self.named.insert(name, Some(token));
                }
                // A model's own, such as `image_token`.
                (None, Value::String(content)) if key.ends_with("_token") => {
                    self.extra.push(AddedToken::from(content.clone(), true).normalized(false));
                }
                _ => {}
            }
        }
        for key in EXTRA {
            let tokens: Vec<&Value> = match self.keys.get(key) {
                Some(Value::Array(list)) => list.iter().collect(),
                Some(Value::Object(by_name)) => by_name.values().collect(),
                _ => continue,
            };
            for value in tokens {
                self.extra.push(token(value, true).ok_or_else(|| problem(key, value))?);
            }
        }
        Ok(())
    }

    fn special(&self) -> impl Iterator<Item = &AddedToken> {
        self.named.values().flatten().chain(&self.extra)
    }

    /// The special tokens that a file names, in the order in which new ones are added.
    pub(super) fn named(&self) -> impl Iterator<Item = (&'static str, &AddedToken)> {
        NAMED.into_iter().filter_map(|name| Some((name, self.named.get(name)?.as_ref()?)))
    }

    /// The token of this name; `default` where no file says which it is.
    pub(super) fn token(&self, name: &str, default: &str) -> Option<AddedToken> {
        match self.named.get(name) {
            Some(said) => said.clone(),
            None => Some(AddedToken::from(default, true).normalized(false)),
        }
    }

    /// A setting that is true or false.
    ///
    /// # Errors
    /// It is something else.
    pub(super) fn flag(&self, folder: &Path, key: &str) -> Result<Option<bool>> {
        self.get(folder, key, "true or false")
    }

    /// The side on which texts are cut, if it is said.
    ///
    /// # Errors
    /// It is neither.
    pub(super) fn truncation_side(&self, folder: &Path) -> Result<Option<TruncationDirection>> {
        let side: Option<String> = self.get(folder, "truncation_side", "`left` or `right`")?;
        match side.as_deref() {
            None => Ok(None),
            Some("left") => Ok(Some(TruncationDirection::Left)),
            Some("right") => Ok(Some(TruncationDirection::Right)),
            Some(other) => {
                let words = format!("`truncation_side` is `{other}`, not `left` or `right`");
                Err(damaged(&folder.join("tokenizer_config.json"), &words))
            }
        }
    }

    /// Whether texts of tokens lose spaces before punctuation. As in transformers 5, pieces of BPE
    /// hold their own spaces, and lose none without a second word.
    ///
    /// # Errors
    /// A setting is neither true nor false.
    pub(super) fn cleans(&self, folder: &Path, model: &ModelWrapper) -> Result<bool> {
        let key = match model {
            ModelWrapper::BPE(_) => {
                "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"
            }
            _ => "clean_up_tokenization_spaces",
        };
        Ok(self.flag(folder, key)?.unwrap_or(false))
    }

    fn get<T: DeserializeOwned>(&self, folder: &Path, key: &str, what: &str) -> Result<Option<T>> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value.clone()).map(Some).map_err(|_| {
                let words = format!("`{key}` is {value}, but must be {what}");
                damaged(&folder.join("tokenizer_config.json"), &words)
            }),
        }
    }
}

/// A file's keys; none without the file.
fn object(folder: &Path, name: &str) -> Result<Map<String, Value>> {
    let what = match name {
        "config.json" => "a Hugging Face config.json",
        _ => "a tokenizer's settings",
    };
    json::read_if_any(&folder.join(name), what)
}

/// A token as files write it: its text, or an object with how it is looked for.
fn token(value: &Value, special: bool) -> Option<AddedToken> {
    if let Value::String(content) = value {
        return Some(AddedToken::from(content.clone(), special).normalized(!special));
    }
    let keys = value.as_object()?;
    let content = keys.get("content")?.as_str()?;
    let flag = |key: &str, default: bool| keys.get(key).and_then(Value::as_bool).unwrap_or(default);
    let special = flag("special", special);
    Some(
        AddedToken::from(content, special)
            .normalized(flag("normalized", !special))
            .single_word(flag("single_word", false))
            .lstrip(flag("lstrip", false))
            .rstrip(flag("rstrip", false)),
    )
}

/// The class by its name in transformers, which has several for some.
fn class_of(name: &str) -> Class {
    match name {
        "BertTokenizer"
        | "DistilBertTokenizer"
        | "ElectraTokenizer"
        | "LayoutLMTokenizer"
        | "LxmertTokenizer"
        | "MobileBertTokenizer"
        | "SqueezeBertTokenizer" => Class::Bert,
        "MPNetTokenizer" => Class::Mpnet,
        "RobertaTokenizer"
        | "BartTokenizer"
        | "LEDTokenizer"
        | "LongformerTokenizer"
        | "MvpTokenizer" => Class::Roberta,
        "GPT2Tokenizer" => Class::Gpt2,
        "LlamaTokenizer" => Class::Llama,
        "DebertaTokenizer" => Class::DebertaV1,
        "DebertaV2Tokenizer" => Class::Deberta,
        "AlbertTokenizer" => Class::Albert,
        "XLMRobertaTokenizer" | "CamembertTokenizer" => Class::XlmRoberta,
        _ => Class::Plain,
    }
}

fn class_of_model(kind: &str) -> Class {
    match kind {
        "bert" | "distilbert" | "electra" | "mobilebert" => Class::Bert,
        "mpnet" => Class::Mpnet,
        "roberta" | "bart" => Class::Roberta,
        "gpt2" | "gpt_neo" | "gptj" => Class::Gpt2,
        "deberta" => Class::DebertaV1,
        "deberta-v2" => Class::Deberta,
        "albert" => Class::Albert,
        "xlm-roberta" | "camembert" => Class::XlmRoberta,
        _ => Class::Plain,
    }
}

//! How a byte-level vocabulary's texts are cut into words: llama.cpp's names, and what they stand for
//! in the tokenizer.json of the models that they are of.

use serde_json::{json, Value};

/// A way to cut texts.
#[derive(Debug)]
pub(super) struct Pre {
    /// Its names, the usual one first.
    names: &'static [&'static str],
    cut: Cut,
    /// Whether a text is normalised to composed characters first.
    composes: bool,
    /// Whether a word that is a token is one, whatever the merges make of it.
    pub whole_words: bool,
    /// Whether texts begin with the bos token where nothing else is said.
    pub begins: bool,
}

#[derive(Debug)]
enum Cut {
    /// As GPT-2's are, by the tokenizers library's own expression.
    Gpt2,
    /// And each digit by itself.
    Digits,
    /// By an expression.
    At(&'static str),
}

/// LLaMA 3's and Qwen 2's expressions differ in how many digits stand together.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const KNOWN: [Pre; 4] = [
    Pre {
        names: &["gpt-2", "default", "phi-2", "olmo", "mpt"],
        cut: Cut::Gpt2,
        composes: false,
        whole_words: false,
        begins: false,
    },
    Pre {
        names: &["smollm", "starcoder", "refact"],
        cut: Cut::Digits,
        composes: false,
        whole_words: false,
        begins: false,
    },
    Pre {
        names: &["llama-bpe", "llama3", "llama-v3"],
        cut: Cut::At(LLAMA3),
        composes: false,
        whole_words: true,
        begins: true,
    },
    Pre {
        names: &["qwen2", "deepseek-r1-qwen"],
        cut: Cut::At(QWEN2),
        composes: true,
        whole_words: false,
        begins: false,
    },
];

impl Pre {
    /// By its name; GPT-2's where a header names none.
    pub(super) fn of(name: Option<&str>) -> Result<&'static Self, String> {
        let name = name.unwrap_or("default");
        KNOWN.iter().find(|pre| pre.names.contains(&name)).ok_or_else(|| {
            let known: Vec<&str> = KNOWN.iter().flat_map(|pre| pre.names).copied().collect();
            format!(
                "`tokenizer.ggml.pre` is `{}`; the ways to cut texts that are built: {}",
                super::header::short(name),
                known.join(", ")
            )
        })
    }

    /// By the parts of a tokenizer.json, with the name that files have for it.
    pub(super) fn of_parts(normalizer: &Value, pre_tokenizer: &Value) -> Option<&'static str> {
        let known = KNOWN.iter().find(|pre| {
            pre.normalizer() == *normalizer && tidy(&pre.pre_tokenizer()) == tidy(pre_tokenizer)
        });
        known.map(|pre| pre.names[0])
    }

    /// The `normalizer` of a tokenizer.json.
    pub(super) fn normalizer(&self) -> Value {
        match self.composes {
            true => json!({ "type": "NFC" }),
            false => Value::Null,
        }
    }

    /// The `pre_tokenizer` of a tokenizer.json.
    pub(super) fn pre_tokenizer(&self) -> Value {
        let steps = match self.cut {
            Cut::Gpt2 => return bytes(true),
            Cut::Digits => [json!({ "type": "Digits", "individual_digits": true }), bytes(true)],
            Cut::At(expression) => {
                let split = json!({
                    "type": "Split",
                    "pattern": { "Regex": expression },
                    "behavior": "Isolated",
                    "invert": false,
                });
                [split, bytes(false)]
            }
        };
        json!({ "type": "Sequence", "pretokenizers": steps })
    }
}

/// Bytes as letters, by GPT-2's words or as what is cut already.
pub(super) fn bytes(words: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": words })
}

/// A part without what changes no token: places in the text that are trimmed, and what is usual.
fn tidy(part: &Value) -> Value {
    match part {
        Value::Object(keys) => {
            let counts = |key: &str, value: &Value| match key {
                "trim_offsets" => false,
                "use_regex" => value != true,
                "invert" | "add_prefix_space" => value != false,
                _ => true,
            };
            let kept = keys.iter().filter(|(key, value)| counts(key, value));
            Value::Object(kept.map(|(key, value)| (key.clone(), tidy(value))).collect())
        }
        Value::Array(list) => list.iter().map(tidy).collect(),
        other => other.clone(),
    }
}

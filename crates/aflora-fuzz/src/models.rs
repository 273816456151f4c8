//! What a model's folder holds: weights, config.json, adapters, tokenizers.

use crate::files;
use aflora_models::adapter_folder::AdapterFolder;
use aflora_models::chat::message;
use aflora_models::generate::{GenerationSettings, ModelSettings, GENERATION_CONFIG};
use aflora_models::weights::Checkpoint;
use aflora_models::{shapes_only, Chat, ChatTemplate, Head, Options, TextEncoder};
use std::path::Path;
use tch::{Device, Kind, Tensor};

const FIXTURES: &str = "aflora-models/tests/fixtures";

fn fixture(path: &str) -> Vec<u8> {
    files::own(&format!("{FIXTURES}/{path}"))
}

/// Opens a checkpoint and copies what a small model could have.
fn open(path: &Path) {
    const SMALL: i64 = 1 << 16;
    let checkpoint = match Checkpoint::open(path) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    for (name, shape) in checkpoint.shapes() {
        let elements = shape.iter().try_fold(1i64, |n, &d| n.checked_mul(d.max(1)));
        if elements.is_some_and(|n| n <= SMALL) && shape.len() < 16 {
            let mut tensor = Tensor::zeros(shape, (Kind::Double, Device::Cpu));
            checkpoint.copy(name, &mut tensor).expect("what was checked can be copied");
        }
    }
}

pub fn safetensors(bytes: &[u8]) {
    let folder = files::folder("safetensors", &[("model.safetensors", bytes)]);
    open(&folder);
}

pub fn safetensors_seeds() -> Vec<Vec<u8>> {
    // And a type of a later version of the format.
    let header = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F9","shape":[2],"data_offsets":[4,6]}}"#;
    let later = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 6]].concat();
    let fixtures = [
        "checkpoints/tensors.safetensors",
        "checkpoints/extras.safetensors",
        "checkpoints/bitsandbytes.safetensors",
        "peft/lora/adapter_model.safetensors",
    ];
    fixtures.map(fixture).into_iter().chain([later]).collect()
}

pub fn pickle(bytes: &[u8]) {
    let folder = files::folder("pickle", &[("pytorch_model.bin", bytes)]);
    open(&folder);
}

pub fn pickle_seeds() -> Vec<Vec<u8>> {
    [
        "zip",
        "stream",
        "parameters",
        "runs_code",
        "hides_code",
        "list",
        "nested",
        "trainer",
        "extras",
        "extras_stream",
        "only_extras",
        "plain",
    ]
    .map(|name| fixture(&format!("checkpoints/{name}.bin")))
    .to_vec()
}

/// An index, and the shard `a.safetensors` beside it.
pub fn weight_index(bytes: &[u8]) {
    let [index, shard] = files::split(bytes);
    let folder = files::folder(
        "index",
        &[("model.safetensors.index.json", index), ("a.safetensors", shard)],
    );
    open(&folder);
}

pub fn weight_index_seeds() -> Vec<Vec<u8>> {
    let tensors = fixture("checkpoints/tensors.safetensors");
    let index = br#"{"metadata": {"total_size": 1}, "weight_map": {"f32": "a.safetensors"}}"#;
    vec![files::join(&[index.to_vec(), tensors])]
}

/// A config.json, for its kind of model, with every head.
pub fn model_config(bytes: &[u8]) {
    let folder = files::folder("model_config", &[("config.json", bytes)]);
    let path = folder.join("config.json");
    let kind = aflora_models::kind_of(&path).map_or("bert", |usual| usual.kind);
    for head in [Head::Classes(2), Head::Scores(1), Head::Tokens(3), Head::Language] {
        let options = Options::new(Device::Cpu);
        let built = shapes_only(|| aflora_models::build(kind, &path, head, &options));
        if let Err(error) = built {
            assert!(!error.to_string().is_empty());
        }
    }
}

/// A GGUF file as what it stands for: weights and a config.json.
pub fn gguf(bytes: &[u8]) {
    let file = files::folder("gguf", &[("model.gguf", bytes)]).join("model.gguf");
    open(&file);
    let options = Options::new(Device::Cpu);
    let config = file.join("config.json");
    let kind = aflora_models::kind_of(&config).map_or("llama", |usual| usual.kind);
    let built = shapes_only(|| aflora_models::build(kind, &config, Head::Language, &options));
    if let Err(error) = built {
        assert!(!error.to_string().is_empty());
    }
}

pub fn gguf_seeds() -> Vec<Vec<u8>> {
    let names = ["blocks", "llama31", "smollm", "gemma2", "gemma3-scaled", "phi3-longrope"];
    names.map(|name| fixture(&format!("gguf/{name}.gguf"))).to_vec()
}

/// A GGUF file as the tokenizer and the chat template of its header.
pub fn gguf_tokenizer(bytes: &[u8]) {
    let file = files::folder("gguf_tokenizer", &[("model.gguf", bytes)]).join("model.gguf");
    encode(&file);
    if let Err(error) = ChatTemplate::from_folder(&file) {
        assert!(!error.to_string().is_empty());
    }
}

pub fn gguf_tokenizer_seeds() -> Vec<Vec<u8>> {
    let names = ["gpt-2", "llama-bpe", "qwen2-bpe", "sentencepiece", "gemma-bpe", "phi3-bpe"];
    names.map(|name| fixture(&format!("gguf/{name}.gguf"))).to_vec()
}

/// The config.json of each tiny model below a folder of the fixtures.
fn fixtures(below: &str) -> Vec<Vec<u8>> {
    let folder = files::project().join("crates").join(FIXTURES).join(below);
    let folders = std::fs::read_dir(&folder).expect("the fixtures are there");
    let mut paths: Vec<_> = folders.flatten().map(|f| f.path().join("config.json")).collect();
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}

pub fn model_config_seeds() -> Vec<Vec<u8>> {
    let configs = ["models", "writers"].map(fixtures).concat();
    let odd = b"\xef\xbb\xbf{\"a\": [NaN, -Infinity], \"model_type\": \"gpt2\", \"n_embd\": 8.0, \
        \"hidden_size\": 4, \"vocab_size\": 9, \"n_positions\": 4, \"n_layer\": 1, \"n_head\": 2, \
        \"pad_token_id\": -1}";
    [&configs[..], &[odd.to_vec()]].concat()
}

/// `adapter_config.json`, then `adapter_model.safetensors`; put into a small BERT.
pub fn adapter_folder(bytes: &[u8]) {
    let [config, weights] = files::split(bytes);
    let folder = files::folder(
        "adapter",
        &[("adapter_config.json", config), ("adapter_model.safetensors", weights)],
    );
    let adapter = match AdapterFolder::open(&folder) {
        Ok(adapter) => adapter,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let config = files::project().join("crates").join(FIXTURES).join("bert_classes/config.json");
    let options = Options::new(Device::Cpu);
    let built = aflora_models::build("bert", &config, Head::Classes(2), &options);
    let Ok(backbone) = built else { return };
    if let Err(error) = adapter.attach(backbone, Kind::Float) {
        assert!(!error.to_string().is_empty());
    }
}

pub fn adapter_folder_seeds() -> Vec<Vec<u8>> {
    let plain = ["lora", "rslora", "dora", "vera", "adalora", "adalora_zero", "pooler"];
    let further = [
        "patterns_rslora",
        "pissa_dora_patterns",
        "olora_wide_dora",
        "bias_all",
        "embedding_dora",
        "tokens",
        "head",
        "enlarged",
    ];
    let plain = plain.map(|name| format!("peft/{name}"));
    let further = further.map(|name| format!("peft_keys/bert/{name}"));
    let folder = |folder: String| {
        let file = |file: &str| fixture(&format!("{folder}/{file}"));
        files::join(&[file("adapter_config.json"), file("adapter_model.safetensors")])
    };
    plain.into_iter().chain(further).map(folder).collect()
}

/// Opens a folder's tokenizer and encodes a little with it.
fn encode(folder: &Path) {
    let encoder = match TextEncoder::from_folder(folder, 16) {
        Ok(encoder) => encoder,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let texts = [("A film, twice 12 naïve ﬁlms.", None), ("", Some("b  c \u{1f600} [MASK] <s>"))];
    if let Ok(encoded) = encoder.encode(&texts) {
        assert_eq!(encoded.len(), texts.len());
        for row in &encoded {
            let _ = encoder.decode(&row.ids);
        }
    }
    let _ = (encoder.vocab_size(), encoder.fingerprint());
}

pub fn tokenizer_json(bytes: &[u8]) {
    encode(&files::folder("tokenizer_json", &[("tokenizer.json", bytes)]));
}

/// Small ones: the shipped files have vocabularies that no mutation would miss a part of.
pub fn tokenizer_json_seeds() -> Vec<Vec<u8>> {
    let unigram = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[
        {"id":0,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
        "normalizer":{"type":"Sequence","normalizers":[{"type":"NFKC"},{"type":"Lowercase"},
        {"type":"Replace","pattern":{"Regex":" {2,}"},"content":" "}]},
        "pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true},
        "post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},
        {"Sequence":{"id":"A","type_id":0}}],"pair":[{"Sequence":{"id":"A","type_id":0}},
        {"Sequence":{"id":"B","type_id":1}}],"special_tokens":{"<s>":{"id":"<s>","ids":[0],"tokens":["<s>"]}}},
        "decoder":{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true},
        "model":{"type":"Unigram","unk_id":0,"vocab":[["<s>",0.0],["▁",-1.0],["a",-2.5],["film",-3.0]],
        "byte_fallback":false}}"#;
    let bpe = r###"{"version":"1.0","added_tokens":[],"normalizer":null,
        "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},
        "post_processor":{"type":"RobertaProcessing","sep":["b",1],"cls":["a",0],"trim_offsets":true,"add_prefix_space":false},
        "decoder":{"type":"ByteLevel"},"model":{"type":"BPE","dropout":null,"unk_token":null,
        "continuing_subword_prefix":"","end_of_word_suffix":"","fuse_unk":false,"byte_fallback":false,
        "vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}"###;
    let texts = [unigram, bpe].map(|text| text.as_bytes().to_vec());
    [texts.to_vec(), vec![fixture("word_piece/tokenizer.json")]].concat()
}

/// One file under both names that such files have, each in a folder of its own.
pub fn sentencepiece(bytes: &[u8]) {
    for name in ["spm.model", "tokenizer.model"] {
        let config: &[u8] = br#"{"do_lower_case": true, "split_by_punct": true}"#;
        encode(&files::folder(
            "sentencepiece",
            &[(name, bytes), ("tokenizer_config.json", config)],
        ));
    }
}

pub fn sentencepiece_seeds() -> Vec<Vec<u8>> {
    let piece = |text: &str, score: f32, kind: u8| {
        let mut piece = vec![0x0a, text.len() as u8];
        piece.extend_from_slice(text.as_bytes());
        piece.push(0x15);
        piece.extend_from_slice(&score.to_le_bytes());
        piece.extend_from_slice(&[0x18, kind]);
        [vec![0x0a, piece.len() as u8], piece].concat()
    };
    let mut unigram = Vec::new();
    for (at, text) in ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "▁", "a", "▁film"].iter().enumerate()
    {
        let kind = if at == 3 { 2 } else { 1 };
        unigram.extend(piece(text, -(at as f32), kind));
    }
    // The trainer: unigram, unknown token 3; then how texts are normalised.
    unigram.extend_from_slice(&[0x12, 5, 0x18, 1, 0xc0, 0x02, 3]);
    unigram.extend_from_slice(&[0x1a, 6, 0x12, 4, 0, 0, 0, 0]);
    vec![unigram, fixture("llama_bpe/tokenizer.model")]
}

/// `vocab.json` and `merges.txt`, or alone as `vocab.txt`.
pub fn vocabulary(bytes: &[u8]) {
    let [vocab, merges] = files::split(bytes);
    encode(&files::folder("bpe", &[("vocab.json", vocab), ("merges.txt", merges)]));
    encode(&files::folder("words", &[("vocab.txt", bytes)]));
}

pub fn vocabulary_seeds() -> Vec<Vec<u8>> {
    let bpe = [fixture("bpe/vocab.json"), fixture("bpe/merges.txt")];
    vec![files::join(&bpe), fixture("word_piece/vocab.txt")]
}

/// `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json` and `config.json` beside
/// each kind of vocabulary.
pub fn tokenizer_settings(bytes: &[u8]) {
    let [config, map, added, model] = files::split(bytes);
    let beside = [
        ("tokenizer_config.json", config),
        ("special_tokens_map.json", map),
        ("added_tokens.json", added),
        ("config.json", model),
    ];
    let vocabularies: [&[(&str, &str)]; 5] = [
        &[("vocab.txt", "word_piece/vocab.txt")],
        &[("tokenizer.json", "word_piece/tokenizer.json")],
        &[("tokenizer.json", "albert.json")],
        &[("vocab.json", "bpe/vocab.json"), ("merges.txt", "bpe/merges.txt")],
        &[("tokenizer.model", "llama_bpe/tokenizer.model")],
    ];
    for vocabulary in vocabularies {
        let read: Vec<(&str, Vec<u8>)> =
            vocabulary.iter().map(|(name, from)| (*name, fixture(from))).collect();
        let all = read.iter().map(|(name, bytes)| (*name, bytes.as_slice())).chain(beside);
        encode(&files::folder("settings", &all.collect::<Vec<_>>()));
    }
}

pub fn tokenizer_settings_seeds() -> Vec<Vec<u8>> {
    let config = r#"{"tokenizer_class":"BertTokenizerFast","do_lower_case":false,"strip_accents":true,
        "tokenize_chinese_chars":false,"truncation_side":"left","split_special_tokens":true,"cls_token":"the",
        "added_tokens_decoder":{"86":{"content":"<ent>","lstrip":true,"normalized":false,"rstrip":false,
        "single_word":true,"special":true}}}"#;
    let byte_level = r#"{"add_prefix_space":true,"add_bos_token":true,"add_eos_token":true,"bos_token":"<s>",
        "eos_token":{"__type":"AddedToken","content":"</s>"},"image_token":"<i>"}"#;
    let pieces = r#"{"do_lower_case":false,"keep_accents":true,"add_prefix_space":false,"remove_space":true,
        "split_by_punct":true,"do_basic_tokenize":false,"bos_token":"[CLS]","eos_token":"[SEP]"}"#;
    let map = r#"{"additional_special_tokens":["<word>",{"content":"<x>","rstrip":true}],"pad_token":null}"#;
    let seed = |parts: [&str; 4]| files::join(&parts.map(|part| part.as_bytes().to_vec()));
    vec![
        seed([config, map, r#"{"<ent>":86}"#, r#"{"model_type":"bert"}"#]),
        seed([byte_level, map, r#"{"<ent>":400}"#, r#"{"model_type":"gpt2"}"#]),
        seed([pieces, map, "{}", r#"{"model_type":"albert"}"#]),
        seed([pieces, "{}", "{}", r#"{"tokenizer_class":"XLMRobertaTokenizer"}"#]),
        seed([pieces, "{}", "{}", r#"{"tokenizer_class":"DebertaV2Tokenizer"}"#]),
        seed(["{}", "{}", "{}", r#"{"model_type":"mpnet"}"#]),
        seed([r#"{"legacy":true}"#, "{}", "{}", r#"{"tokenizer_class":"LlamaTokenizer"}"#]),
    ]
}

/// generation_config.json beside the config.json of a decoder and of an encoder-decoder.
pub fn generation_config(bytes: &[u8]) {
    for (kind, encoder_decoder) in [("llama", false), ("bart", true)] {
        let config = fixture(&format!("writers/{kind}/config.json"));
        let both = [("config.json", config.as_slice()), (GENERATION_CONFIG, bytes)];
        let path = files::folder("generation", &both).join("config.json");
        let read = ModelSettings::read(&path, encoder_decoder).map(|said| {
            let settings = GenerationSettings::default().over(&said.settings);
            assert!(settings.validate().is_ok(), "{settings:?}");
        });
        let options = Options::new(Device::Cpu);
        let built = || aflora_models::build(kind, &path, Head::Language, &options).map(drop);
        let built = shapes_only(built);
        for error in [read.err(), built.err()].into_iter().flatten() {
            assert!(!error.to_string().is_empty());
        }
    }
}

pub fn generation_config_seeds() -> Vec<Vec<u8>> {
    let one = r#"{"bos_token_id":0,"eos_token_id":[2,3],"pad_token_id":1,"forced_bos_token_id":0,"max_length":20,
        "min_length":5,"num_beams":4,"early_stopping":true,"length_penalty":2.0,"no_repeat_ngram_size":3}"#;
    let two = r#"{"eos_token_id":2,"do_sample":true,"temperature":0.6,"max_new_tokens":7,"early_stopping":"never",
        "bad_words_ids":[[1]],"decoder_start_token_id":2,"repetition_penalty":1.1}"#;
    [one, two].map(|text| text.as_bytes().to_vec()).to_vec()
}

/// A tokenizer_config.json, or a bare template, and messages for it.
pub fn chat_template(bytes: &[u8]) {
    let [template, messages] = files::split(bytes);
    let messages = serde_json::from_slice::<Vec<serde_json::Value>>(messages);
    let messages =
        messages.unwrap_or_else(|_| vec![message("user", "x"), message("assistant", "y")]);
    for name in ["tokenizer_config.json", "chat_template.jinja"] {
        let folder = files::folder("chat", &[(name, template)]);
        let template = match ChatTemplate::from_folder(&folder) {
            Ok(Some(template)) => template,
            Ok(None) => continue,
            Err(error) => return assert!(!error.to_string().is_empty()),
        };
        for add_generation_prompt in [false, true] {
            let tools = add_generation_prompt.then_some(messages.as_slice());
            let chat =
                Chat { messages: &messages, tools, add_generation_prompt, ..Chat::default() };
            match template.render(&chat) {
                Ok(rendered) => {
                    for part in rendered.assistant {
                        assert!(rendered.text.get(part).is_some());
                    }
                }
                Err(error) => assert!(!error.to_string().is_empty()),
            }
            // What the assistant writes lies in the text, a part behind the other.
            let ends = ["<|im_end|>", "</s>"].map(String::from);
            if let Ok(rendered) = template.turns(&chat, &ends) {
                let mut last = 0;
                for part in rendered.assistant {
                    assert!(last <= part.start && rendered.text.get(part.clone()).is_some());
                    last = part.end;
                }
            }
        }
    }
}

pub fn chat_template_seeds() -> Vec<Vec<u8>> {
    let golden: serde_json::Value =
        serde_json::from_slice(&fixture("chat.json")).expect("the fixture is JSON");
    let messages = serde_json::to_vec(&golden["conversations"]["called"]).expect("it is written");
    let templates = ["marked", "llama3", "mistral", "qwen", "grounded", "schemas"];
    let sources = templates.map(|name| golden["templates"][name].as_str().unwrap_or_default());
    let config = serde_json::json!({
        "bos_token": "<s>",
        "chat_template": [{"name": "default", "template": "{{ messages[-1].content | trim }}"},
            {"name": "tool_use", "template": "{{ tools | tojson(indent=1) }}"}],
    });
    let templates = sources.map(|source| source.as_bytes().to_vec());
    let all = templates.into_iter().chain([config.to_string().into_bytes()]);
    all.map(|template| files::join(&[template, messages.clone()])).collect()
}

//! GGUF files: read as the `gguf` package and transformers read them, or refused by name; and written
//! so that these read them.

#[path = "../common/mod.rs"]
mod common;
mod written;

use aflora_core::weight::{Coding, FrozenWeight, WeightFormat};
use aflora_models::chat::message;
use aflora_models::merged::StoredKind;
use aflora_models::weights::{self, Checkpoint};
use aflora_models::TextEncoder;
use aflora_models::{
    build, kind_of, quantised_base, Backbone, Batch, Chat, ChatTemplate, Head, Options,
};
use common::{cpu, fixture, relative, tensors};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

fn gguf(name: &str) -> PathBuf {
    fixture("gguf").join(name)
}

fn read(file: &Checkpoint, name: &str, kind: Kind) -> Tensor {
    let shape = file.shapes().find(|(known, _)| *known == name).unwrap().1.to_vec();
    let mut tensor = Tensor::zeros(&shape[..], (kind, Device::Cpu));
    file.copy(name, &mut tensor).unwrap();
    tensor
}

#[test]
fn every_format_is_dequantised_as_the_gguf_package_does_to_the_bit() {
    let file = Checkpoint::open(&gguf("blocks.gguf")).unwrap();
    let expected = tensors("gguf/blocks.safetensors");
    assert_eq!(file.shapes().count(), 13);
    for (name, expected) in expected {
        let bits = |tensor: &Tensor| tensor.contiguous().view_dtype(Kind::Int);
        let found = read(&file, &name, Kind::Float);
        assert!(bits(&found).equal(&bits(&expected)), "{name}: {found} {expected}");
        // In another precision it is the same number, rounded.
        let half = read(&file, &name, Kind::BFloat16);
        assert!(half.equal(&expected.to_kind(Kind::BFloat16)), "{name}");
    }
}

#[test]
fn models_of_every_architecture_agree_with_transformers() {
    for (name, kind, count) in [
        ("llama", "llama", 20),
        ("qwen2", "qwen2", 27),
        ("qwen3", "qwen3", 24),
        ("gemma", "gemma", 20),
        ("gemma2", "gemma2", 35),
        ("gemma3", "gemma3_text", 80),
        ("gemma3-scaled", "gemma3_text", 41),
        ("phi3", "phi3", 15),
        ("phi3-longrope", "phi3", 14),
    ] {
        let file = gguf(&format!("{name}.gguf"));
        let config = file.join("config.json");
        let golden = fs::read(gguf(&format!("{name}.json"))).unwrap();
        let golden: Value = serde_json::from_slice(&golden).unwrap();
        assert_eq!(kind_of(&config).unwrap().kind, kind);
        let model = build(kind, &config, Head::Language, &cpu()).unwrap();
        weights::check_size(&file, &config).unwrap();
        let report = weights::load(model.as_ref(), &file).unwrap();
        let told = (report.loaded, report.warnings.len(), report.unused.len());
        assert_eq!(told, (count, 0, 0), "{name}");
        let ids: Vec<i64> = serde_json::from_value(golden["input_ids"][0].clone()).unwrap();
        let ids = Tensor::from_slice(&ids).unsqueeze(0);
        let batch = Batch::new(ids.shallow_clone(), ids.ones_like());
        let logits = tch::no_grad(|| model.forward(&batch, false)).unwrap().logits;
        let expected: Vec<Vec<f64>> = serde_json::from_value(golden["logits"][0].clone()).unwrap();
        let apart = relative(&logits.squeeze_dim(0), &Tensor::from_slice2(&expected));
        assert!(apart < 1e-5, "{name}: {apart}");
    }
}

#[test]
fn a_model_in_few_bits_holds_the_blocks_of_its_file_as_they_lie() {
    for (name, kind, in_blocks) in [("llama", "llama", 10), ("phi3", "phi3", 7)] {
        let file = gguf(&format!("{name}.gguf"));
        let load = |format| {
            let (config, options) = (file.join("config.json"), Options { format, ..cpu() });
            let model = build(kind, &config, Head::Language, &options).unwrap();
            weights::load(model.as_ref(), &file).unwrap();
            model
        };
        let (held, whole) = (load(Some(WeightFormat::Int8)), load(None));
        let weights = whole.var_store().variables();
        let mut found = 0;
        for (weight, layer) in held.quantised() {
            let FrozenWeight::Quantised(codes) = layer.weight() else { panic!("{weight}: whole") };
            let of_file = matches!(codes.coding(), Coding::Blocks(_));
            assert_eq!(layer.stored().equal(&weights[&weight]), of_file, "{name}: {weight}");
            // All else is in what was asked for.
            assert_eq!(codes.format(), (!of_file).then_some(WeightFormat::Int8), "{weight}");
            found += usize::from(of_file);
            // So that both compute with the same numbers.
            tch::no_grad(|| weights[&weight].shallow_clone().copy_(&layer.stored()));
        }
        assert_eq!(found, in_blocks, "{name}");
        let ids = Tensor::from_slice(&[5i64, 7, 11, 3]).unsqueeze(0);
        let batch = Batch::new(ids.shallow_clone(), ids.ones_like());
        let logits =
            |model: &dyn Backbone| tch::no_grad(|| model.forward(&batch, false)).unwrap().logits;
        let apart = relative(&logits(held.as_ref()), &logits(whole.as_ref()));
        assert!(apart < 1e-5, "{name}: {apart}");
        // Nobody else's library has such blocks in a folder: the file is the base.
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("base");
        let stored = StoredKind::Bf16;
        let refused = quantised_base::save(held.as_ref(), file.as_path(), &folder, stored);
        let refused = refused.unwrap_err();
        assert!(refused.to_string().contains("that file is the base to keep"), "{refused}");
        assert!(!folder.exists());
    }
}

#[test]
fn the_scaled_angles_of_llama_3_1_are_found_in_the_tensor_that_they_became() {
    let file = gguf("llama31.gguf");
    let folder = tempfile::tempdir().unwrap();
    let error = |path: &Path| kind_of(&path.join("config.json")).map(drop).unwrap_err().to_string();
    // A model without a block; with one, its config is read.
    assert!(error(&file).contains("`llama.block_count` is 0"), "{}", error(&file));
    let mut bytes = fs::read(&file).unwrap();
    let key = b"llama.block_count";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 4;
    bytes[at] = 1;
    let path = folder.path().join("model.gguf");
    fs::write(&path, &bytes).unwrap();
    kind_of(&path.join("config.json")).unwrap();
    // The last number is the factor of the longest wave, alone it is no such scaling.
    let end = bytes.len() - 4;
    assert_eq!(bytes[end..], 8f32.to_le_bytes());
    bytes[end - 4..end].copy_from_slice(&3f32.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    assert!(error(&path).contains("in a way that is not LLaMA 3's"), "{}", error(&path));
}

/// A file by hand.
struct Made(Vec<u8>);

impl Made {
    fn new(version: u32, tensors: u64, keys: u64) -> Self {
        let mut made = Made(b"GGUF".to_vec());
        made.0.extend(version.to_le_bytes());
        made.0.extend(tensors.to_le_bytes());
        made.0.extend(keys.to_le_bytes());
        made
    }

    fn u32(mut self, n: u32) -> Self {
        self.0.extend(n.to_le_bytes());
        self
    }

    fn u64(mut self, n: u64) -> Self {
        self.0.extend(n.to_le_bytes());
        self
    }

    fn text(self, text: &str) -> Self {
        let mut made = self.u64(text.len() as u64);
        made.0.extend(text.as_bytes());
        made
    }

    fn llama(tensors: u64, more: u64) -> Self {
        let made =
            Made::new(3, tensors, 2 + more).text("general.architecture").u32(8).text("llama");
        made.text("llama.attention.head_count").u32(4).u32(2)
    }

    fn tensor(self, name: &str, shape: &[u64], format: u32, offset: u64) -> Self {
        let made = self.text(name).u32(shape.len() as u32);
        shape.iter().fold(made, |made, &n| made.u64(n)).u32(format).u64(offset)
    }

    fn data(mut self, bytes: usize) -> Self {
        let start = self.0.len().div_ceil(32) * 32;
        self.0.resize(start + bytes, 0);
        self
    }

    fn error(&self) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        fs::write(&path, &self.0).unwrap();
        Checkpoint::open(&path).map(drop).unwrap_err().to_string()
    }
}

#[test]
fn a_header_that_lies_is_refused_for_what_it_says() {
    const Q: &str = "blk.0.ffn_up.weight";
    let lists = |of: u32, count: u64| Made::llama(0, 1).text("tokens").u32(9).u32(of).u64(count);
    for (made, expected) in [
        (Made::new(1, 0, 0), "it is of version 1"),
        (Made::new(4, 0, 0), "it is of version 4; 2 and 3 are read"),
        (Made::new(3u32.swap_bytes(), 0, 0), "its numbers are big-endian"),
        (Made::new(3, 0, u64::MAX), "counts 18446744073709551615 things"),
        (Made::new(3, u64::MAX, 0), "counts 18446744073709551615 tensors"),
        (Made::new(3, 0, 1).u64(u64::MAX).u64(0), "where there is room for 8 at most"),
        (Made::new(3, 0, 1).text("a long enough key").u32(4), "it ends within its header"),
        (Made::new(3, 0, 0), "does not say its `general.architecture`"),
        (lists(8, 1 << 40), "`tokens`: its header counts 1099511627776 things"),
        (lists(4, 1 << 40), "`tokens`: its header counts 1099511627776 things"),
        (lists(9, 1), "`tokens`: it is a list of lists"),
        (lists(77, 1), "`tokens`: it has the type 77"),
        (
            Made::llama(0, 1).text("llama.attention.head_count").u32(4).u32(2),
            "it has the key `llama.attention.head_count` twice",
        ),
        (
            Made::llama(0, 1).text("general.alignment").u32(4).u32(3),
            "`general.alignment` is 3; it must be a power of two",
        ),
        (Made::llama(0, 1).text("split.count").u32(4).u32(2), "it is one of 2 parts"),
        (
            Made::llama(1, 0).tensor(Q, &[32, 1], 8, 0),
            "the data of `blk.0.ffn_up.weight` end after",
        ),
        (Made::llama(1, 0).tensor(Q, &[1 << 40, 1 << 40], 8, 0).data(34), "end after the file"),
        (Made::llama(1, 0).tensor(Q, &[32], 8, u64::MAX - 31).data(34), "end after the file"),
        (Made::llama(1, 0).tensor(Q, &[32], 8, 1).data(64), "begin at no multiple of 32 bytes"),
        (Made::llama(1, 0).tensor(Q, &[33, 1], 8, 0).data(64), "rows of 33 numbers"),
        (Made::llama(1, 0).tensor(Q, &[1; 5], 0, 0).data(64), "has 5 dimensions; 4 are the most"),
        (Made::llama(1, 0).tensor(Q, &[u64::MAX], 0, 0).data(64), "elements in a dimension"),
        (
            Made::llama(1, 0).tensor(Q, &[1], 4, 0).data(64),
            "has a format that is none of llama.cpp's",
        ),
        (
            Made::llama(2, 0).tensor(Q, &[1], 0, 0).tensor(Q, &[1], 0, 0).data(64),
            "it has the tensor `blk.0.ffn_up.weight` twice",
        ),
        (
            Made::llama(1, 0).tensor("blk.0.ffn_gate_inp.weight", &[1], 0, 0).data(64),
            "`blk.0.ffn_gate_inp.weight` is none that models of the architecture `llama`",
        ),
        (
            Made::llama(1, 0).tensor("blk.00.ffn_up.weight", &[1], 0, 0).data(64),
            "`blk.00.ffn_up.weight` is none that",
        ),
        (
            Made::llama(1, 0).tensor("blk.0.attn_q.weight", &[4, 6], 0, 0).data(96),
            "`blk.0.attn_q.weight` has 6 rows, no even number for each of 2 heads",
        ),
    ] {
        let error = made.error();
        assert!(error.contains(expected), "{expected}: {error}");
        assert!(error.contains("not a readable GGUF file"), "{error}");
    }
}

#[test]
fn a_format_that_is_not_read_is_named_where_its_tensor_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let made = Made::llama(1, 0).tensor("token_embd.weight", &[256, 2], 23, 0).data(64);
    fs::write(&path, made.0).unwrap();
    let file = Checkpoint::open(&path).unwrap();
    let mut target = Tensor::zeros([2, 256], (Kind::Float, Device::Cpu));
    let error = file.copy("model.embed_tokens.weight", &mut target).unwrap_err().to_string();
    assert!(error.contains("is a tensor of the format IQ4_XS there"), "{error}");
}

#[test]
fn what_a_model_asks_for_and_is_not_built_is_refused_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let whole = fs::read(gguf("llama.gguf")).unwrap();
    let key = "llama.rope.dimension_count";
    let at = whole.windows(key.len()).position(|window| window == key.as_bytes()).unwrap();
    let error = |from: &str, to: &str, value: Option<u32>| {
        let mut bytes = whole.clone();
        let at = at - "llama.rope.dimension_count".len() + from.len();
        assert_eq!(from.len(), to.len());
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        if let Some(value) = value {
            bytes[at + to.len() + 4..][..4].copy_from_slice(&value.to_le_bytes());
        }
        fs::write(&path, bytes).unwrap();
        build("llama", &path.join("config.json"), Head::Language, &cpu()).unwrap_err().to_string()
    };
    let partly = error(key, key, Some(8));
    assert!(
        partly.contains("`llama.rope.dimension_count` is 8; it must be as many as"),
        "{partly}"
    );
    let experts = error(key, "llama.some.experts_in_it__", None);
    assert!(experts.contains("what it asks for is not built"), "{experts}");
}

/// Texts with their tokens by each tokenizer, and what those tokens are as a text.
fn encodings(name: &str) -> Vec<(String, Vec<i64>, String)> {
    let golden: Value =
        serde_json::from_slice(&fs::read(gguf("tokenizers.json")).unwrap()).unwrap();
    let texts = |value: &Value| serde_json::from_value::<Vec<String>>(value.clone()).unwrap();
    let ids: Vec<Vec<i64>> = serde_json::from_value(golden[name]["ids"].clone()).unwrap();
    let (given, back) = (texts(&golden["texts"]), texts(&golden[name]["texts"]));
    given.into_iter().zip(ids).zip(back).map(|((text, ids), back)| (text, ids, back)).collect()
}

#[test]
fn a_byte_level_tokenizer_cuts_words_as_its_model_s_own_does() {
    for name in ["gpt-2", "smollm", "llama-bpe", "qwen2"] {
        let file = if name == "qwen2" { "qwen2-bpe.gguf".into() } else { format!("{name}.gguf") };
        let encoder = TextEncoder::from_folder(&gguf(&file), 512).unwrap();
        for (text, ids, back) in encodings(name) {
            let found = encoder.encode(&[(&text, None)]).unwrap();
            assert_eq!(found[0].ids, ids, "{name}: {text:?}");
            assert_eq!(encoder.decode(&ids).unwrap(), back, "{name}: {text:?}");
        }
        // Those that fill the table up are no tokens.
        assert_eq!((encoder.vocab_size(), encoder.pad_id()), (381, 2), "{name}");
    }
}

#[test]
fn sentencepiece_s_pieces_and_scores_are_the_tokenizer_that_its_own_file_is() {
    for (name, own) in [("sentencepiece", "llama_bpe"), ("gemma-bpe", "gguf/gemma_bpe")] {
        let encoder = TextEncoder::from_folder(&gguf(&format!("{name}.gguf")), 512).unwrap();
        let own = TextEncoder::from_folder(&fixture(own), 512).unwrap();
        for (text, ids, back) in encodings(name) {
            let found = encoder.encode(&[(&text, None)]).unwrap();
            assert_eq!(found, own.encode(&[(&text, None)]).unwrap(), "{name}: {text:?}");
            assert_eq!(found[0].ids, ids, "{name}: {text:?}");
            assert_eq!(encoder.decode(&ids).unwrap(), back, "{name}: {text:?}");
        }
    }
}

#[test]
fn the_tokens_of_phi_3_s_conversations_take_the_space_behind_them_along() {
    let encoder = TextEncoder::from_folder(&gguf("phi3-bpe.gguf"), 64).unwrap();
    let ids = |text: &str| encoder.encode(&[(text, None)]).unwrap().remove(0).ids;
    let spaced = ids("<|user|>\nA film.<|end|>\n<|assistant|>\n");
    assert_eq!(spaced, ids("<|user|>A film.<|end|><|assistant|>"));
    // 600 pieces, then <|end|>, <|user|>, <|assistant|>, <|endoftext|>.
    assert_eq!(
        (spaced[1], spaced.len() > 4, &spaced[spaced.len() - 2..]),
        (601, true, &[600, 602][..])
    );
    for token in ["<s>", "<|endoftext|>"] {
        assert_ne!(ids(&format!("{token}\nA film.")), ids(&format!("{token}A film.")), "{token}");
    }
    assert_eq!(ids("</s>\nA film."), ids("</s>A film."));
}

#[test]
fn a_chat_template_of_the_header_writes_with_the_header_s_special_tokens() {
    let template = ChatTemplate::from_folder(&gguf("smollm.gguf")).unwrap().unwrap();
    let messages = [message("user", "hi")];
    let written = template.render(&Chat { messages: &messages, ..Chat::default() }).unwrap();
    assert_eq!(written.text, "<|endoftext|>userhi<|im_end|>");
    assert!(ChatTemplate::from_folder(&gguf("llama.gguf")).unwrap().is_none());
}

#[test]
fn a_way_to_cut_words_that_is_not_built_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let swapped = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let mut bytes = fs::read(gguf("smollm.gguf")).unwrap();
        let at = bytes.windows(from.len()).rposition(|window| window == from.as_bytes()).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        fs::write(&path, bytes).unwrap();
        TextEncoder::from_folder(&path, 64).map(drop).unwrap_err().to_string()
    };
    let error = swapped("smollm", "tekken");
    assert!(error.contains("`tokenizer.ggml.pre` is `tekken`; the ways to cut texts"), "{error}");
    let error = swapped("gpt2", "bert");
    assert!(error.contains("`tokenizer.ggml.model` is `bert`; `gpt2` and `llama` are"), "{error}");
}

//! Token ids equal to those of Hugging Face's and Google's Python on odd strings.

#[path = "../common/mod.rs"]
mod common;
mod families;
mod streaming;

use aflora_models::TextEncoder;
use common::fixture;
use common::log::logged;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Compares every case of `golden`; gives how many there were.
fn agrees(folder: &Path, golden: &str) -> usize {
    let text = std::fs::read_to_string(fixture(golden)).unwrap();
    let golden: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let mut compared = 0;
    for case in &golden {
        let max_length = case["max_length"].as_u64().unwrap() as usize;
        let encoder = TextEncoder::from_folder(folder, max_length).unwrap();
        let a = case["text_a"].as_str().unwrap();
        let encoded = &encoder.encode(&[(a, case["text_b"].as_str())]).unwrap()[0];
        let ids = |key: &str| -> Vec<i64> { serde_json::from_value(case[key].clone()).unwrap() };
        assert_eq!(encoded.ids, ids("ids"), "{case}");
        assert_eq!(encoded.type_ids, ids("type_ids"), "{case}");
        assert!(!encoded.truncated || encoded.ids.len() == max_length);
        compared += 1;
    }
    compared
}

#[test]
fn a_tokenizer_json_agrees_whatever_padding_it_asks_for() {
    assert!(agrees(&fixture("word_piece"), "word_piece/encodings.json") > 50);
}

#[test]
fn a_bare_vocabulary_is_bert_s_word_piece() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("word_piece/vocab.txt"), folder.path().join("vocab.txt")).unwrap();
    assert!(agrees(folder.path(), "word_piece/encodings.json") > 50);
}

/// The vocabulary of the smallest model that ships with the project.
fn spm() -> PathBuf {
    fixture("../../../../configs/models/tiny-deberta")
}

#[test]
fn a_sentence_piece_model_is_deberta_s_tokenizer() {
    assert!(agrees(&spm(), "spm/encodings.json") > 80);
}

#[test]
fn a_sentence_piece_bpe_is_llama_s_tokenizer_and_gives_texts_back() {
    let text = std::fs::read_to_string(fixture("llama_bpe/encodings.json")).unwrap();
    let golden: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert!(golden.len() > 20);
    let encoder = TextEncoder::from_folder(&fixture("llama_bpe"), 4096).unwrap();
    for case in golden {
        let text = case["text"].as_str().unwrap();
        let ids: Vec<i64> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(encoder.encode(&[(text, None)]).unwrap()[0].ids, ids, "{text:?}");
        assert_eq!(encoder.decode(&ids).unwrap(), case["decoded"], "{text:?}");
    }
}

#[test]
fn gpt2_s_vocab_and_merges_put_nothing_around_a_text() {
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str| std::fs::read_to_string(fixture("bpe").join(name)).unwrap();
    let vocab = read("vocab.json").replace("\"<s>\"", "\"<|endoftext|>\"");
    std::fs::write(folder.path().join("vocab.json"), vocab).unwrap();
    std::fs::write(folder.path().join("merges.txt"), read("merges.txt")).unwrap();
    let encoder = TextEncoder::from_folder(folder.path(), 64).unwrap();
    let text = "The film is good: 12 × 6.";
    let ids = &encoder.encode(&[(text, None)]).unwrap()[0].ids;
    let roberta = TextEncoder::from_folder(&fixture("bpe"), 64).unwrap();
    let around = &roberta.encode(&[(text, None)]).unwrap()[0].ids;
    assert_eq!(ids[..], around[1..around.len() - 1]);
    assert_eq!(encoder.decode(ids).unwrap(), text);
}

#[test]
fn vocab_and_merges_are_roberta_s_byte_level_bpe() {
    assert!(agrees(&fixture("bpe"), "bpe/encodings.json") > 80);
}

/// Every 128 tokens of one were put together with every 128 of the other: 28 s, and gigabytes.
#[test]
fn a_pair_of_long_texts_takes_no_longer_than_its_texts() {
    let encoder = TextEncoder::from_folder(&fixture("bpe"), 17).unwrap();
    let (long, longer) = ("a ".repeat(30_000), "b ".repeat(40_000));
    let start = std::time::Instant::now();
    let pairs = [(&long[..], Some(&longer[..])), (&longer, Some(&long)), ("a", Some(&long))];
    for encoded in encoder.encode(&pairs).unwrap() {
        assert!(encoded.truncated && encoded.ids.len() == 17, "{encoded:?}");
    }
    // A text alone takes a few seconds at most; the pairs of their parts never ended.
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}

#[test]
fn a_missing_or_damaged_tokenizer_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = |max| TextEncoder::from_folder(folder.path(), max).unwrap_err().to_string();
    assert!(error(16).contains("expected `tokenizer.json`, a SentencePiece `spm.model`"));
    assert!(error(2).contains("`max_length` is 2"), "no room for special tokens");
    std::fs::write(folder.path().join("spiece.model"), "").unwrap();
    assert!(error(16).contains("`vocab.txt`; `spiece.model` is not read: transformers'"));
    std::fs::write(folder.path().join("vocab.txt"), "a\nb\n").unwrap();
    assert!(error(16).contains("no [CLS] in it"));
    std::fs::write(folder.path().join("tokenizer.json"), "{\"version\"").unwrap();
    assert!(error(16).contains("damaged tokenizer"));
}

#[test]
fn a_damaged_sentence_piece_model_is_refused_wherever_it_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spm.model");
    let whole = std::fs::read(spm().join("spm.model")).unwrap();
    for cut in [0, 1, 7, 100, 5000, 25_000, 200_000, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let error = TextEncoder::from_folder(folder.path(), 16).unwrap_err().to_string();
        assert!(error.contains("spm.model: damaged tokenizer"), "{cut}: {error}");
    }
}

#[test]
fn half_a_byte_level_bpe_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = || TextEncoder::from_folder(folder.path(), 16).unwrap_err().to_string();
    std::fs::copy(fixture("bpe/vocab.json"), folder.path().join("vocab.json")).unwrap();
    assert!(error().contains("`vocab.json` with `merges.txt`"));
    std::fs::write(folder.path().join("merges.txt"), "a b c d\n").unwrap();
    assert!(error().contains("damaged tokenizer"));
    std::fs::write(folder.path().join("vocab.json"), "{\"a\": 0}").unwrap();
    std::fs::write(folder.path().join("merges.txt"), "").unwrap();
    assert!(error().contains("no <s> in it"));
}

/// Every file that says something about a tokenizer, and every setting in them: `resolved.json` is
/// what transformers 5 makes of them.
#[test]
fn every_file_beside_a_vocabulary_counts_as_in_transformers() {
    let text = std::fs::read_to_string(fixture("resolved.json")).unwrap();
    let cases: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() > 45);
    let (mut wrong, mut warned) = (Vec::new(), Vec::new());
    for case in &cases {
        let folder = tempfile::tempdir().unwrap();
        for file in case["files"].as_array().unwrap() {
            let from = fixture(file.as_str().unwrap());
            let name = match file.as_str().unwrap().contains('/') {
                true => from.file_name().unwrap(),
                false => "tokenizer.json".as_ref(),
            };
            std::fs::copy(&from, folder.path().join(name)).unwrap();
        }
        for (name, keys) in case["beside"].as_object().unwrap() {
            std::fs::write(folder.path().join(name), keys.to_string()).unwrap();
        }
        let length = case["max_length"].as_u64().unwrap() as usize;
        let mut opened = None;
        let log =
            logged(|| opened = Some(TextEncoder::from_folder(folder.path(), length).unwrap()));
        let encoder = opened.unwrap();
        for line in log.lines() {
            let key = line.split('`').nth(1).unwrap();
            warned.push(format!("{}: {key}", case["name"].as_str().unwrap()));
        }
        for (row, text) in case["texts"].as_array().unwrap().iter().enumerate() {
            let pair = match text.as_array() {
                Some(both) => (both[0].as_str().unwrap(), both[1].as_str()),
                None => (text.as_str().unwrap(), None),
            };
            let found = &encoder.encode(&[pair]).unwrap()[0];
            let ids: Vec<i64> = serde_json::from_value(case["ids"][row].clone()).unwrap();
            let types: Vec<i64> = serde_json::from_value(case["type_ids"][row].clone()).unwrap();
            if found.ids != ids || found.type_ids != types {
                wrong.push(format!("{}: {text}\n  {:?}\n  {ids:?}", case["name"], found.ids));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What counts is no warning, and what transformers leaves out is one.
    let left_out = [
        "tokenizer.json as it is: do_lower_case",
        "llama's tokenizer.json: add_eos_token",
        "albert's capitals and accents kept: remove_space",
        "albert's file as it is: do_lower_case",
        "albert's file as it is: keep_accents",
        "xlm-roberta of a class: add_bos_token",
        "xlm-roberta of a class: add_eos_token",
        "xlm-roberta does not lowercase: do_lower_case",
        "albert with another unknown word: unk_token",
    ];
    assert_eq!(warned, left_out);
}

/// As in transformers 4, which the models were pretrained with; transformers 5 has two `[SEP]`.
#[test]
fn one_token_stands_between_the_texts_of_a_deberta_v1_pair() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("bpe/merges.txt"), folder.path().join("merges.txt")).unwrap();
    let mut vocab = std::fs::read_to_string(fixture("bpe/vocab.json")).unwrap();
    for (theirs, own) in [("<s>", "[CLS]"), ("</s>", "[SEP]"), ("<pad>", "[PAD]")] {
        vocab = vocab.replace(&format!("\"{theirs}\""), &format!("\"{own}\""));
    }
    std::fs::write(folder.path().join("vocab.json"), vocab).unwrap();
    let config = json!({ "model_type": "deberta" }).to_string();
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let encoder = TextEncoder::from_folder(folder.path(), 32).unwrap();
    let ids = |text| encoder.encode(&[(text, None)]).unwrap()[0].ids.clone();
    let (a, b) = (ids("the film"), ids("is good"));
    assert_eq!((a[0], a[a.len() - 1]), (0, 2));
    let pair = &encoder.encode(&[("the film", Some("is good"))]).unwrap()[0];
    assert_eq!(pair.ids, [&a[..], &b[1..]].concat());
    let types = [vec![0; a.len()], vec![1; b.len() - 1]].concat();
    assert_eq!((&pair.type_ids, encoder.pad_id()), (&types, 1));
}

#[test]
fn a_class_that_is_not_built_of_its_vocabulary_is_said() {
    for (files, keys, expected) in [
        (
            vec!["word_piece/vocab.txt"],
            json!({ "tokenizer_class": "BertJapaneseTokenizer" }),
            "`tokenizer_class` is `BertJapaneseTokenizer`, which is not built of a vocab.txt: it is read as BERT's",
        ),
        (
            vec!["bpe/vocab.json", "bpe/merges.txt"],
            json!({ "tokenizer_class": "CLIPTokenizer" }),
            "`tokenizer_class` is `CLIPTokenizer`, which is not built of a vocab.json: it is read as RoBERTa's",
        ),
        (vec!["word_piece/vocab.txt"], json!({ "tokenizer_class": "BertTokenizerFast" }), ""),
        (vec!["word_piece/vocab.txt"], json!({}), ""),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let from = fixture(file);
            std::fs::copy(&from, folder.path().join(from.file_name().unwrap())).unwrap();
        }
        std::fs::write(folder.path().join("tokenizer_config.json"), keys.to_string()).unwrap();
        let log = logged(|| drop(TextEncoder::from_folder(folder.path(), 16).unwrap()));
        assert!(log.contains(expected) && log.is_empty() == expected.is_empty(), "{log}");
    }
}

/// transformers takes no notice of them either, and says nothing.
#[test]
fn a_setting_that_does_not_count_is_said_with_its_file_and_value() {
    let told = |file: &str, keys: serde_json::Value| {
        let folder = tempfile::tempdir().unwrap();
        let name = if file.ends_with(".json") { "tokenizer.json" } else { "tokenizer.model" };
        std::fs::copy(fixture(file), folder.path().join(name)).unwrap();
        std::fs::write(folder.path().join("tokenizer_config.json"), keys.to_string()).unwrap();
        logged(|| {
            (0..2).for_each(|_| drop(TextEncoder::from_folder(folder.path(), 16).unwrap()));
        })
    };
    let ends = json!({ "bos_token": "[CLS]", "eos_token": "[SEP]", "pad_token": "<pad>" });
    let stated = |words: bool, class: &str| {
        let mut keys = ends.clone();
        keys["tokenizer_class"] = class.into();
        for key in [
            "do_lower_case",
            "strip_accents",
            "tokenize_chinese_chars",
            "split_by_punct",
            "do_basic_tokenize",
            "remove_space",
            "add_prefix_space",
            "add_bos_token",
            "add_eos_token",
        ] {
            keys[key] = words.into();
        }
        keys["keep_accents"] = (!words).into();
        keys
    };
    // The file lowers capitals, strips accents, marks the first word, and has both ends.
    for (words, expected) in [
        (
            false,
            vec![
                "`do_lower_case` is false, which does not count beside this tokenizer.json: texts are lowercased",
                "`strip_accents` is false, which does not count beside this tokenizer.json: accents are stripped",
                "`keep_accents` is true, which does not count beside this tokenizer.json: accents are stripped",
                "`add_prefix_space` is false, which does not count beside this tokenizer.json: a text's first",
                "`add_bos_token` is false, which does not count beside this tokenizer.json: a bos_token begins",
                "`add_eos_token` is false, which does not count beside this tokenizer.json: an eos_token ends",
            ],
        ),
        (
            true,
            vec![
                "`tokenize_chinese_chars` is true, which does not count beside this tokenizer.json: Chinese",
                "`split_by_punct` is true, which does not count beside this tokenizer.json: words are not",
                "`do_basic_tokenize` is true, which does not count beside this tokenizer.json: words are not",
                "`remove_space` is true, which does not count beside this tokenizer.json: spaces around",
            ],
        ),
    ] {
        let log = told("albert.json", stated(words, "PreTrainedTokenizerFast"));
        assert_eq!(log.matches(" WARN ").count(), expected.len(), "{log}");
        for words in expected {
            assert_eq!(log.matches(words).count(), 1, "missing: {words}\n{log}");
            assert!(log.contains(&format!("tokenizer_config.json: {words}")), "{log}");
        }
    }
    // What a class is made by is met, and what is met is not worth a word.
    let counts = json!({
        "tokenizer_class": "AlbertTokenizer", "do_lower_case": false, "keep_accents": true,
        "add_prefix_space": false, "remove_space": true,
    });
    assert_eq!(told("albert.json", counts), "");
    let log = told(
        "xlm_roberta.json",
        json!({ "tokenizer_class": "XLMRobertaTokenizer", "do_lower_case": true }),
    );
    assert!(log.contains("capitals are kept"), "{log}");
    let log = told("llama_bpe/tokenizer.model", json!({ "add_prefix_space": false }));
    assert!(log
        .contains("`add_prefix_space` is false, which does not count beside this tokenizer.model"));
    let byte_level =
        json!({ "do_lower_case": false, "strip_accents": false, "add_prefix_space": null });
    assert_eq!(told("llama.json", byte_level), "");
}

/// The model's reader takes them, so the tokenizer's must not read another file of the same name.
#[test]
fn settings_count_beside_numbers_that_only_python_reads() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let ids = || {
        let encoder = TextEncoder::from_folder(folder.path(), 16)?;
        Ok::<_, aflora_models::Error>(encoder.encode(&[("The FILM <ent>", None)])?.remove(0).ids)
    };
    std::fs::copy(fixture("word_piece/tokenizer.json"), folder.path().join("tokenizer.json"))
        .unwrap();
    let files = [
        ("config.json", r#"{"model_type": "bert"}"#),
        ("tokenizer_config.json", r#"{"do_lower_case": false}"#),
        ("special_tokens_map.json", r#"{"additional_special_tokens": ["<ent>"]}"#),
        ("added_tokens.json", r#"{"<ent>": 86}"#),
    ];
    let lowered = ids().unwrap();
    files.iter().for_each(|(name, text)| write(name, text));
    let cased = ids().unwrap();
    assert_ne!(cased, lowered);
    for (name, text) in files {
        let odd = match name {
            // Its keys are tokens, its values their ids.
            "added_tokens.json" => format!("\u{feff}{}", text.replace("86", "86.0")),
            _ => format!("\u{feff}{}", text.replacen('{', "{\"limit\": [NaN, -Infinity], ", 1)),
        };
        write(name, &odd);
        assert_eq!(ids().unwrap(), cased, "{name}");
        write(name, "{\"model_type\": \"bert\", ");
        let error = ids().unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("EOF"), "{error}");
        write(name, text);
    }
}

#[test]
fn a_setting_that_no_tokenizer_has_is_told_with_its_file() {
    let error = |file: &str, keys: &str| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(fixture("word_piece/vocab.txt"), folder.path().join("vocab.txt")).unwrap();
        std::fs::write(folder.path().join(file), keys).unwrap();
        TextEncoder::from_folder(folder.path(), 16).unwrap_err().to_string()
    };
    let config = "tokenizer_config.json";
    for (file, keys, expected) in [
        (config, r#"{"do_lower_case": "yes"}"#, "`do_lower_case` is \"yes\", but must be true or"),
        (config, r#"{"truncation_side": "top"}"#, "`truncation_side` is `top`, not `left`"),
        (config, r#"{"added_tokens_decoder": {"x": "a"}}"#, "has no token for `x`"),
        (config, r#"{"pad_token": 3}"#, "`pad_token` is 3, but must be a token"),
        (config, r#"{"cls_token": null}"#, "its settings have no cls_token"),
        (config, "[1]", "invalid type"),
        ("special_tokens_map.json", "{", "EOF"),
        ("added_tokens.json", r#"{"<ent>": -1}"#, "`<ent>` has the id -1, which is no token's"),
        // Slow tokenizers gave it the id of the file, fast ones the next: neither, without a word.
        (
            "added_tokens.json",
            r#"{"<ent>": 90}"#,
            "`<ent>` should have the id 90, but is number 86",
        ),
    ] {
        let words = error(file, keys);
        assert!(words.contains(expected), "missing: {expected}\n{words}");
    }
}

/// Cached tokens of other settings are other tokens.
#[test]
fn every_setting_changes_the_fingerprint() {
    let fingerprint = |keys: &str| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(fixture("word_piece/vocab.txt"), folder.path().join("vocab.txt")).unwrap();
        std::fs::write(folder.path().join("tokenizer_config.json"), keys).unwrap();
        TextEncoder::from_folder(folder.path(), 16).unwrap().fingerprint().unwrap()
    };
    let settings = [
        "{}",
        r#"{"do_lower_case": false}"#,
        r#"{"strip_accents": false}"#,
        r#"{"tokenize_chinese_chars": false}"#,
        r#"{"truncation_side": "left"}"#,
        r#"{"split_special_tokens": true}"#,
        r#"{"sep_token": "film"}"#,
        r#"{"additional_special_tokens": ["<ent>"]}"#,
    ];
    let all: std::collections::BTreeSet<Vec<u8>> = settings.map(fingerprint).into();
    assert_eq!(all.len(), settings.len());
}

//! Files that once panicked, crashed, or took all memory; each test has the name of what was
//! wrong, and the smallest file that showed it.

use crate::common::{bert, cpu, fixture};
use aflora_models::adapter_folder::AdapterFolder;
use aflora_models::weights::Checkpoint;
use aflora_models::{build, Head, Options, TextEncoder};
use std::fs;
use std::io::Write;
use std::path::Path;
use tch::{Device, Kind};

/// What is wrong with a `pytorch_model.bin` that has this pickle.
fn pickle(program: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pytorch_model.bin");
    let mut archive = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    archive.start_file("archive/data.pkl", stored).unwrap();
    archive.write_all(program).unwrap();
    archive.finish().unwrap();
    Checkpoint::open(&path).map(drop).unwrap_err().to_string()
}

/// Values nested by reference ran out of stack when they were dropped.
#[test]
fn a_pickle_nested_a_million_deep_is_refused() {
    let nested = [&b"\x80\x02)"[..], &vec![0x85; 1_000_000], b"."].concat();
    assert!(pickle(&nested).contains("no dict of tensors"), "tuples");
    // A list appended to one that is in another already.
    let lists = [&b"\x80\x02]"[..], &b"]a".repeat(100_000), b"."].concat();
    assert!(pickle(&lists).contains("no dict of tensors"), "lists");
}

#[test]
fn a_list_in_itself_is_refused() {
    assert!(pickle(b"\x80\x02]q\x00h\x00a.").contains("no dict of tensors"));
}

/// One long shape, recalled for each of many tensors, took its length in memory for each.
#[test]
fn a_shape_of_many_dimensions_is_refused() {
    let storage = b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQ";
    let mut program = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n".to_vec();
    program.extend_from_slice(storage);
    program.extend_from_slice(b"K\0(");
    program.extend_from_slice(&b"K\x01".repeat(65));
    program.extend_from_slice(b"tq\x00h\x00tR.");
    let error = pickle(&program);
    assert!(error.contains("a tensor of 65 dimensions"), "{error}");
}

#[test]
fn a_key_without_a_value_is_refused() {
    let error = pickle(b"\x80\x02}(Nu.");
    assert!(error.contains("sets a key of a dict to nothing"), "{error}");
}

/// A header may claim anything; what counts is what the file holds.
#[test]
fn sizes_that_a_header_claims_take_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let header = br#"{"a":{"dtype":"F32","shape":[1024,262144],"data_offsets":[0,1073741824]}}"#;
    for (length, header) in [
        (header.len() as u64, &header[..]),
        (1 << 60, b"{}"),
        (u64::MAX, b"{}"),
        (2, br#"{}"#),
        (100_000_001, b"{}"),
    ] {
        let bytes = [&length.to_le_bytes()[..], header].concat();
        fs::write(&path, &bytes).unwrap();
        match Checkpoint::open(&path) {
            Ok(checkpoint) => assert_eq!(checkpoint.shapes().count(), 0),
            Err(error) => assert!(error.to_string().contains("not a readable safetensors")),
        }
    }
}

#[test]
fn nested_and_repeated_keys_of_a_header_are_no_crash() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    for header in ["[".repeat(100_000), "{\"a\":".repeat(100_000), "{\"a\":NaN}".into()] {
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        fs::write(&path, bytes).unwrap();
        assert!(Checkpoint::open(&path).is_err());
    }
}

#[test]
fn an_index_leads_nowhere_but_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("model");
    fs::create_dir(&inner).unwrap();
    let secret = folder.path().join("secret.safetensors");
    fs::copy(fixture("checkpoints/tensors.safetensors"), &secret).unwrap();
    for file in ["../secret.safetensors", &secret.display().to_string(), "..", ".", "", "a/../b"] {
        let index = serde_json::json!({ "weight_map": { "a": file } });
        fs::write(inner.join("model.safetensors.index.json"), index.to_string()).unwrap();
        let error = Checkpoint::open(&inner).map(drop).unwrap_err().to_string();
        assert!(error.contains("is no file name"), "{file}: {error}");
    }
}

/// They were built in full before anything was compared: memory ran out.
#[test]
fn a_config_that_claims_more_than_any_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let changed = |from: &str, key: &str, value: serde_json::Value| {
        let text = fs::read_to_string(fixture(from)).unwrap();
        let mut keys: serde_json::Value = serde_json::from_str(&text).unwrap();
        keys[key] = value;
        fs::write(&path, keys.to_string()).unwrap();
    };
    for (key, value, expected) in [
        ("vocab_size", 10_000_000_000_000_i64, "no model has so many"),
        ("num_hidden_layers", 1_000_000_000_000, "no model has so many"),
        ("hidden_size", 4_000_000_000, "no model has so many"),
        ("hidden_size", 16_000_000, "no model has so large a matrix"),
        ("intermediate_size", i64::MAX, "no model has so many"),
    ] {
        changed("bert_classes/config.json", key, value.into());
        let error =
            build("bert", &path, Head::Classes(2), &cpu()).map(drop).unwrap_err().to_string();
        assert!(error.contains(expected), "{key}: {error}");
    }
    changed("bert_classes/config.json", "vocab_size", serde_json::json!(1e30));
    assert!(build("bert", &path, Head::Classes(2), &cpu()).is_err());
    changed("writers/llama/config.json", "num_hidden_layers", 1_000_000_000.into());
    let options = Options::new(Device::Cpu);
    let error = build("llama", &path, Head::Language, &options).map(drop).unwrap_err().to_string();
    assert!(error.contains("`num_hidden_layers` is 1000000000; no model"), "{error}");
}

/// A rank without its matrices: they were made before they were missed.
#[test]
fn an_adapter_that_claims_a_rank_it_has_no_tensors_of_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let from = fixture("peft/lora");
    let weights = "adapter_model.safetensors";
    fs::copy(from.join(weights), folder.path().join(weights)).unwrap();
    let text = fs::read_to_string(from.join("adapter_config.json")).unwrap();
    for rank in [10_000_000_i64, 1_000_000_000_000, i64::MAX, 0, -1] {
        let mut keys: serde_json::Value = serde_json::from_str(&text).unwrap();
        keys["r"] = rank.into();
        fs::write(folder.path().join("adapter_config.json"), keys.to_string()).unwrap();
        let opened = AdapterFolder::open(folder.path());
        let attached = opened.and_then(|a| a.attach(bert("bert_classes", 2), Kind::Float));
        let error = attached.map(drop).unwrap_err().to_string();
        assert!(error.contains("rank"), "{rank}: {error}");
    }
}

fn tokenizer(files: &[(&str, &[u8])]) -> String {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let encoder = TextEncoder::from_folder(folder.path(), 16);
    encoder.map(drop).unwrap_err().to_string()
}

/// The tokenizers crate unwraps what it could not read of a decoder.
#[test]
fn a_decoder_that_is_no_decoder_is_an_error_and_no_panic() {
    let text = br#"{"version":"1.0","decoder":{"type":"Fuse","a":"#;
    assert!(tokenizer(&[("tokenizer.json", text)]).contains("damaged tokenizer"));
}

/// The table of a normaliser is read at its fifth byte, whether or not it has one.
#[test]
fn a_normaliser_without_a_table_is_an_error_and_no_panic() {
    let mut model = Vec::new();
    for text in ["[PAD]", "[CLS]", "[SEP]", "[UNK]"] {
        model.extend_from_slice(&[0x0a, 7, 0x0a, 5]);
        model.extend_from_slice(text.as_bytes());
    }
    model.extend_from_slice(&[0x12, 5, 0x18, 1, 0xc0, 0x02, 3]);
    model.extend_from_slice(&[0x1a, 6, 0x12, 4, 0, 0, 0, 0]);
    let encoder = tokenizer_or(&[("spm.model", &model)]);
    assert!(encoder.is_none_or(|error| error.contains("damaged tokenizer")));
}

/// What is wrong, if the tokenizer cannot be read or cannot encode.
fn tokenizer_or(files: &[(&str, &[u8])]) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let encoder = TextEncoder::from_folder(folder.path(), 16);
    let encoded = encoder.and_then(|e| e.encode(&[("a film", None)]).map(drop));
    encoded.err().map(|error| error.to_string())
}

/// Writing a vocabulary down took a place for every number below the largest id.
#[test]
fn a_token_of_the_largest_number_is_refused() {
    let vocab = br#"{"<s>":0,"<pad>":1,"</s>":2,"<unk>":4294967290}"#;
    let error = tokenizer(&[("vocab.json", vocab), ("merges.txt", b"#version: 0.2\n")]);
    assert!(error.contains("no vocabulary is so large"), "{error}");
}

/// Each cut of a piece is looked up: a piece of a megabyte took hours.
#[test]
fn a_piece_of_a_megabyte_is_refused_at_once() {
    let piece = [&b"\x0a\xc0\x84\x3d"[..], &vec![b'a'; 1_000_000]].concat();
    let mut model = b"\x0a\xc4\x84\x3d".to_vec();
    model.extend_from_slice(&piece);
    // BPE with pieces for bytes, which normalises nothing.
    model.extend_from_slice(&[0x12, 5, 0x18, 2, 0x98, 0x02, 1]);
    model.extend_from_slice(&[0x1a, 2, 0x20, 0]);
    let error = tokenizer(&[("tokenizer.model", &model)]);
    assert!(error.contains("a piece of 1000000 bytes"), "{error}");
}

/// A tokenizer.json with one part of one's own.
fn tokenizer_json(part: &str, value: serde_json::Value) -> Vec<u8> {
    let mut keys = serde_json::json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "unk_token": "a", "vocab": { "a": 0, "b": 1 } },
    });
    keys[part] = value;
    keys.to_string().into_bytes()
}

/// Each makes a text twice as long: the forty took 7 GB for a letter.
#[test]
fn a_tokenizer_json_of_forty_replacements_is_refused() {
    let twice =
        serde_json::json!({ "type": "Replace", "pattern": { "String": "a" }, "content": "aa" });
    for (part, list) in [("normalizer", "normalizers"), ("decoder", "decoders")] {
        let steps = serde_json::json!({ "type": "Sequence", list: vec![twice.clone(); 40] });
        let error = tokenizer(&[("tokenizer.json", &tokenizer_json(part, steps))]);
        let expected = format!("its {part} may make a text 1099511627776 times as long");
        assert!(error.contains(&expected), "{error}");
        let few = serde_json::json!({ "type": "Sequence", list: vec![twice.clone(); 4] });
        assert_eq!(tokenizer_or(&[("tokenizer.json", &tokenizer_json(part, few))]), None);
    }
}

/// A word of 300,000 letters took WordPiece 40 s, and a text of 1 MB a unigram model with a piece of
/// 1,000 letters more than a minute.
#[test]
fn a_tokenizer_json_whose_model_looks_at_all_of_a_long_word_is_refused() {
    let word_piece = |letters: u64, prefix: &str| {
        serde_json::json!({
            "type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": prefix,
            "max_input_chars_per_word": letters, "vocab": { "a": 0, "##a": 1 },
        })
    };
    let bpe = |prefix: &str| {
        serde_json::json!({
            "type": "BPE", "continuing_subword_prefix": prefix, "vocab": { "a": 0 }, "merges": [],
        })
    };
    let unigram = |bytes: usize| {
        let vocab = serde_json::json!([["a", 0.0], ["b".repeat(bytes), -1.0]]);
        serde_json::json!({ "type": "Unigram", "unk_id": 0, "vocab": vocab })
    };
    let long = "#".repeat(257);
    for (model, expected) in [
        (word_piece(1_000_000_000, "##"), "`max_input_chars_per_word` is 1000000000; 1000 at most"),
        (word_piece(100, &long), "`continuing_subword_prefix` has 257 bytes; 256 at most"),
        (bpe(&long), "`continuing_subword_prefix` has 257 bytes; 256 at most"),
        (unigram(513), "it has a piece of 513 bytes; 512 are the most"),
    ] {
        let error = tokenizer(&[("tokenizer.json", &tokenizer_json("model", model))]);
        assert!(error.contains("tokenizer.json") && error.contains(expected), "{error}");
    }
    for model in [word_piece(1_000, "##"), bpe("##"), unigram(512)] {
        assert_eq!(tokenizer_or(&[("tokenizer.json", &tokenizer_json("model", model))]), None);
    }
}

/// A template of 5,000 times a token of 50,000 ids took 10 GB for a letter.
#[test]
fn a_tokenizer_json_whose_template_names_thousands_of_tokens_is_refused() {
    let template = |times: usize, ids: usize| {
        let special = serde_json::json!({ "SpecialToken": { "id": "x", "type_id": 0 } });
        let text = serde_json::json!({ "Sequence": { "id": "A", "type_id": 0 } });
        let other = serde_json::json!({ "Sequence": { "id": "B", "type_id": 1 } });
        let single = [vec![special; times], vec![text.clone()]].concat();
        serde_json::json!({
            "type": "TemplateProcessing",
            "single": single,
            "pair": [text, other],
            "special_tokens": { "x": { "id": "x", "ids": vec![1; ids], "tokens": vec!["x"; ids] } },
        })
    };
    let json = tokenizer_json("post_processor", template(500, 5_000));
    let error = tokenizer(&[("tokenizer.json", &json)]);
    assert!(error.contains("puts 2500000 tokens around a text"), "{error}");
    let json = tokenizer_json("post_processor", template(2, 3));
    assert_eq!(tokenizer_or(&[("tokenizer.json", &json)]), None);
    let text = serde_json::json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let mut again = template(1, 1);
    again["single"] = vec![text; 99].into();
    let json = tokenizer_json("post_processor", again);
    let error = tokenizer(&[("tokenizer.json", &json)]);
    assert!(error.contains("which it takes 99 times"), "{error}");
}

#[cfg(unix)]
#[test]
fn folders_and_pipes_are_no_files_and_nothing_waits_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let made = std::process::Command::new("mkfifo").arg(folder.path().join("config.json")).status();
    assert!(made.unwrap().success());
    let pipe = folder.path().join("config.json");
    let error = build("bert", &pipe, Head::Classes(2), &cpu()).map(drop).unwrap_err().to_string();
    assert!(error.contains("a pipe or device"), "{error}");
    for path in [&pipe, Path::new("/dev/zero")] {
        let error = Checkpoint::open(path).map(drop).unwrap_err().to_string();
        assert!(error.contains("a pipe or device"), "{error}");
    }
    fs::create_dir(folder.path().join("adapter_config.json")).unwrap();
    let error = AdapterFolder::open(folder.path()).map(drop).unwrap_err().to_string();
    assert!(error.contains("it is a folder"), "{error}");
}

/// A config.json of a larger model, or a damaged one, beside weights that are not its own.
#[test]
fn a_config_of_a_larger_model_than_its_weights_is_refused_before_it_is_built() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, config) = ("model.safetensors", folder.path().join("config.json"));
    fs::copy(fixture("bert_classes/model.safetensors"), folder.path().join(weights)).unwrap();
    let text = fs::read_to_string(fixture("bert_classes/config.json")).unwrap();
    fs::write(&config, &text).unwrap();
    aflora_models::weights::check_size(folder.path(), &config).unwrap();
    let mut keys: serde_json::Value = serde_json::from_str(&text).unwrap();
    keys["vocab_size"] = 10_000_000.into();
    fs::write(&config, keys.to_string()).unwrap();
    let error = aflora_models::weights::check_size(folder.path(), &config).unwrap_err();
    assert!(error.to_string().contains("embeddings of 320000000 numbers"), "{error}");
}

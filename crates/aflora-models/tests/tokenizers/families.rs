//! The tokenizers of the families of models that write, each with the parts and settings that its
//! released models have, against transformers (`fixtures/make_families.py`).

use crate::common::fixture;
use aflora_models::TextEncoder;
use serde::de::DeserializeOwned;
use serde_json::{json, Value};
use std::collections::HashMap;
use tempfile::TempDir;

/// A family's files, and what transformers makes of them.
pub struct Family {
    pub name: String,
    pub folder: TempDir,
    golden: Value,
}

impl Family {
    pub fn encoder(&self) -> TextEncoder {
        TextEncoder::from_folder(self.folder.path(), 1 << 20).unwrap()
    }

    fn get<T: DeserializeOwned>(&self, key: &str) -> T {
        serde_json::from_value(self.golden[key].clone()).unwrap()
    }
}

fn golden() -> Value {
    let text = std::fs::read_to_string(fixture("families.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

pub fn texts() -> Vec<String> {
    serde_json::from_value(golden()["texts"].clone()).unwrap()
}

pub fn families() -> Vec<Family> {
    let golden = golden();
    let rows = golden["families"].as_array().unwrap();
    assert!(rows.len() > 20);
    let family = |row: &Value| {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, value: &Value| {
            std::fs::write(folder.path().join(name), value.to_string()).unwrap();
        };
        let mut tokenizer = row["tokenizer"].clone();
        let (kind, first, last): (String, Vec<String>, Vec<String>) =
            serde_json::from_value(row["vocabulary"].clone()).unwrap();
        let vocabulary = &golden["vocabularies"][&kind];
        if let Some(pieces) = vocabulary["pieces"].as_array() {
            let unscored = |tokens: &[String]| tokens.iter().map(|t| json!([t, 0.0])).collect();
            let (first, last): (Vec<Value>, Vec<Value>) = (unscored(&first), unscored(&last));
            tokenizer["model"]["vocab"] = [&first[..], pieces, &last].concat().into();
        } else {
            let tokens: Vec<String> = serde_json::from_value(vocabulary["tokens"].clone()).unwrap();
            let tokens = [first, tokens, last].concat();
            let ids: HashMap<&str, usize> = tokens.iter().map(String::as_str).zip(0..).collect();
            tokenizer["model"]["vocab"] = json!(ids);
            tokenizer["model"]["merges"] = vocabulary["merges"].clone();
        }
        write("tokenizer.json", &tokenizer);
        for (name, keys) in row["beside"].as_object().unwrap() {
            write(name, keys);
        }
        let name = row["name"].as_str().unwrap().to_string();
        Family { name, folder, golden: row.clone() }
    };
    rows.iter().map(family).collect()
}

/// Of what does not agree the first few, where there is any.
fn none_wrong(wrong: &[String]) {
    let first = wrong[..wrong.len().min(12)].join("\n");
    assert!(wrong.is_empty(), "{} differ:\n{first}", wrong.len());
}

#[test]
fn texts_of_every_family_are_the_tokens_of_transformers() {
    let texts = texts();
    let inputs: Vec<(&str, Option<&str>)> = texts.iter().map(|t| (t.as_str(), None)).collect();
    let bare: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut wrong = Vec::new();
    for family in families() {
        let encoder = family.encoder();
        let [before, behind] = family.get::<[usize; 2]>("around");
        let expected: Vec<Vec<i64>> = family.get("ids");
        let found = encoder.encode(&inputs).unwrap();
        let plain = encoder.encode_plain(&bare).unwrap();
        for (((text, ids), found), plain) in texts.iter().zip(expected).zip(found).zip(plain) {
            let name = &family.name;
            if found.ids != ids {
                wrong.push(format!("{name}: {text:?}\n  {:?}\n  {ids:?}", found.ids));
            }
            let expected = &ids[before..ids.len() - behind];
            if plain != expected {
                wrong.push(format!("{name}: {text:?} alone\n  {plain:?}\n  {expected:?}"));
            }
        }
    }
    none_wrong(&wrong);
}

#[test]
fn pairs_of_every_family_are_the_tokens_of_transformers() {
    let pairs: Vec<(String, String)> = serde_json::from_value(golden()["pairs"].clone()).unwrap();
    let inputs: Vec<_> = pairs.iter().map(|(a, b)| (a.as_str(), Some(b.as_str()))).collect();
    let mut wrong = Vec::new();
    for family in families() {
        let (ids, types): (Vec<Vec<i64>>, Vec<Vec<i64>>) =
            (family.get("pairs"), family.get("types"));
        let found = family.encoder().encode(&inputs).unwrap();
        for (((pair, found), ids), types) in pairs.iter().zip(found).zip(ids).zip(types) {
            if found.ids != ids || found.type_ids != types {
                let found = format!("{:?} {:?}", found.ids, found.type_ids);
                wrong.push(format!("{}: {pair:?}\n  {found}\n  {ids:?} {types:?}", family.name));
            }
        }
    }
    none_wrong(&wrong);
}

#[test]
fn tokens_of_every_family_give_the_text_of_transformers() {
    let texts = texts();
    let mut wrong = Vec::new();
    for family in families() {
        let encoder = family.encoder();
        let (ids, decoded): (Vec<Vec<i64>>, Vec<Option<String>>) =
            (family.get("ids"), family.get("decoded"));
        for ((text, ids), decoded) in texts.iter().zip(ids).zip(decoded) {
            let (expected, found) =
                (decoded.as_ref().unwrap_or(text), encoder.decode(&ids).unwrap());
            if found != *expected {
                wrong.push(format!("{}: {text:?}\n  {found:?}\n  {expected:?}", family.name));
            }
        }
    }
    none_wrong(&wrong);
}

#[test]
fn batches_of_every_family_are_filled_with_its_own_padding_token() {
    for family in families() {
        let pad: Option<i64> = family.get("pad");
        assert_eq!(family.encoder().pad_id(), pad.unwrap_or(0), "{}", family.name);
    }
}

/// Such as Yi's: transformers 5 puts a space there, where no setting says that there is none.
#[test]
fn a_llama_s_file_that_puts_no_space_before_a_text_is_believed() {
    let families = families();
    let path = families.iter().find(|family| family.name == "llama-2").unwrap().folder.path();
    let ids = |text: &str| {
        let encoder = TextEncoder::from_folder(path, 64).unwrap();
        let ids = encoder.encode_plain(&[text]).unwrap().remove(0);
        (encoder.decode(&ids).unwrap(), ids)
    };
    let (spaced, prefixed) = (ids(" film"), ids("film"));
    assert_eq!(prefixed.1, spaced.1, "the one space is the file's own");
    let file = path.join("tokenizer.json");
    let mut keys: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    keys["normalizer"]["normalizers"].as_array_mut().unwrap().remove(0);
    keys["decoder"]["decoders"].as_array_mut().unwrap().pop();
    std::fs::write(&file, keys.to_string()).unwrap();
    assert_eq!(ids(" film"), (" film".to_string(), prefixed.1.clone()));
    let (text, bare) = ids("film");
    assert_eq!(text, "film");
    assert_ne!(bare, prefixed.1);
}

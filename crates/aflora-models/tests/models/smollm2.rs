//! The real SmolLM2-135M-Instruct, a GGUF file in four bits, against transformers on the same
//! dequantised weights (`fixtures/make_smollm2.py`). Where `make assets MODEL=smollm2-135m` has not
//! fetched it, the test says that it was skipped.

use crate::common::{cpu, fixture, relative};
use aflora_models::generate::{write, GenerationConfig};
use aflora_models::{build, kind_of, weights, Batch, Chat, ChatTemplate, Head, TextEncoder};
use serde_json::{json, Value};
use std::io::Write as _;
use std::path::PathBuf;
use tch::Tensor;

/// The file, if it is there.
fn file() -> Option<PathBuf> {
    let file = fixture("../../../../.assets/smollm2-135m").join("SmolLM2-135M-Instruct.Q4_1.gguf");
    if file.is_file() {
        return Some(file);
    }
    // Written past the test runner, which shows nothing of a test that passes.
    let _ = writeln!(std::io::stderr(), "skipped, it needs `make assets MODEL=smollm2-135m`");
    None
}

#[test]
fn tokens_chats_logits_and_texts_of_the_real_smollm2_are_those_of_transformers() {
    let Some(file) = file() else { return };
    let golden: Value =
        serde_json::from_slice(&std::fs::read(fixture("smollm2.json")).unwrap()).unwrap();
    fn list<T: serde::de::DeserializeOwned>(golden: &Value, key: &str) -> Vec<T> {
        serde_json::from_value(golden[key].clone()).unwrap()
    }
    let encoder = TextEncoder::from_folder(&file, 512).unwrap();
    let ids = |text: &str| encoder.encode(&[(text, None)]).unwrap().remove(0).ids;
    for (text, expected) in
        list::<String>(&golden, "texts").iter().zip(list::<Vec<i64>>(&golden, "ids"))
    {
        assert_eq!(ids(text), expected, "{text:?}");
    }

    let template = ChatTemplate::from_folder(&file).unwrap().unwrap();
    let config = file.join("config.json");
    let model = build(kind_of(&config).unwrap().kind, &config, Head::Language, &cpu()).unwrap();
    assert_eq!(weights::load(model.as_ref(), &file).unwrap().loaded, 272);
    let rendered = list::<String>(&golden, "rendered");
    let prompts = list::<Vec<i64>>(&golden, "prompts");
    let logits = list::<Vec<f64>>(&golden, "logits");
    let written = list::<Vec<i64>>(&golden, "written");
    for (i, messages) in list::<Vec<Value>>(&golden, "chats").iter().enumerate() {
        let chat = Chat { messages, add_generation_prompt: true, ..Chat::default() };
        let text = template.render(&chat).unwrap().text;
        assert_eq!(text, rendered[i]);
        assert_eq!(ids(&text), prompts[i]);
        let prompt = Tensor::from_slice(&prompts[i]).unsqueeze(0);
        let batch = Batch::new(prompt.shallow_clone(), prompt.ones_like());
        let found = tch::no_grad(|| model.forward(&batch, false)).unwrap().logits;
        let found = found.get(0).get(-1).slice(0, None, None, 512);
        let apart = relative(&found, &Tensor::from_slice(&logits[i]));
        println!("logits of a chat: {apart:.1e}");
        assert!(apart < 1e-5, "{apart}");
        let greedy: GenerationConfig =
            serde_json::from_value(json!({ "max_new_tokens": 24, "num_beams": 1 })).unwrap();
        let batch = Batch { left_padded: true, ..batch };
        let writer = model.text_generator().unwrap();
        let found = write(writer, &batch, &greedy).unwrap();
        // The end is none of the text.
        let ends = |id: &i64| writer.tokens().eos.contains(id);
        let expected: Vec<i64> = written[i].iter().copied().filter(|id| !ends(id)).collect();
        assert_eq!(found, [expected]);
    }
}

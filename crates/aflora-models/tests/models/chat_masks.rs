//! What is learned of a conversation against transformers' mask of the assistant's tokens:
//! `fixtures/make_chat_masks.py`.

use aflora_models::chat::message;
use aflora_models::{Chat, ChatTemplate, TextEncoder};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat_masks")
}

fn golden() -> Value {
    serde_json::from_str(include_str!("../fixtures/chat_masks/cases.json")).unwrap()
}

fn template(source: &str) -> ChatTemplate {
    let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
    let tokens = tokens.map(|(name, token)| (name.to_string(), token.to_string()));
    ChatTemplate::new(source, tokens.into(), Path::new("chat_template.jinja")).unwrap()
}

fn encoder() -> TextEncoder {
    TextEncoder::from_folder(&folder(), 1 << 20).unwrap()
}

/// Token ids, and which of them the assistant writes.
fn tokens(encoder: &TextEncoder, template: &ChatTemplate, messages: &[Value]) -> (Value, Value) {
    let chat = Chat { messages, ..Chat::default() };
    let rendered = template.turns(&chat, &encoder.added_tokens()).unwrap();
    let placed = encoder.encode_with_places(&[&rendered.text]).unwrap().remove(0);
    let of = placed.of(&rendered.assistant);
    (placed.ids.into(), of.into_iter().map(u8::from).collect())
}

/// Both where the template marks what the assistant writes, and where that is found.
#[test]
fn the_assistants_tokens_are_those_of_transformers() {
    let (golden, encoder) = (golden(), encoder());
    for kind in ["templates", "plain"] {
        for case in golden["cases"].as_array().unwrap() {
            let name = case["template"].as_str().unwrap();
            let template = template(golden[kind][name].as_str().unwrap());
            assert_eq!(template.tells_what_the_assistant_writes(), kind == "templates");
            let (ids, mask) = tokens(&encoder, &template, case["messages"].as_array().unwrap());
            let place = format!("{kind} {name} {} {:?}", case["called"], case["text"]);
            assert_eq!(ids, case["ids"], "{place}");
            assert_eq!(mask, case["mask"], "{place}");
        }
    }
}

fn refusal(source: &str, messages: &[Value]) -> String {
    let chat = Chat { messages, ..Chat::default() };
    template(source).turns(&chat, &encoder().added_tokens()).unwrap_err().to_string()
}

#[test]
fn a_template_that_does_not_tell_what_the_assistant_writes_is_refused() {
    let talk = [message("user", "a"), message("assistant", "b"), message("user", "c")];
    // What begins an answer is not in the conversation.
    let thinks = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|eot|>{% endfor %}\
                  {% if add_generation_prompt %}<|assistant|><think>{% endif %}";
    let error = refusal(thinks, &talk);
    assert!(error.contains("writes begins (message 2)"), "{error}");
    // A turn that is not the last is written quite otherwise.
    let other = "{% for m in messages %}{{ m.role }}: {% if loop.last %}{{ m.content | upper }}!\
                 {% else %}{{ m.content }}{% endif %}{% endfor %}\
                 {% if add_generation_prompt %}assistant: {% endif %}";
    let error = refusal(other, &talk);
    assert!(error.contains("writes begins (message 2)"), "{error}");
    let other = other.replace("m.content | upper }}!", "m.content if m.role == 'user' else 'x' }}");
    let error = refusal(&other, &talk);
    assert!(error.contains("writes ends (message 2)"), "{error}");
    let nothing =
        "{% for m in messages %}{% if m.role == 'x' %}{% generation %}x{% endgeneration %}\
                   {% endif %}{{ m.content }}{% endfor %}";
    let error = refusal(nothing, &talk);
    assert!(error.contains("but nothing in this conversation"), "{error}");
    let error = refusal(thinks, &talk[1..]);
    assert!(error.contains("the conversation begins with the assistant"), "{error}");
}

#[test]
fn the_shipped_templates_write_turns_that_end() {
    let encoder = encoder();
    let talk = [message("system", "s"), message("user", " a "), message("assistant", "b\n")];
    for (name, text, own) in [
        ("plain", "<s>System: s\nUser: a\nAssistant: b</s>\n", " b</s>"),
        (
            "chatml",
            "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\n a <|im_end|>\n<|im_start|>assistant\nb\n<|im_end|>\n",
            "b\n<|im_end|>",
        ),
    ] {
        let source = aflora_models::chat::shipped(name, "<s>", "</s>").unwrap();
        let chat = Chat { messages: &talk, ..Chat::default() };
        let rendered = template(&source).turns(&chat, &encoder.added_tokens()).unwrap();
        assert_eq!(rendered.text, text);
        let [range] = &rendered.assistant[..] else { panic!("{:?}", rendered.assistant) };
        assert_eq!(&rendered.text[range.clone()], own);
    }
    assert!(aflora_models::chat::SHIPPED
        .iter()
        .all(|name| { aflora_models::chat::shipped(name, "", "</s>").is_some() }));
    assert_eq!(aflora_models::chat::shipped("other", "", ""), None);
}

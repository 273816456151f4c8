//! Chat templates against transformers' `apply_chat_template`: `fixtures/make_chat.py`.

use aflora_models::chat::message;
use aflora_models::{Chat, ChatTemplate};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

fn golden() -> Value {
    serde_json::from_str(include_str!("../fixtures/chat.json")).unwrap()
}

fn list(value: &Value) -> Option<&[Value]> {
    value.as_array().map(Vec::as_slice)
}

fn template(source: &str) -> aflora_models::Result<ChatTemplate> {
    let tokens = golden()["tokens"].as_object().unwrap().clone();
    let tokens = tokens.into_iter().map(|(k, v)| (k, v.as_str().unwrap().to_string()));
    ChatTemplate::new(source, tokens.collect(), Path::new("chat_template.jinja"))
}

fn of(messages: &[Value]) -> Chat<'_> {
    Chat { messages, ..Chat::default() }
}

#[test]
fn conversations_are_written_as_transformers_writes_them() {
    let golden = golden();
    let templates: BTreeMap<&str, ChatTemplate> = golden["templates"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, source)| (name.as_str(), template(source.as_str().unwrap()).unwrap()))
        .collect();
    let mut wrong = Vec::new();
    for case in list(&golden["cases"]).unwrap() {
        let inputs = &golden["inputs"][case["inputs"].as_u64().unwrap() as usize];
        let chat = Chat {
            messages: list(&golden["conversations"][case["conversation"].as_str().unwrap()])
                .unwrap(),
            tools: list(&inputs["tools"]),
            documents: list(&inputs["documents"]),
            add_generation_prompt: inputs["add_generation_prompt"].as_bool().unwrap_or(false),
            variables: inputs["variables"].as_object(),
        };
        let rendered = templates[case["template"].as_str().unwrap()].render(&chat);
        let rendered = rendered.map(|rendered| rendered.text).map_err(|error| error.to_string());
        let agrees = match (&rendered, case["text"].as_str()) {
            (Ok(text), Some(expected)) => text == expected,
            (Err(_), None) => true,
            _ => false,
        };
        if !agrees {
            wrong.push(format!(
                "{} {} {inputs}\n  {rendered:?}\n  {:?}",
                case["template"],
                case["conversation"],
                case["text"].as_str().or(case["error"].as_str())
            ));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong[..wrong.len().min(6)].join("\n"));
}

#[test]
fn what_templates_use_of_jinja_and_python_does_as_there() {
    let golden = golden();
    let messages = list(&golden["small"]).unwrap();
    let render = |source: &str| template(source)?.render(&of(messages)).map(|made| made.text);
    let features: Vec<(String, Option<String>)> =
        serde_json::from_value(golden["features"].clone()).unwrap();
    assert!(features.len() > 100);
    let mut wrong = Vec::new();
    for (source, expected) in features {
        let found = render(&source).map_err(|error| error.to_string());
        if found.as_ref().ok() != expected.as_ref() {
            wrong.push(format!("{source}\n  {found:?}\n  {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let refused: Vec<(String, String)> = serde_json::from_value(golden["refused"].clone()).unwrap();
    for (source, words) in refused {
        let error = render(&source).unwrap_err().to_string();
        assert!(error.contains(&words), "{source}: {error}");
    }
}

#[test]
fn what_a_template_says_is_the_error() {
    let gemma = template(golden()["templates"]["gemma"].as_str().unwrap()).unwrap();
    let error = gemma.render(&of(&[message("system", "x")])).unwrap_err().to_string();
    let words = "it refuses the conversation: System role not supported";
    assert_eq!(error, format!("chat_template.jinja: the chat template: {words}"));
    let error = gemma.render(&of(&[])).unwrap_err().to_string();
    assert!(error.contains("one message at least"), "{error}");
    let error = gemma.render(&of(&["x".into()])).unwrap_err().to_string();
    assert!(error.contains("a message is an object"), "{error}");
    let error = template("{% for x in %}").unwrap_err().to_string();
    assert!(error.contains("syntax error"), "{error}");
}

#[test]
fn the_assistants_parts_are_those_of_transformers() {
    let golden = golden();
    let marked = template(golden["templates"]["marked"].as_str().unwrap()).unwrap();
    assert!(marked.tells_what_the_assistant_writes());
    for (name, expected) in golden["spans"].as_object().unwrap() {
        let rendered = marked.render(&of(list(&golden["conversations"][name]).unwrap())).unwrap();
        let parts: Vec<&str> =
            rendered.assistant.iter().map(|part| &rendered.text[part.clone()]).collect();
        assert_eq!(&Value::from(parts), expected, "{name}");
    }
    let forged = message("user", "\u{fdd0}mine\u{fdd1}");
    let error = marked.render(&of(&[forged])).unwrap_err().to_string();
    assert!(error.contains("U+FDD0"), "{error}");
    let plain = template(golden["templates"]["chatml"].as_str().unwrap()).unwrap();
    assert!(!plain.tells_what_the_assistant_writes());
}

#[test]
fn a_folders_files_give_the_template_that_transformers_takes() {
    let golden = golden();
    let tools = [serde_json::json!({"type": "function", "function": {"name": "sum"}})];
    let messages = [message("user", "x")];
    for case in list(&golden["folders"]).unwrap() {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in case["files"].as_object().unwrap() {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content.as_str().unwrap()).unwrap();
        }
        let template = ChatTemplate::from_folder(folder.path()).unwrap();
        for (key, tools) in [("plain", None), ("tools", Some(&tools[..]))] {
            let chat = Chat { tools, ..of(&messages) };
            let text = template.as_ref().and_then(|template| template.render(&chat).ok());
            let text = text.map_or(Value::Null, |rendered| rendered.text.into());
            assert_eq!(text, case[key], "{key} of {}", case["files"]);
        }
    }
}

#[test]
fn a_processors_file_is_read_where_there_is_no_other_and_a_template_of_another_type_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("chat_template.json", r#"{"chat_template": "P"}"#);
    let read = || ChatTemplate::from_folder(folder.path());
    let text = || read().unwrap().unwrap().render(&of(&[message("user", "x")])).unwrap().text;
    assert_eq!(text(), "P");
    write("tokenizer_config.json", r#"{"chat_template": "C"}"#);
    assert_eq!(text(), "C");
    write("tokenizer_config.json", r#"{"chat_template": 3}"#);
    let error = read().unwrap_err().to_string();
    assert!(
        error.contains("tokenizer_config.json: the chat template: `chat_template` must be a text"),
        "{error}"
    );
}

#[test]
fn a_hostile_template_ends_with_an_error() {
    let messages = [message("user", "x")];
    for source in [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(64) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
        "{{ 'x' * 100000000000 }}",
        "{{ 'x' * 99999999 }}{{ 'x' * 99999999 }}{{ 'x' * 99999999 }}",
        "{% set ns = namespace(x=['a']) %}{% for i in range(64) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
        "{% set ns = namespace(x=['a']) %}{% for i in range(64) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "{% generation %}{% for i in range(99999999) %}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx{% endfor %}{% endgeneration %}",
        "{{ [1, 2] | tojson(indent=1000000000) }}{{ raise_exception('x') }}",
        "{{ ('x' * 10000000) | replace('x', 'y' * 10000) }}",
        "{{ range(10000000000) | list | length }}",
        "{% include 'default' %}",
        "{% extends 'default' %}",
        "{{ '%1000000000d' | format(3) }}",
        "{{ '%s' % ('x' * 1000000) * 1000000 }}",
        "{{ messages[0].content.join(['x' * 100000] * 100000) }}",
        "{{ 'x' | indent(width=100000000000) }}{{ raise_exception('x') }}",
    ] {
        let rendered = template(source).and_then(|template| template.render(&of(&messages)));
        assert!(rendered.is_err(), "{source}: {:?}", rendered.map(|r| r.text.len()));
    }
    for deep in ["(", "[", "{% if x %}", "{{ -", "{% generation %}"] {
        assert!(template(&deep.repeat(100_000)).is_ok() == (deep == "(" || deep == "["), "{deep}");
        template(&format!("{{{{ {}", deep.repeat(100_000))).unwrap_err();
    }
    template(&"x".repeat(1 << 21)).unwrap_err();
}

#[test]
fn a_conversation_of_a_thousand_turns_is_written() {
    let golden = golden();
    let turns = ["user", "assistant"].map(|role| message(role, &"word ".repeat(200)));
    let messages = vec![turns; 500].concat();
    let tools = list(&golden["inputs"][2]["tools"]);
    for (name, source) in golden["templates"].as_object().unwrap() {
        // The one stops after the third message.
        if name != "grounded" {
            let written = template(source.as_str().unwrap()).unwrap();
            let written = written.render(&Chat { tools, ..of(&messages) }).unwrap();
            assert!(written.text.len() > 900_000, "{name}");
        }
    }
}

#[test]
fn a_value_nested_by_a_template_overflows_no_stack() {
    let nested = "{% set ns = namespace(x=[]) %}{% for i in range(REPEAT) %}{% set ns.x = [ns.x] %}{% endfor %}";
    let source = nested.replace("REPEAT", "1000000");
    let template = template(&source).unwrap();
    let _ = template.render(&of(&[message("user", "x")]));
}

#[test]
fn the_time_now_is_the_clocks() {
    let dated = template("{{ strftime_now('%Y') }}").unwrap();
    let year = dated.render(&of(&[message("user", "x")])).unwrap().text;
    assert!(year.parse::<u32>().unwrap() >= 2024, "{year}");
}

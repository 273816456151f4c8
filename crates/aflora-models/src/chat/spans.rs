//! `{% generation %} … {% endgeneration %}`, which templates put around what the assistant writes.
//!
//! The tag is transformers' own. It becomes a call of a function that puts a mark before and behind
//! what it encloses; the marks are taken out of the text again, and say where the parts lie.

use super::{Chat, Rendered};
use minijinja::value::{Kwargs, Value as Jinja};
use minijinja::State;
use regex::Regex;
use serde_json::Value;
use std::sync::LazyLock;

/// What stands before a part and behind it: noncharacters, which no text that is exchanged holds.
const MARKS: [char; 2] = ['\u{fdd0}', '\u{fdd1}'];

/// The function that the tag becomes.
pub(super) const FUNCTION: &str = "_generation";

/// The template with calls in the place of the tag.
pub(super) fn with_calls(source: &str) -> String {
    static TAGS: LazyLock<[Regex; 2]> = LazyLock::new(|| {
        ["", "end"].map(|end| {
            let tag = format!(r"(\{{%[-+]?\s*){end}generation(\s*[-+]?%\}})");
            Regex::new(&tag).expect("the expression is whole")
        })
    });
    let [begin, end] = &*TAGS;
    let begun = begin.replace_all(source, format!("${{1}}call {FUNCTION}()${{2}}"));
    end.replace_all(&begun, "${1}endcall${2}").into_owned()
}

/// Whether a template made [so](with_calls) has parts of the assistant.
pub(super) fn has_calls(source: &str) -> bool {
    source.contains(&format!("call {FUNCTION}()"))
}

/// Puts the marks around what the tag encloses.
pub(super) fn marked(state: &mut State, keys: Kwargs) -> Result<Jinja, minijinja::Error> {
    let caller: Jinja = keys.get("caller")?;
    let text = caller.call(state, &[])?;
    let [begin, end] = MARKS;
    Ok(Jinja::from(format!("{begin}{text}{end}")))
}

/// A mark that stands in what a template is given.
pub(super) fn reserved(messages: &[Value], chat: &Chat) -> Option<char> {
    fn of(value: &Value) -> Option<char> {
        match value {
            Value::String(text) => text.chars().find(|c| MARKS.contains(c)),
            Value::Array(list) => list.iter().find_map(of),
            Value::Object(keys) => keys
                .iter()
                .find_map(|(key, value)| key.chars().find(|c| MARKS.contains(c)).or(of(value))),
            _ => None,
        }
    }
    let lists = [Some(messages), chat.tools, chat.documents];
    let variables = chat.variables.into_iter().flat_map(|variables| variables.values());
    lists.into_iter().flatten().flatten().chain(variables).find_map(of)
}

/// The text without marks, and the parts between them.
pub(super) fn taken_out(marked: &str) -> Rendered {
    let mut rendered = Rendered::default();
    let (mut depth, mut begun) = (0usize, 0);
    for character in marked.chars() {
        if character == MARKS[0] {
            if depth == 0 {
                begun = rendered.text.len();
            }
            depth += 1;
        } else if character == MARKS[1] {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                rendered.assistant.push(begun..rendered.text.len());
            }
        } else {
            rendered.text.push(character);
        }
    }
    rendered
}

//! A conversation, as the rows of files have it.
//!
//! | columns | form |
//! |---|---|
//! | `messages` | a list of objects with `role` and `content`; the forms of tools' calls pass through |
//! | `messages` | a list of objects with `from` (human, gpt, system) and `value`, as ShareGPT has it |
//! | `instruction`, `output` | a question and its answer, as Alpaca has it; `input` goes behind the question, `history` (a list of pairs) before it |
//!
//! Beside each may stand `system`, which becomes the first message, and `tools`, a list of JSON
//! schemas for the template. A column may hold a list as the text of its JSON, as CSV must.

use crate::feed::row::{CellValue, Row};
use crate::feed::{short, Source};
use aflora_models::chat::{message, ASSISTANT};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The column with a list of messages, by what it is for.
pub const MESSAGES: &str = "messages";
/// What ShareGPT calls it.
const CONVERSATIONS: &str = "conversations";
/// The columns of a question and its answer.
pub const PAIR: [&str; 2] = ["instruction", "output"];
/// Columns that may stand beside those.
pub const BESIDE: [&str; 4] = ["input", "history", "system", "tools"];

/// The roles of messages.
const ROLES: [&str; 6] = ["system", "developer", "user", ASSISTANT, "tool", "function"];
/// What ShareGPT and its kin call them.
const FROM: [(&str, &str); 9] = [
    ("human", "user"),
    ("user", "user"),
    ("gpt", ASSISTANT),
    ("chatgpt", ASSISTANT),
    ("model", ASSISTANT),
    (ASSISTANT, ASSISTANT),
    ("system", "system"),
    ("tool", "tool"),
    ("observation", "tool"),
];

/// A conversation, and where it stands in its file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    /// Objects with a `role` and a `content`, one at least.
    pub messages: Vec<Value>,
    /// The tools that the assistant may call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<Value>>,
    /// The line that its row begins in.
    pub line: usize,
}

impl Conversation {
    /// The conversation in a row whose columns are called as `source` says; where it says nothing, by
    /// the names of the forms, or a text alone as what the user says. None of a row without them.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(row: &Row, source: &Source) -> Result<Option<Self>, String> {
        let named = |role: &str| source.columns.contains_key(role);
        let unnamed = source.columns.is_empty();
        let mut messages = if named(MESSAGES) || (unnamed && row.has(MESSAGES)) {
            let column = source.column(MESSAGES);
            let Some(cell) = row.cell(column) else { return Ok(None) };
            list_of_messages(column, cell)?
        } else if unnamed && row.has(CONVERSATIONS) {
            let Some(cell) = row.cell(CONVERSATIONS) else { return Ok(None) };
            list_of_messages(CONVERSATIONS, cell)?
        } else if (named(PAIR[0]) || unnamed) && row.has(source.column(PAIR[0])) {
            question_and_answer(row, source)?
        } else if unnamed && row.has("text") {
            vec![message("user", &row.text("text")?)]
        } else {
            return Ok(None);
        };
        let system = row.find(source.column("system"))?.filter(|text| !text.trim().is_empty());
        if let Some(text) = system.filter(|_| messages[0]["role"] != "system") {
            messages.insert(0, message("system", &text));
        }
        let tools = source.column("tools");
        let tools = match row.cell(tools).map(|cell| list(tools, cell)).transpose()? {
            Some(tools) if !tools.is_empty() => Some(tools),
            _ => None,
        };
        Ok(Some(Conversation { messages, tools, line: row.line }))
    }

    /// One that the user begins.
    pub fn begun_by(text: &str) -> Self {
        Conversation { messages: vec![message("user", text)], tools: None, line: 1 }
    }

    /// As the text of an example.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Of such a text.
    ///
    /// # Errors
    /// It is none.
    pub fn from_text(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    /// The place of the assistant's last turn.
    pub fn last_turn(&self) -> Option<usize> {
        self.messages.iter().rposition(|message| message["role"] == ASSISTANT)
    }

    /// What the assistant is to say last.
    ///
    /// # Errors
    /// It says nothing, or nothing stands before it.
    pub fn answer(&self) -> Result<String, String> {
        match self.last_turn() {
            None => Err("the conversation has no turn of the assistant to learn from".into()),
            Some(0) => {
                Err("the assistant's turn has nothing before it that it is an answer to".into())
            }
            Some(turn) => Ok(self.messages[turn]["content"].as_str().unwrap_or_default().into()),
        }
    }

    /// The messages that are to be answered: all before the assistant's last turn where `judged`, else
    /// all but such a turn at the end.
    pub fn asked(&self, judged: bool) -> &[Value] {
        let last = self.last_turn().filter(|turn| judged || turn + 1 == self.messages.len());
        &self.messages[..last.unwrap_or(self.messages.len())]
    }

    /// Where it stands and how it begins, for a message.
    pub fn place(&self) -> String {
        let first = self.messages.first().and_then(|message| message["content"].as_str());
        format!("line {} ({})", self.line, short(&format!("{:?}", first.unwrap_or_default())))
    }
}

/// Which of its forms a row has, by the columns that it has: what each is for, by its name.
pub fn columns_of(row: &Row) -> Option<Vec<(&'static str, &'static str)>> {
    let is_list = |name: &str| match row.cell(name) {
        Some(CellValue::Json(json)) => json.get().starts_with('['),
        Some(CellValue::Text(text)) => text.trim_start().starts_with('['),
        None => false,
    };
    let of_messages = [MESSAGES, CONVERSATIONS].into_iter().find(|name| is_list(name));
    match of_messages {
        Some(name) => Some(vec![(MESSAGES, name)]),
        None if PAIR.iter().all(|name| row.has(name)) => {
            Some(PAIR.iter().map(|name| (*name, *name)).collect())
        }
        None => None,
    }
}

/// The list in a cell, or in the text of one; of null none.
fn list(name: &str, cell: &CellValue) -> Result<Vec<Value>, String> {
    let text = match cell {
        CellValue::Json(json) => json.get(),
        CellValue::Text(text) => text,
    };
    let wrong = || format!("`{name}` is {}, but must be a list", short(text));
    match serde_json::from_str(text) {
        Ok(Value::Array(list)) => Ok(list),
        Ok(Value::Null) => Ok(Vec::new()),
        // A list as the text of its JSON.
        Ok(Value::String(inner)) if inner.trim().is_empty() => Ok(Vec::new()),
        Ok(Value::String(inner)) => serde_json::from_str(&inner).map_err(|_| wrong()),
        _ if text.trim().is_empty() => Ok(Vec::new()),
        _ => Err(wrong()),
    }
}

fn list_of_messages(name: &str, cell: &CellValue) -> Result<Vec<Value>, String> {
    let list = list(name, cell)?;
    if list.is_empty() {
        return Err(format!("`{name}` is empty, but a conversation has one message at least"));
    }
    let numbered = list.into_iter().enumerate();
    numbered
        .map(|(i, item)| {
            one_message(item).map_err(|problem| format!("message {} of `{name}` {problem}", i + 1))
        })
        .collect()
}

/// A message in the form that templates read, of either form.
fn one_message(item: Value) -> Result<Value, String> {
    let Value::Object(mut keys) = item else {
        return Err(format!(
            "is {}, but must be an object with `role` and `content`, or `from` and `value`",
            short(&item.to_string())
        ));
    };
    let is_told =
        |keys: &Map<String, Value>, key: &str| keys.get(key).is_some_and(|v| !v.is_null());
    let share_gpt = !is_told(&keys, "role") && is_told(&keys, "from");
    let [role, content] = if share_gpt { ["from", "value"] } else { ["role", "content"] };
    let known = |name: &str| match share_gpt {
        true => FROM.iter().find(|(from, _)| *from == name).map(|(_, role)| *role),
        false => ROLES.into_iter().find(|role| *role == name),
    };
    let names = || match share_gpt {
        true => FROM.map(|(from, _)| from).join(", "),
        false => ROLES.join(", "),
    };
    let said = match keys.get(role) {
        None | Some(Value::Null) => return Err("has no `role`".into()),
        Some(said) => said.as_str().and_then(known).ok_or_else(|| {
            format!("has the {role} {}, which is none of: {}", short(&said.to_string()), names())
        })?,
    };
    let calls = said == ASSISTANT && is_told(&keys, "tool_calls");
    let text = match keys.get(content) {
        Some(Value::String(text)) => Some(text.clone()),
        None | Some(Value::Null) if calls => None,
        None | Some(Value::Null) => return Err(format!("has no `{content}`")),
        Some(other) => {
            let other = short(&other.to_string());
            return Err(format!("has a `{content}` that is {other}, but must be a text"));
        }
    };
    if share_gpt {
        keys = Map::new();
    }
    keys.insert("role".into(), said.into());
    if let Some(text) = text {
        keys.insert("content".into(), text.into());
    }
    Ok(Value::Object(keys))
}

/// The messages of a row with a question and its answer, which it may lack.
fn question_and_answer(row: &Row, source: &Source) -> Result<Vec<Value>, String> {
    let text = |role: &str| match row.cell(source.column(role)) {
        Some(CellValue::Json(json)) if json.get() == "null" => Ok(None),
        _ => row.find(source.column(role)),
    };
    let mut messages = Vec::new();
    let history = source.column("history");
    for pair in row.cell(history).map(|cell| list(history, cell)).transpose()?.unwrap_or_default() {
        let texts = pair.as_array().map(Vec::as_slice);
        let Some([Value::String(asked), Value::String(answered)]) = texts else {
            let pair = short(&pair.to_string());
            return Err(format!("`{history}` holds {pair}, but must hold pairs of texts"));
        };
        messages.extend([message("user", asked), message(ASSISTANT, answered)]);
    }
    let mut question = text(PAIR[0])?.unwrap_or_default();
    if let Some(input) = text("input")?.filter(|input| !input.trim().is_empty()) {
        question = format!("{question}\n{input}");
    }
    if question.trim().is_empty() {
        return Err(format!("`{}` is empty", source.column(PAIR[0])));
    }
    messages.push(message("user", &question));
    if let Some(answer) = text(PAIR[1])? {
        messages.push(message(ASSISTANT, &answer));
    }
    Ok(messages)
}

//! Conversations as the text that a model was trained to read: its own Jinja template, as
//! transformers' `apply_chat_template` renders it.
//!
//! * [`ChatTemplate`]: a folder's template, [`Chat`]: what it is given
//! * `files`: where a folder has its templates, and which of them counts
//! * `turns`: which parts of a conversation the assistant writes
//! * `shipped`: templates for models that have none
//! * `environment`: the functions and filters that templates may use
//! * `python`: methods and tests of values as Python has them
//! * `limits`: what a template may compute, and how that is paid
//! * `json`: the filter `tojson`, which writes as Python's `json.dumps`
//!
//! A template comes with a model from anywhere. It reaches no file and no network, and what it may
//! compute, nest and write is bounded.

mod environment;
pub(crate) mod files;
mod json;
mod limits;
mod printed;
mod python;
mod shipped;
mod spans;
mod turns;

pub(crate) use files::JINJA;
pub use shipped::{shipped, SHIPPED};
pub use turns::ASSISTANT;

use crate::{panics, Error, Result};
use limits::{Bounded, LONGEST_CHAT, LONGEST_TEMPLATE};
use minijinja::value::Serde;
use minijinja::Environment;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The template of conversations without tools.
pub(crate) const DEFAULT: &str = "default";
/// The template of conversations with tools, where a model has one of its own for them.
const TOOL_USE: &str = "tool_use";

/// How a model wants conversations written.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// The special tokens by their names, such as `bos_token`.
    tokens: BTreeMap<String, String>,
    /// Whose templates these are, for errors.
    path: PathBuf,
}

/// What a template is given.
#[derive(Debug, Clone, Copy, Default)]
pub struct Chat<'a> {
    /// Objects with a `role` and mostly a `content`.
    pub messages: &'a [Value],
    /// The tools that the model may call, as JSON schemas.
    pub tools: Option<&'a [Value]>,
    /// The texts that the model may cite: objects with a `title` and a `text`.
    pub documents: Option<&'a [Value]>,
    /// Whether what begins the assistant's next turn stands at the end.
    pub add_generation_prompt: bool,
    /// Further variables, which only some templates know, such as `enable_thinking`. They come
    /// before special tokens of the same name.
    pub variables: Option<&'a Map<String, Value>>,
}

/// A conversation as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// The bytes of it that the assistant writes, in their order, as far as the template tells
    /// (`{% generation %}`).
    pub assistant: Vec<Range<usize>>,
}

/// How a model was taught to talk, for whoever opens what is written of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChatFormat {
    /// The template, where it is not that of the model's files.
    pub template: Option<String>,
    /// Tokens that end its turns.
    pub ends: Vec<i64>,
}

/// A message of the kind that every template knows.
pub fn message(role: &str, content: &str) -> Value {
    serde_json::json!({ "role": role, "content": content })
}

impl ChatTemplate {
    /// The templates of a model's folder; none where it has none.
    ///
    /// chat_template.jinja and additional_chat_templates/*.jinja come before the `chat_template` of
    /// tokenizer_config.json, a text or a list of named ones; chat_template.json is read where there
    /// is neither.
    ///
    /// # Errors
    /// A file cannot be read, or a template is none.
    pub fn from_folder(folder: &Path) -> Result<Option<Self>> {
        let sources = files::sources(folder)?;
        if sources.is_empty() {
            return Ok(None);
        }
        let tokens = crate::tokenizer::special_tokens(folder)?;
        Self::of(sources, tokens, folder).map(Some)
    }

    /// The template `source`, which may write these special tokens by their names; `path` is the
    /// file that it comes from.
    ///
    /// # Errors
    /// It is no template.
    pub fn new(source: &str, tokens: BTreeMap<String, String>, path: &Path) -> Result<Self> {
        Self::of(BTreeMap::from([(DEFAULT.to_string(), source.to_string())]), tokens, path)
    }

    fn of(
        sources: BTreeMap<String, String>,
        tokens: BTreeMap<String, String>,
        path: &Path,
    ) -> Result<Self> {
        let path = path.to_path_buf();
        let mut environment = environment::new();
        for (name, source) in sources {
            if source.len() > LONGEST_TEMPLATE {
                let problem = format!("it holds more than {LONGEST_TEMPLATE} bytes");
                return Err(Error::ChatTemplate { path, problem });
            }
            let source = spans::with_calls(&source);
            let added = panics::catch_reading(|| environment.add_template_owned(name, source));
            let added = added.and_then(|added| added.map_err(|error| environment::words(&error)));
            if let Err(problem) = added {
                return Err(Error::ChatTemplate { path, problem });
            }
        }
        Ok(ChatTemplate { environment, tokens, path })
    }

    /// All that decides what is written of a conversation.
    pub fn fingerprint(&self) -> String {
        let templates = self.environment.templates();
        let templates: Vec<(&str, String)> =
            templates.map(|(name, of)| (name, of.source().to_string())).collect();
        format!("{templates:?}{:?}", self.tokens)
    }

    /// Whether the template says which parts the assistant writes.
    pub fn tells_what_the_assistant_writes(&self) -> bool {
        self.environment.templates().any(|(_, template)| spans::has_calls(template.source()))
    }

    /// The conversation as text.
    ///
    /// As in transformers, keys of a message that are null are left out, and a message's
    /// `reasoning_content` goes by its older names, too.
    ///
    /// # Errors
    /// The template refuses the conversation or cannot write it, or goes beyond what it may compute.
    pub fn render(&self, chat: &Chat) -> Result<Rendered> {
        let problem = |problem| Error::ChatTemplate { path: self.path.clone(), problem };
        if chat.messages.is_empty() {
            return Err(problem("a conversation has one message at least".into()));
        }
        let name = self.name(chat.tools.is_some()).map_err(problem)?;
        let messages: Option<Vec<Value>> = chat.messages.iter().map(tidied).collect();
        let messages =
            messages.ok_or_else(|| problem("a message is an object with `role`".into()))?;
        if let Some(character) = spans::reserved(&messages, chat) {
            let words = format!(
                "a text holds the character U+{:04X}, which Unicode reserves for a program's own use",
                u32::from(character)
            );
            return Err(problem(words));
        }
        let mut given: Map<String, Value> =
            self.tokens.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
        given.extend(chat.variables.cloned().unwrap_or_default());
        given.insert("messages".into(), messages.into());
        given.insert("tools".into(), chat.tools.map(Vec::from).into());
        given.insert("documents".into(), chat.documents.map(Vec::from).into());
        given.insert("add_generation_prompt".into(), chat.add_generation_prompt.into());
        let given = Serde(given).into();
        let text = panics::catch_reading(|| self.render_as(name, given)).and_then(|text| text);
        Ok(spans::taken_out(&text.map_err(problem)?))
    }

    /// The template for conversations with tools or without.
    fn name(&self, tools: bool) -> std::result::Result<&'static str, String> {
        let has = |name: &&str| self.environment.templates().any(|(known, _)| known == *name);
        let names = if tools { &[TOOL_USE, DEFAULT][..] } else { &[DEFAULT] };
        names.iter().copied().find(has).ok_or_else(|| {
            let known: Vec<&str> = self.environment.templates().map(|(name, _)| name).collect();
            format!("there is no template `{DEFAULT}`, only: {}", known.join(", "))
        })
    }

    fn render_as(
        &self,
        name: &str,
        given: minijinja::Value,
    ) -> std::result::Result<String, String> {
        let mut text = Bounded { bytes: Vec::new(), most: LONGEST_CHAT };
        self.environment
            .get_template(name)
            .and_then(|template| template.render_captured_to(given, &mut text).map(drop))
            .map_err(|error| environment::words(&error))?;
        String::from_utf8(text.bytes).map_err(|_| "what it writes is no UTF-8".into())
    }
}

/// The names of a message's reasoning; templates read the first, or the second.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A message as transformers gives it to templates.
fn tidied(message: &Value) -> Option<Value> {
    let message = message.as_object()?;
    let mut tidied: Map<String, Value> =
        message.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect();
    if let Some(reasoning) = REASONING.iter().find_map(|name| tidied.get(*name)).cloned() {
        if !tidied.contains_key("thinking") {
            tidied.shift_insert(0, "thinking".into(), reasoning.clone());
        }
        tidied.insert("reasoning_content".into(), reasoning);
    }
    Some(tidied.into())
}

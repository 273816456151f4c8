//! Templates for models that have none.

/// Their names, the one that is taken where none is named first.
pub const SHIPPED: [&str; 2] = ["plain", "chatml"];

/// The template of that name, for a tokenizer with these texts before every text and at its end.
///
/// `plain` is words alone: `User: …`, `Assistant: …`, a line for each turn, the assistant's ended by
/// the end token, so that every tokenizer has what it needs. `chatml` needs the tokens `<|im_start|>`
/// and `<|im_end|>`.
pub fn shipped(name: &str, before: &str, end: &str) -> Option<String> {
    match name {
        "plain" => {
            let quoted = |text: &str| serde_json::Value::from(text).to_string();
            let (before, end) = (quoted(before), quoted(end));
            Some(format!("{{%- set before = {before} %}}{{%- set end = {end} %}}\n{PLAIN}"))
        }
        "chatml" => Some(CHATML.to_string()),
        _ => None,
    }
}

const PLAIN: &str = "\
{{- before }}
{%- for message in messages %}
    {{- message.role | capitalize ~ ':' }}
    {%- if message.content %}{{ ' ' ~ (message.content | trim) }}{% endif %}
    {%- if message.role == 'assistant' %}{{ end }}{% endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}
";

const CHATML: &str = "\
{%- for message in messages %}
    {{- '<|im_start|>' ~ message.role ~ '\\n' ~ (message.content or '') ~ '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
";

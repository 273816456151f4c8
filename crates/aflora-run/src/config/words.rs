//! Serde's error messages in the words of someone who writes YAML.

use super::problem::{instead, Problem, SourceSpan};

/// The problem that a setting's value has, from what serde says about it.
pub fn explain(
    key: &str,
    error: &str,
    is_list: bool,
    span: impl Into<Option<SourceSpan>>,
) -> Problem {
    let span = span.into();
    let problem = |message: String| Problem::at(span.clone(), message);
    let mismatch = error.strip_prefix("invalid type: ").or(error.strip_prefix("invalid value: "));
    if let Some((found, expected)) = mismatch.and_then(|m| m.split_once(", expected ")) {
        let (found, expected) = (value(found), kind(expected));
        // Of a list, serde means one of its values.
        return problem(if is_list && found != "a list" {
            format!("`{key}` holds {found}, but each value must be {expected}")
        } else {
            format!("`{key}` is {found}, but must be {expected}")
        });
    }
    if let Some((variant, expected)) =
        error.strip_prefix("unknown variant `").and_then(|m| m.split_once("`, expected "))
    {
        // Names stand between backquotes: every second part.
        let names: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        return problem(format!("`{key}` cannot be `{variant}`")).help(instead(variant, &names));
    }
    if error.contains("untagged enum Pattern") {
        return problem(format!("`{key}` is neither a text nor a list of texts"))
            .help("a text is a regular expression for whole names; a list holds names or endings");
    }
    problem(format!("`{key}`: {error}"))
}

/// A value as serde describes it, such as ``integer `3` `` or `map`.
fn value(found: &str) -> String {
    match found {
        "map" => "a group of keys".into(),
        "sequence" => "a list".into(),
        "unit value" | "null" => "null".into(),
        other => match other.strip_prefix("string ") {
            Some(text) => format!("the text {text}"),
            // The kind before the backquotes says nothing that the value does not.
            None => other.find('`').map_or(other, |at| other[at..].trim_matches('`')).to_string(),
        },
    }
}

/// A type as serde names it.
fn kind(expected: &str) -> &str {
    match expected {
        "f64" | "f32" => "a number",
        "u64" | "u32" | "usize" => "a whole number, at least 0",
        "i64" | "i32" => "a whole number",
        "a string" | "string" => "a text",
        "path string" => "a path",
        "a sequence" => "a list",
        "a map" => "a group of keys",
        "a boolean" => "true or false",
        other => other,
    }
}

//! What a template may use: Jinja as transformers sets it up, with its functions and filters.

use super::limits::{DEPTH, FUEL};
use super::{json, printed, python, spans};
use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, TimeZone};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};
use std::fmt::Display;

/// Jinja, without templates.
pub(super) fn new() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the delimiters are Jinja's own"));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(DEPTH);
    python::add_to(&mut environment);
    environment.set_formatter(printed::write);
    environment.add_filter("string", printed::string);
    environment.add_filter("tojson", json::tojson);
    environment.add_function("raise_exception", raise_exception);
    environment
        .add_function("strftime_now", |format: &str| strftime(&chrono::Local::now(), format));
    environment.add_function(spans::FUNCTION, spans::marked);
    environment
}

/// Ends the rendering with the template's own words.
fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.to_string()).with_source(Raised))
}

/// That an error is a template's own.
#[derive(Debug, thiserror::Error)]
#[error("raised by the template")]
struct Raised;

/// The time as Python's `strftime` writes it.
fn strftime<Z: TimeZone>(time: &DateTime<Z>, format: &str) -> Result<String, Error>
where
    Z::Offset: Display,
{
    let items: Vec<Item> = StrftimeItems::new(format).collect();
    if items.contains(&Item::Error) {
        let problem = format!("strftime_now knows no format {format:?}");
        return Err(Error::new(ErrorKind::InvalidOperation, problem));
    }
    Ok(time.format_with_items(items.iter()).to_string())
}

/// What an error of a template says, in one sentence.
pub(super) fn words(error: &Error) -> String {
    use std::error::Error as _;
    let detail = error.detail().unwrap_or_default();
    if error.source().is_some_and(|source| source.is::<Raised>()) {
        return format!("it refuses the conversation: {detail}");
    }
    match error.kind() {
        ErrorKind::OutOfFuel => "it computes more than a template may".into(),
        ErrorKind::WriteFailure => "it writes more than a conversation may have".into(),
        _ => {
            let deeper = error.source().and_then(|source| source.downcast_ref::<Error>());
            deeper.map_or_else(|| error.to_string(), words)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::Utc;

    #[test]
    fn the_time_is_written_as_python_writes_it() {
        let time = Utc.with_ymd_and_hms(2024, 7, 6, 5, 4, 3).unwrap();
        // python -c "from datetime import datetime as d; print(d(2024,7,6,5,4,3).strftime(...))"
        for (format, expected) in [
            ("%d %b %Y", "06 Jul 2024"),
            ("%Y-%m-%d", "2024-07-06"),
            ("%A, %B %-d, %Y %H:%M:%S", "Saturday, July 6, 2024 05:04:03"),
            ("%I %p %j %y %%", "05 AM 188 24 %"),
        ] {
            assert_eq!(strftime(&time, format).unwrap(), expected);
        }
        assert!(strftime(&time, "%").is_err() && strftime(&time, "%!").is_err());
    }
}

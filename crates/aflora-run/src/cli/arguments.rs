//! Arguments that cannot be understood.

use aflora_run::config::keys::KEYS;
use aflora_run::config::schema::Key;
use aflora_run::experiment::grid::VARIED;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::Error;
use std::ffi::OsString;

/// The commands that take the settings of a run.
const SETTABLE: [&str; 4] = ["run", "validate", "inspect", "experiment"];

/// Prints what is wrong with the arguments, or the help that was asked for. Settings are no
/// options: `--limit 64` is answered with `limit=64`.
pub fn refuse(error: Error, typed: &[OsString]) -> u8 {
    let typed: Vec<String> =
        typed.iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
    match setting(&error, &typed) {
        Some(setting) => {
            eprintln!("error: settings are written key=value: say `{setting}`");
        }
        // What cannot be printed has nobody to read it.
        None => drop(error.print()),
    }
    u8::try_from(error.exit_code()).unwrap_or(2)
}

/// The setting that was meant by an option that there is not.
fn setting(error: &Error, typed: &[String]) -> Option<String> {
    let (ErrorKind::UnknownArgument, Some(ContextValue::String(option))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
    else {
        return None;
    };
    // Only where the command takes settings.
    let command = typed.get(1).filter(|command| SETTABLE.contains(&command.as_str()))?;
    let name = option.trim_start_matches('-').split(['=', ' ']).next()?;
    let at = typed.iter().position(|t| t.split('=').next() == Some(&format!("--{name}")))?;
    let value = match typed[at].split_once('=') {
        Some((_, value)) => value.to_string(),
        None => match typed.get(at + 1).filter(|next| !next.starts_with("--")) {
            Some(next) => next.clone(),
            None => "true".into(),
        },
    };
    // What an experiment varies is a list of each.
    let varied = VARIED.iter().find(|&key| name == *key || name == format!("{key}s"));
    match varied.filter(|_| command == "experiment") {
        Some(key) if value.starts_with('[') => Some(format!("{key}s={value}")),
        Some(key) => Some(format!("{key}s=[{value}]")),
        None => Some(format!("{}={value}", key(name)?)),
    }
}

/// The key of that name, with hyphens for underlines too, or the only one that ends in it.
fn key(name: &str) -> Option<String> {
    let name = name.replace('-', "_");
    let mut keys: Vec<String> = KEYS.iter().map(Key::typed).collect();
    keys.sort();
    keys.dedup();
    if keys.contains(&name) {
        return Some(name);
    }
    let ending = format!(".{name}");
    let mut ends = keys.into_iter().filter(|key| key.ends_with(&ending));
    ends.next().filter(|_| ends.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    #[test]
    fn an_option_that_is_a_key_is_answered_with_the_setting() {
        for (typed, expected) in [
            ("run c.yaml --limit 64", Some("limit=64")),
            ("run c.yaml --limit=64", Some("limit=64")),
            ("validate c.yaml --batch-size 8 lr=1", Some("batch_size=8")),
            ("run c.yaml --task mrpc", Some("task=mrpc")),
            ("run c.yaml --rank 4", Some("method.rank=4")),
            ("run c.yaml --record_gradients", Some("record_gradients=true")),
            ("experiment e.yaml --epochs 3", Some("epochs=3")),
            ("experiment e.yaml --seeds 0", Some("seeds=[0]")),
            ("experiment e.yaml --seeds=[0,1] lr=1", Some("seeds=[0,1]")),
            ("experiment e.yaml --methods lora", Some("methods=[lora]")),
            ("experiment e.yaml --task mrpc", Some("tasks=[mrpc]")),
            ("run c.yaml --seeds 0", None),
            ("run c.yaml --nonsense 3", None),
            ("ls --limit 64", None),
        ] {
            let typed: Vec<String> =
                std::iter::once("aflora").chain(typed.split(' ')).map(String::from).collect();
            let error = Cli::try_parse_from(&typed).err().unwrap();
            assert_eq!(setting(&error, &typed).as_deref(), expected, "{typed:?}");
        }
    }
}

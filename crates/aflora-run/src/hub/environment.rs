//! The environment's variables, read as Python's huggingface_hub reads them.

use super::client::Token;
use super::limits::Limits;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The hub where nothing else is asked for.
const HUB: &str = "https://huggingface.co";

/// The most bytes of a file that holds a token.
const MOST_OF_TOKEN: u64 = 64 << 10;

/// The longest wait that can be asked for: a day.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What the environment says of the hub.
pub(super) struct HubEnvironment {
    pub(super) cache: PathBuf,
    pub(super) endpoint: String,
    pub(super) token: Option<Token>,
    /// The variable that forbids the network.
    pub(super) offline: Option<&'static str>,
    pub(super) limits: Limits,
}

impl HubEnvironment {
    /// What `get` says of each variable; an empty one is none.
    pub(super) fn read(get: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let raw = |name: &str| get(name).filter(|value| !value.is_empty());
        let text = |name: &str| raw(name).and_then(|value| value.into_string().ok());
        let home = || raw("HOME").or_else(|| std::env::home_dir().map(Into::into));
        let home = home().map_or_else(|| PathBuf::from("."), PathBuf::from);
        let path = |name: &str| raw(name).map(|value| expand(&value, &home, &raw));
        let hf_home = path("HF_HOME").unwrap_or_else(|| {
            let caches = path("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache"));
            caches.join("huggingface")
        });
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        // The first that is set decides, even if it says no.
        let offline = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
            .into_iter()
            .find_map(|name| text(name).map(|value| (name, value)))
            .and_then(|(name, value)| is_true(&value).then_some(name));
        let kept = || {
            let file = path("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token"));
            Token::new(&aflora_files::read_text_at_most(&file, MOST_OF_TOKEN).ok()?)
        };
        let wanted = !text("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some_and(|value| is_true(&value));
        let told = text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN"));
        let token = told.and_then(|token| Token::new(&token)).or_else(kept);
        let seconds = |name: &str| {
            let seconds = text(name)?.trim().parse().ok().filter(|&seconds| seconds > 0)?;
            Some(Duration::from_secs(seconds).min(LONGEST))
        };
        let mut limits = Limits::default();
        if let Some(asked) = seconds("HF_HUB_ETAG_TIMEOUT") {
            limits.connect = asked;
        }
        if let Some(asked) = seconds("HF_HUB_DOWNLOAD_TIMEOUT") {
            (limits.answer, limits.stall) = (asked, asked);
        }
        HubEnvironment {
            cache: cache.unwrap_or_else(|| hf_home.join("hub")),
            endpoint: text("HF_ENDPOINT").unwrap_or_else(|| HUB.into()),
            token: token.filter(|_| wanted),
            offline,
            limits,
        }
    }
}

/// Whether a switch is on: Python knows four words for that, and all others are off.
fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str())
}

/// A path with `~` in front, `$NAME` and `${NAME}` replaced; what is not set stays as it is.
fn expand(value: &OsStr, home: &Path, get: &dyn Fn(&str) -> Option<OsString>) -> PathBuf {
    let value = value.as_bytes();
    let mut rest = value;
    let mut path = Vec::new();
    if value == b"~" || value.starts_with(b"~/") {
        path.extend(home.as_os_str().as_bytes());
        rest = &value[1..];
    }
    while let Some(at) = rest.iter().position(|&b| b == b'$') {
        path.extend(&rest[..at]);
        let behind = &rest[at + 1..];
        let (name, whole) = match behind.strip_prefix(b"{") {
            Some(inner) => match inner.iter().position(|&b| b == b'}') {
                Some(end) => (&inner[..end], end + 2),
                None => (&[][..], 0),
            },
            None => {
                let word = |&b: &u8| b.is_ascii_alphanumeric() || b == b'_';
                let end = behind.iter().position(|b| !word(b)).unwrap_or(behind.len());
                (&behind[..end], end)
            }
        };
        match std::str::from_utf8(name).ok().filter(|name| !name.is_empty()).and_then(get) {
            Some(value) => path.extend(value.as_bytes()),
            None => path.extend(&rest[at..=at + whole]),
        }
        rest = &behind[whole..];
    }
    path.extend(rest);
    PathBuf::from(OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> HubEnvironment {
        let owned: Vec<(String, OsString)> =
            variables.iter().map(|(name, value)| (name.to_string(), value.into())).collect();
        HubEnvironment::read(&move |name| {
            let found = owned.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone()).or((name == "HOME").then(|| "/home/me".into()))
        })
    }

    /// As `huggingface_hub.constants.HF_HUB_CACHE` has it.
    #[test]
    fn the_cache_lies_where_python_has_it() {
        for (variables, expected) in [
            (&[][..], "/home/me/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "~/x")], "/home/me/x/huggingface/hub"),
            (&[("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/x")], "/home/me/hf/hub"),
            (&[("HF_HOME", "~")], "/home/me/hub"),
            (&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "~/c")], "/home/me/c"),
            (&[("HF_HOME", "/hf"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/old"),
            (&[("HF_HUB_CACHE", "/c"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/c"),
            (&[("HF_HOME", "$DISK/${USER}/hf"), ("DISK", "/d"), ("USER", "me")], "/d/me/hf/hub"),
            (&[("HF_HOME", "/a/$NONE/${NONE}/${x$")], "/a/$NONE/${NONE}/${x$/hub"),
            (&[("HF_HOME", "")], "/home/me/.cache/huggingface/hub"),
        ] {
            assert_eq!(read(variables).cache, Path::new(expected), "{variables:?}");
        }
    }

    #[test]
    fn a_switch_is_on_by_four_words_and_off_by_all_others() {
        for (value, on) in [
            ("1", true),
            ("ON", true),
            ("Yes", true),
            ("true", true),
            ("0", false),
            ("False", false),
            ("no", false),
            ("off", false),
            ("2", false),
            ("", false),
        ] {
            assert_eq!(read(&[("HF_HUB_OFFLINE", value)]).offline.is_some(), on, "{value}");
        }
        let both = |hub, transformers| {
            read(&[("HF_HUB_OFFLINE", hub), ("TRANSFORMERS_OFFLINE", transformers)]).offline
        };
        assert_eq!(both("False", "1"), None);
        assert_eq!(both("", "1"), Some("TRANSFORMERS_OFFLINE"));
        assert_eq!(both("1", "0"), Some("HF_HUB_OFFLINE"));
    }

    #[test]
    fn a_token_comes_without_line_ends_from_a_variable_or_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, " kept\r\n").unwrap();
        let home = folder.path().to_str().unwrap();
        let token = |variables: &[(&str, &str)]| {
            let mut variables = variables.to_vec();
            variables.push(("HF_HOME", home));
            read(&variables).token.map(|token| token.header().unwrap().to_str().unwrap().to_owned())
        };
        let bearer = |token: &str| Some(format!("Bearer {token}"));
        assert_eq!(token(&[("HF_TOKEN", " hf_a\r\n")]), bearer("hf_a"));
        assert_eq!(token(&[("HF_TOKEN", "hf_a\nb")]), bearer("hf_ab"));
        assert_eq!(token(&[("HUGGING_FACE_HUB_TOKEN", "old")]), bearer("old"));
        assert_eq!(token(&[("HF_TOKEN", "\n"), ("HUGGING_FACE_HUB_TOKEN", "old")]), bearer("kept"));
        assert_eq!(token(&[]), bearer("kept"));
        assert_eq!(token(&[("HF_TOKEN_PATH", "/nowhere")]), None);
        assert_eq!(token(&[("HF_TOKEN", "a"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
    }

    #[test]
    fn time_outs_are_those_that_python_knows() {
        let limits =
            read(&[("HF_HUB_ETAG_TIMEOUT", "30"), ("HF_HUB_DOWNLOAD_TIMEOUT", "90")]).limits;
        assert_eq!(limits.connect, Duration::from_secs(30));
        assert_eq!(
            (limits.answer, limits.stall),
            (Duration::from_secs(90), Duration::from_secs(90))
        );
        assert_eq!(read(&[("HF_HUB_ETAG_TIMEOUT", &u64::MAX.to_string())]).limits.connect, LONGEST);
        for value in ["", "0", "-1", "soon"] {
            let limits = read(&[("HF_HUB_ETAG_TIMEOUT", value)]).limits;
            assert_eq!(limits.connect, Limits::default().connect);
        }
    }
}

//! Text out of a file, made safe for a terminal: an escape sequence in a file's name, a title or an
//! error could otherwise move the cursor, rename the window or hide what follows, and a
//! bidirectional control could show a line in another order than it has.

use std::borrow::Cow;
use std::fmt::Write;

/// The text with every control character but line ends and tabs written out, as `\u{1b}`.
pub fn printable(text: &str) -> Cow<'_, str> {
    escape(text, |c| acts(c) && !matches!(c, '\n' | '\t'))
}

/// The text on one line: as [`printable`], with line ends and tabs written out too.
pub fn printable_line(text: &str) -> Cow<'_, str> {
    escape(text, acts)
}

/// JSON whose strings hold nothing that acts, each such character written as JSON's own escape: a
/// reader of JSON finds the same values.
pub fn printable_json(json: &str) -> Cow<'_, str> {
    // Those below stand escaped in a string already, and between values are spaces.
    let which = |c: char| c >= '\u{7f}' && acts(c);
    escape_as(json, which, |safe, c| {
        c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(safe, "\\u{unit:04x}"))
    })
}

/// Whether a character does something to a terminal instead of standing in it.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200e}' | '\u{200f}'  // marks of direction
            | '\u{2028}' | '\u{2029}'            // line and paragraph separators
            | '\u{202a}'..='\u{202e}'            // embeddings and overrides of direction
            | '\u{2066}'..='\u{2069}'            // isolates
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}') // tags, which nobody sees
}

fn escape(text: &str, which: impl Fn(char) -> bool) -> Cow<'_, str> {
    escape_as(text, which, |safe, c| write!(safe, "{}", c.escape_default()))
}

fn escape_as(
    text: &str,
    which: impl Fn(char) -> bool,
    put: impl Fn(&mut String, char) -> std::fmt::Result,
) -> Cow<'_, str> {
    if !text.contains(&which) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match which(c) {
            true => {
                // Writing to a string cannot fail.
                let _ = put(&mut safe, c);
            }
            false => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_written_out_and_the_rest_stays() {
        assert_eq!(printable("\u{1b}[2J\u{7}a\u{9b}m"), "\\u{1b}[2J\\u{7}a\\u{9b}m");
        assert_eq!(printable("a\nb\tc\rd"), "a\nb\tc\\rd");
        assert_eq!(printable_line("a\nb\tc"), "a\\nb\\tc");
        assert_eq!(printable_line("x\u{202e}y\u{2069}"), "x\\u{202e}y\\u{2069}");
        for plain in ["Größe, 漢字, ‘’ – 👩‍👩‍👧 نص", ""] {
            assert!(matches!(printable_line(plain), Cow::Borrowed(same) if same == plain));
        }
    }

    #[test]
    fn json_keeps_its_values_and_holds_nothing_that_acts() {
        let json = "{\"a\u{9b}\": \"\u{7f}\u{202e}\u{e0041}ü\",\n\t\"b\": 1}";
        let safe = "{\"a\\u009b\": \"\\u007f\\u202e\\udb40\\udc41ü\",\n\t\"b\": 1}";
        assert_eq!(printable_json(json), safe);
    }
}

//! The little Markdown that an experiment's description uses, as HTML.
//!
//! Paragraphs, `code`, **strong**, *emphasis* and [links](https://example.org): anything else stays as it was
//! written. Everything is escaped first, so no description can bring elements of its own.

use super::charts::canvas::escape;

/// Paragraphs.
pub fn paragraphs(markdown: &str) -> String {
    markdown
        .replace("\r\n", "\n")
        .split("\n\n")
        .map(str::trim)
        .filter(|paragraph| !paragraph.is_empty())
        .map(|paragraph| format!("<p>{}</p>\n", inline(paragraph)))
        .collect()
}

/// One paragraph's inside. Code comes first: nothing in it means anything else.
fn inline(text: &str) -> String {
    let mut out = String::new();
    let mut parts = text.split('`').peekable();
    let mut code = false;
    while let Some(part) = parts.next() {
        match (code, parts.peek().is_some()) {
            (true, true) => out += &format!("<code>{}</code>", escape(part)),
            // The last backtick of an odd number stands for itself.
            (true, false) => out += &format!("`{}", strong(part)),
            (false, _) => out += &strong(part),
        }
        code = !code;
    }
    out
}

fn strong(text: &str) -> String {
    let parts: Vec<&str> = text.split("**").collect();
    if parts.len().is_multiple_of(2) {
        return emphasis(text);
    }
    let set = parts.iter().enumerate().map(|(i, part)| match i % 2 {
        1 => format!("<strong>{}</strong>", emphasis(part)),
        _ => emphasis(part),
    });
    set.collect()
}

fn emphasis(text: &str) -> String {
    let parts: Vec<&str> = text.split('*').collect();
    if parts.len().is_multiple_of(2) {
        return links(text);
    }
    let set = parts.iter().enumerate().map(|(i, part)| match i % 2 {
        // Where it stands between spaces, as in 2 * 3, an asterisk is one.
        1 if part.is_empty() || part.trim() != *part => format!("*{}*", links(part)),
        1 => format!("<em>{}</em>", links(part)),
        _ => links(part),
    });
    set.collect()
}

fn links(text: &str) -> String {
    let Some((before, rest)) = text.split_once('[') else { return escape(text) };
    let link = rest.split_once("](").and_then(|(label, rest)| {
        let (address, after) = rest.split_once(')')?;
        let web = address.starts_with("https://") || address.starts_with("http://");
        web.then_some((label, address, after))
    });
    match link {
        Some((label, address, after)) => format!(
            r#"{}<a href="{}">{}</a>{}"#,
            escape(before),
            escape(address),
            escape(label),
            links(after)
        ),
        None => format!("{}[{}", escape(before), links(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_little_that_is_known_is_set_and_the_rest_stays() {
        let html = paragraphs("One `a<b` and **x**.\n\nSee [it](https://a.b/?c=\"d\") [no](ftp:x)");
        assert_eq!(
            html,
            "<p>One <code>a&lt;b</code> and <strong>x</strong>.</p>\n\
             <p>See <a href=\"https://a.b/?c=&quot;d&quot;\">it</a> [no](ftp:x)</p>\n"
        );
        assert_eq!(paragraphs("a ` b ** <script>"), "<p>a ` b ** &lt;script&gt;</p>\n");
        assert_eq!(paragraphs("*so* 2 * 3 * 4"), "<p><em>so</em> 2 * 3 * 4</p>\n");
        assert_eq!(paragraphs("[x](javascript:alert(1))"), "<p>[x](javascript:alert(1))</p>\n");
    }
}

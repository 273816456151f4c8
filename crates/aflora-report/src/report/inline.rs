//! The little Markdown that an experiment's description uses, as HTML.
//!
//! Paragraphs, `code`, **strong**, *emphasis* and [links](https://example.org): anything else stays as it was
//! written. Everything is escaped first, so no description can bring elements of its own.

use super::charts::canvas::escape;

/// Paragraphs.
pub fn paragraphs(markdown: &str) -> String {
    markdown
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

/// Each `](` is looked at once, and neither a label nor an address is looked for beyond the next
/// one: a text of brackets alone takes no longer than any other, however many there are.
fn links(text: &str) -> String {
    let mut out = String::new();
    // What is not written yet, and where in it the next `](` is looked for.
    let (mut rest, mut from) = (text, 0);
    while let Some(at) = rest[from..].find("](").map(|at| from + at) {
        let link = rest[from..at].rfind('[').and_then(|open| {
            let address = &rest[at + 2..];
            let end = address.find([')', ']']).filter(|&end| address[end..].starts_with(')'))?;
            let (address, label) = (&address[..end], &rest[from + open + 1..at]);
            let web = address.starts_with("https://") || address.starts_with("http://");
            web.then_some((from + open, label, address))
        });
        from = at + 2;
        if let Some((open, label, address)) = link {
            out += &format!(
                r#"{}<a href="{}">{}</a>"#,
                escape(&rest[..open]),
                escape(address),
                escape(label)
            );
            rest = &rest[from + address.len() + 1..];
            from = 0;
        }
    }
    out + &escape(rest)
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
        assert_eq!(
            paragraphs("[a] [b](x) [c](https://d.e) and [[f](http://g)](h)"),
            "<p>[a] [b](x) <a href=\"https://d.e\">c</a> and \
             [<a href=\"http://g\">f</a>](h)</p>\n"
        );
        assert_eq!(paragraphs("*so* 2 * 3 * 4"), "<p><em>so</em> 2 * 3 * 4</p>\n");
        assert_eq!(paragraphs("[x](javascript:alert(1))"), "<p>[x](javascript:alert(1))</p>\n");
    }

    /// A description of 40,000 brackets once overflowed the stack.
    #[test]
    fn any_number_of_brackets_is_set_at_once() {
        for part in ["[", "](", "[](", "[a](b", "[a](https://b", "`", "*", "**"] {
            let text = part.repeat(200_000);
            let started = std::time::Instant::now();
            for text in [text.clone(), text.clone() + ")", text + "](http://x)"] {
                assert!(paragraphs(&text).len() >= text.len());
            }
            assert!(started.elapsed().as_secs() < 10, "{part}: {:?}", started.elapsed());
        }
    }
}

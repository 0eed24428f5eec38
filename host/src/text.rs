//! Text from outside, made safe to show.

use std::borrow::Cow;

/// `text` with control characters and characters that reorder text written as `\u{…}`, so that a name cannot steer a
/// terminal, forge a line, or hide what it says. The same for terminals, HTML and SVG; markup is escaped besides.
pub fn visible(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// As [`visible`], but for text of several lines: line breaks stay.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    escape(text, |character| character == '\n')
}

fn escape(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let hidden = |character: char| !keep(character) && is_hidden(character);
    if !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if hidden(character) {
            safe.extend(character.escape_unicode());
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

/// Control characters, line and paragraph separators, and the marks, embeddings, overrides and isolates of
/// bidirectional text (Unicode Standard Annex 9, table 2).
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::{visible, visible_lines};

    #[test]
    fn controls_become_visible_and_the_rest_stays() {
        assert_eq!(visible("Größe 8×8"), "Größe 8×8");
        assert_eq!(visible("a\x1b[31mb\nc"), "a\\u{1b}[31mb\\u{a}c");
        assert_eq!(visible_lines("a\r\nb"), "a\\u{d}\nb");
        // The control sequence introducer in one character, and a right-to-left override.
        assert_eq!(visible("\u{9b}2J \u{202e}gnp.exe"), "\\u{9b}2J \\u{202e}gnp.exe");
    }
}

//! Text of unknown origin, made safe for a terminal and a log.

use std::borrow::Cow;

/// Returns the text with `\u{..}` in place of each character that a terminal acts on or that hides: control
/// characters, line ends among them, DEL, C1, invisible characters, and changes of the writing direction.
///
/// ```
/// # use l4lbd::status::text::escape::escaped;
/// assert_eq!(escaped("web\x1b[2J\n"), r"web\u{1b}[2J\u{a}");
/// assert_eq!(escaped("日本 é"), "日本 é");
/// ```
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_unsafe(character) {
            escaped.extend(character.escape_unicode());
        } else {
            escaped.push(character);
        }
    }
    escaped.into()
}

/// Returns true for what [`escaped`] replaces.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            // Marks of the writing direction, spaces without a width, and separators of lines and paragraphs.
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            // Tags, which repeat ASCII invisibly.
            | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_acts_on_is_escaped() {
        for text in ["\x07", "\x1b]0;x", "\n", "\r", "\x7f", "\u{9b}", "\u{202e}", "\u{2066}", "\u{2028}"] {
            assert!(escaped(text).starts_with("\\u{"), "{text:?}");
        }
        assert_eq!(escaped("a\u{202e}b"), r"a\u{202e}b");
    }

    proptest! {
        #[test]
        fn escaped_text_is_one_line_without_controls(text in any::<String>()) {
            let escaped = escaped(&text);
            prop_assert!(!escaped.contains(is_unsafe));
            prop_assert!(escaped.len() <= text.len() * 10);
        }
    }
}

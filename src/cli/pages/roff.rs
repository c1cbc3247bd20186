//! Reads roff: requests with their arguments, and text with its escapes.
//!
//! Only the part of groff_man(7) that our pages use. All else is an error, so that a page cannot lose a
//! word on its way to the reader.

/// A construct that is not among those that our pages use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("line {line}: unknown macro .{name}; teach it to src/cli/pages/render.rs, or use another one")]
    Macro { line: usize, name: String },
    #[error("line {line}: unknown escape {escape}; teach it to src/cli/pages/roff.rs, or use another one")]
    Escape { line: usize, escape: String },
}

/// A typeface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Font {
    #[default]
    Roman,
    Bold,
    Italic,
}

/// A character in its typeface; [`NO_BREAK`] is a blank that does not end a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glyph {
    pub character: char,
    pub font: Font,
}

/// The blank that `\ ` and `\~` stand for.
pub const NO_BREAK: char = '\u{a0}';

/// A line of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    Text(&'a str),
    Request { name: &'a str, arguments: Vec<String> },
}

impl<'a> Line<'a> {
    /// Reads a line; `None` for a comment.
    pub fn parse(line: &'a str) -> Option<Self> {
        let Some(request) = line.strip_prefix('.').or_else(|| line.strip_prefix('\'')) else {
            return Some(Self::Text(line));
        };
        let request = request.trim();
        if request.is_empty() || request.starts_with("\\\"") {
            return None;
        }
        let (name, rest) = request.split_once(' ').unwrap_or((request, ""));
        Some(Self::Request { name, arguments: arguments(rest) })
    }
}

/// Splits arguments at blanks. Quotes keep blanks together, a doubled quote inside of them is one quote.
fn arguments(text: &str) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let mut argument = String::new();
        let mut quoted = false;
        let mut characters = rest.char_indices().peekable();
        let mut end = rest.len();
        while let Some((index, character)) = characters.next() {
            match character {
                '"' if quoted && characters.next_if(|(_, next)| *next == '"').is_some() => argument.push('"'),
                '"' if quoted || index == 0 => quoted = !quoted,
                ' ' if !quoted => {
                    end = index;
                    break;
                }
                // Both belong together: a blank after a backslash ends no argument.
                '\\' => {
                    argument.push('\\');
                    argument.extend(characters.next().map(|(_, next)| next));
                }
                _ => argument.push(character),
            }
        }
        arguments.push(argument);
        rest = rest.get(end..).unwrap_or_default().trim_start();
    }
    arguments
}

/// Resolves the escapes of a text that starts in `font`.
///
/// # Errors
/// At an escape that is not known, with the number of the `line`.
pub fn glyphs(text: &str, font: Font, line: usize) -> Result<Vec<Glyph>, Error> {
    let mut glyphs = Vec::with_capacity(text.len());
    let (mut font, mut previous) = (font, font);
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        let character = match character {
            '\\' => match escape(&mut rest).map_err(|escape| Error::Escape { line, escape })? {
                Escape::Character(character) => character,
                Escape::Nothing => continue,
                Escape::Font(next) => {
                    (font, previous) = (next.unwrap_or(previous), font);
                    continue;
                }
            },
            plain => plain,
        };
        glyphs.push(Glyph { character, font });
    }
    Ok(glyphs)
}

/// Returns a text without typefaces; one with an unknown escape stays as it is.
pub fn plain(text: &str) -> String {
    match glyphs(text, Font::Roman, 0) {
        Ok(glyphs) => glyphs.iter().map(|glyph| glyph.character).collect(),
        Err(_) => text.to_owned(),
    }
}

enum Escape {
    Character(char),
    Nothing,
    /// `None` for the one before.
    Font(Option<Font>),
}

/// Reads what follows a backslash; an unknown escape comes back as it is written.
fn escape(rest: &mut std::str::Chars<'_>) -> Result<Escape, String> {
    let first = rest.next();
    Ok(match first {
        Some('-') => Escape::Character('-'),
        Some('e') => Escape::Character('\\'),
        Some(' ' | '~') => Escape::Character(NO_BREAK),
        Some('&') => Escape::Nothing,
        Some('f') => match rest.next() {
            Some('R') => Escape::Font(Some(Font::Roman)),
            Some('B') => Escape::Font(Some(Font::Bold)),
            Some('I') => Escape::Font(Some(Font::Italic)),
            Some('P') => Escape::Font(None),
            other => return Err(format!("\\f{}", other.map(String::from).unwrap_or_default())),
        },
        Some('(') => {
            let name: String = rest.by_ref().take(2).collect();
            match named(&name) {
                Some(character) => Escape::Character(character),
                None => return Err(format!("\\({name}")),
            }
        }
        other => return Err(format!("\\{}", other.map(String::from).unwrap_or_default())),
    })
}

/// The character of a name, as groff_char(7) has it.
fn named(name: &str) -> Option<char> {
    Some(match name {
        "aq" => '\'',
        "dq" => '"',
        "ga" => '`',
        "ha" => '^',
        "ti" => '~',
        "rs" => '\\',
        "lq" => '\u{201c}',
        "rq" => '\u{201d}',
        "em" => '\u{2014}',
        "en" => '\u{2013}',
        "bu" => '\u{2022}',
        "mc" => '\u{b5}',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> Vec<String> {
        match Line::parse(line) {
            Some(Line::Request { name, arguments }) => {
                std::iter::once(name.to_owned()).chain(arguments).collect()
            }
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn parse_splits_arguments_at_blanks_outside_of_quotes() {
        assert_eq!(request(".BR mandoc (1) ,"), ["BR", "mandoc", "(1)", ","]);
        assert_eq!(request(r#".TH "A B" 7 """quoted""""#), ["TH", "A B", "7", "\"quoted\""]);
        assert_eq!(request(r".B a\ b c"), ["B", r"a\ b", "c"]);
        assert_eq!(request(".PP"), ["PP"]);
        assert_eq!(Line::parse(".\\\" a comment"), None);
        assert_eq!(Line::parse("'\\\" t"), None);
        assert_eq!(Line::parse("text"), Some(Line::Text("text")));
    }

    #[test]
    fn glyphs_resolve_escapes() {
        assert_eq!(plain(r"\-\-json \(aqx\(aq a\eb \&.x"), r"--json 'x' a\b .x");
        assert_eq!(plain(r"a\ b"), "a\u{a0}b");
        let fonts: Vec<Font> =
            glyphs(r"r\fBb\fIi\fPb\fRr", Font::Roman, 1).unwrap().iter().map(|glyph| glyph.font).collect();
        assert_eq!(fonts, [Font::Roman, Font::Bold, Font::Italic, Font::Bold, Font::Roman]);
    }

    #[test]
    fn glyphs_refuse_what_they_do_not_know() {
        for (text, escape) in [(r"a\s1b", r"\s"), (r"\(zz", r"\(zz"), (r"\fX", r"\fX"), ("\\", "\\")] {
            let error = Error::Escape { line: 7, escape: escape.to_owned() };
            assert_eq!(glyphs(text, Font::Roman, 7), Err(error), "{text}");
            assert_eq!(plain(text), text);
        }
    }
}

//! Lays out words in lines: indentation, filling, tags beside paragraphs, typefaces.

use super::roff::{Font, Glyph, NO_BREAK};

/// The text so far, and the paragraph that is being filled.
pub struct PageLayout {
    width: usize,
    /// True where bold and italic are shown, by escape sequences of a terminal.
    styled: bool,
    text: String,
    /// The line that is being filled; empty at the start of a paragraph.
    line: Vec<Glyph>,
    /// Columns that the next line is indented by.
    pub indent: usize,
    /// Set where the next paragraph needs no blank line before it: below another one, or a heading.
    separated: bool,
}

impl PageLayout {
    pub fn new(width: usize, styled: bool) -> Self {
        Self { width, styled, text: String::new(), line: Vec::new(), indent: 0, separated: true }
    }

    /// Adds words to the paragraph, and breaks lines where they are full.
    pub fn fill(&mut self, glyphs: &[Glyph]) {
        for word in glyphs.split(|glyph| glyph.character == ' ').filter(|word| !word.is_empty()) {
            // Nothing but indentation and a tag needs no blank before the first word.
            let begun = self.line.len() > self.indent;
            if begun && self.line.len() + 1 + word.len() > self.width {
                self.end_line();
            } else if begun {
                self.pad(self.line.len() + 1);
            }
            self.pad(self.indent);
            self.line.extend(word);
        }
    }

    /// Adds a line as it is, however long.
    pub fn verbatim(&mut self, glyphs: &[Glyph]) {
        if glyphs.is_empty() {
            return self.end_paragraph();
        }
        self.end_line();
        self.pad(self.indent);
        self.line.extend(glyphs);
        self.end_line();
    }

    /// Adds a heading, which stands right above its text.
    pub fn heading(&mut self, glyphs: &[Glyph]) {
        self.verbatim(glyphs);
        self.separated = true;
    }

    /// Starts a paragraph with `tag`, whose text is indented by `indent`: beside the tag if that is short
    /// enough, else below it.
    pub fn tag(&mut self, tag: &[Glyph], indent: usize) {
        self.end_line();
        self.pad(self.indent);
        self.line.extend(tag);
        self.indent = indent;
        if self.line.len() < indent {
            self.pad(indent);
        } else {
            self.end_line();
        }
    }

    /// Ends the line, if there is anything in it.
    pub fn end_line(&mut self) {
        while self.line.last().is_some_and(|glyph| glyph.character == ' ') {
            self.line.pop();
        }
        if self.line.is_empty() {
            return;
        }
        let mut font = Font::Roman;
        for glyph in std::mem::take(&mut self.line) {
            if glyph.font != font && self.styled {
                self.text.push_str(sequence(glyph.font));
                font = glyph.font;
            }
            self.text.push(if glyph.character == NO_BREAK { ' ' } else { glyph.character });
        }
        if font != Font::Roman {
            self.text.push_str(sequence(Font::Roman));
        }
        self.text.push('\n');
        self.separated = false;
    }

    /// Ends the paragraph: a blank line follows, never two.
    pub fn end_paragraph(&mut self) {
        self.end_line();
        if !self.separated {
            self.text.push('\n');
            self.separated = true;
        }
    }

    /// Returns all of it.
    pub fn finish(mut self) -> String {
        self.end_line();
        self.text
    }

    fn pad(&mut self, column: usize) {
        self.line.resize(self.line.len().max(column), Glyph { character: ' ', font: Font::Roman });
    }
}

/// Sequence that switches a terminal to a typeface (ECMA-48, SGR). Italic is underlined, as by man(1).
fn sequence(font: Font) -> &'static str {
    match font {
        Font::Roman => "\x1b[0m",
        Font::Bold => "\x1b[0;1m",
        Font::Italic => "\x1b[0;4m",
    }
}

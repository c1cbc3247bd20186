//! Renders a manual page as plain text, for terminals without man(1).

use super::layout::PageLayout;
use super::roff::{Error, Font, Glyph, Line, glyphs};

/// Columns that text is indented by below a section's heading, and by a paragraph with a tag.
const INDENT: usize = 7;

/// Columns that the heading of a subsection is indented by.
const SUBHEADING: usize = 3;

/// Form of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Columns of the terminal.
    pub width: usize,
    /// True where bold and italic are shown, by escape sequences of a terminal.
    pub styled: bool,
}

/// Renders the roff of a page.
///
/// # Errors
/// At the first macro or escape that is not among those that our pages use.
pub fn render(source: &str, format: Format) -> Result<String, Error> {
    let layout = PageLayout::new(format.width, format.styled);
    let mut renderer = Renderer { layout, width: format.width, margins: vec![0], filled: true, tagged: None };
    for (index, line) in source.lines().enumerate() {
        match Line::parse(line) {
            None => {}
            Some(Line::Text(text)) => renderer.text(&glyphs(text, Font::Roman, index + 1)?),
            Some(Line::Request { name, arguments }) => renderer.request(name, &arguments, index + 1)?,
        }
    }
    Ok(renderer.layout.finish())
}

struct Renderer {
    layout: PageLayout,
    width: usize,
    /// Left margins, of which the last one holds; `.RS` adds one.
    margins: Vec<usize>,
    /// True while words are filled into lines, false in an example.
    filled: bool,
    /// The indentation that `.TP` gave, while its tag has not come yet.
    tagged: Option<usize>,
}

impl Renderer {
    fn request(&mut self, name: &str, arguments: &[String], line: usize) -> Result<(), Error> {
        match name {
            "TH" => self.title(arguments, line)?,
            "SH" => self.heading(&join(arguments, Font::Bold, line)?, 0),
            "SS" => self.heading(&join(arguments, Font::Bold, line)?, SUBHEADING),
            "PP" | "P" | "LP" => {
                self.layout.end_paragraph();
                self.layout.indent = self.margin();
            }
            "TP" => {
                self.layout.end_paragraph();
                self.layout.indent = self.margin();
                self.tagged = Some(number(arguments.first()));
            }
            "IP" => {
                self.layout.end_paragraph();
                self.layout.indent = self.margin();
                let tag = arguments.first().map(String::as_str).unwrap_or_default();
                self.layout.tag(&glyphs(tag, Font::Roman, line)?, self.margin() + number(arguments.get(1)));
            }
            // Sections can be nested, and each .RE goes back to the margin before.
            "RS" => {
                self.layout.end_line();
                self.margins.push(self.margin() + number(arguments.first()));
                self.layout.indent = self.margin();
            }
            "RE" => {
                self.layout.end_line();
                if self.margins.len() > 1 {
                    self.margins.pop();
                }
                self.layout.indent = self.margin();
            }
            // Lines of an example stay as they are written.
            "EX" | "nf" => {
                self.layout.end_line();
                self.filled = false;
            }
            "EE" | "fi" => self.filled = true,
            "br" => self.layout.end_line(),
            "B" => self.text(&join(arguments, Font::Bold, line)?),
            "I" => self.text(&join(arguments, Font::Italic, line)?),
            "BR" => self.text(&alternate(arguments, [Font::Bold, Font::Roman], line)?),
            "RB" => self.text(&alternate(arguments, [Font::Roman, Font::Bold], line)?),
            "BI" => self.text(&alternate(arguments, [Font::Bold, Font::Italic], line)?),
            "IB" => self.text(&alternate(arguments, [Font::Italic, Font::Bold], line)?),
            "IR" => self.text(&alternate(arguments, [Font::Italic, Font::Roman], line)?),
            "RI" => self.text(&alternate(arguments, [Font::Roman, Font::Italic], line)?),
            // A macro that is passed over would lose its words without a trace.
            _ => return Err(Error::Macro { line, name: name.to_owned() }),
        }
        Ok(())
    }

    /// A line of text: the tag of a paragraph, a line of an example, or words to fill in.
    fn text(&mut self, text: &[Glyph]) {
        if let Some(indent) = self.tagged.take() {
            self.layout.tag(text, self.margin() + indent);
        } else if !self.filled {
            self.layout.verbatim(text);
        } else if text.is_empty() {
            self.layout.end_paragraph();
        } else {
            self.layout.fill(text);
        }
    }

    /// The first line: the page's title at both ends, the manual's between them.
    fn title(&mut self, arguments: &[String], line: usize) -> Result<(), Error> {
        let part = |index: usize| {
            let text = arguments.get(index).map(String::as_str).unwrap_or_default();
            glyphs(text, Font::Roman, line)
        };
        let roman = |character| Glyph { character, font: Font::Roman };
        let mut title = part(0)?;
        title.push(roman('('));
        title.extend(part(1)?);
        title.push(roman(')'));
        let manual = part(4)?;
        let mut header = title.clone();
        header.resize((self.width.saturating_sub(manual.len()) / 2).max(title.len() + 1), roman(' '));
        header.extend(manual);
        header.resize(self.width.saturating_sub(title.len()).max(header.len() + 1), roman(' '));
        header.extend(title);
        self.layout.verbatim(&header);
        self.layout.end_paragraph();
        Ok(())
    }

    fn heading(&mut self, text: &[Glyph], indent: usize) {
        self.layout.end_paragraph();
        self.margins = vec![INDENT];
        self.filled = true;
        self.layout.indent = indent;
        self.layout.heading(text);
        self.layout.indent = INDENT;
    }

    fn margin(&self) -> usize {
        self.margins.last().copied().unwrap_or(INDENT)
    }
}

/// An indentation in columns; the usual one where none is given.
fn number(argument: Option<&String>) -> usize {
    argument.and_then(|argument| argument.trim_end_matches('n').parse().ok()).unwrap_or(INDENT)
}

/// Arguments as one text, with blanks between them.
fn join(arguments: &[String], font: Font, line: usize) -> Result<Vec<Glyph>, Error> {
    glyphs(&arguments.join(" "), font, line)
}

/// Arguments as one text without blanks, in two typefaces by turns.
fn alternate(arguments: &[String], fonts: [Font; 2], line: usize) -> Result<Vec<Glyph>, Error> {
    let mut text = Vec::new();
    for (argument, font) in arguments.iter().zip(fonts.into_iter().cycle()) {
        text.extend(glyphs(argument, font, line)?);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(source: &str) -> String {
        render(source, Format { width: 40, styled: false }).unwrap()
    }

    #[test]
    fn render_fills_paragraphs_within_the_width() {
        let text = plain(
            ".TH demo 7 2026-01-01 l4lbd \"A manual\"\n.SH NAME\ndemo \\- shows words\n.SH DESCRIPTION\n\
             Words of a paragraph that is\nlonger than a line.\n.PP\nAnother one.\n",
        );
        insta::assert_snapshot!(text, @r"
        demo(7)         A manual         demo(7)

        NAME
               demo - shows words

        DESCRIPTION
               Words of a paragraph that is
               longer than a line.

               Another one.
        ");
    }

    #[test]
    fn render_puts_short_tags_beside_their_text() {
        let text = plain(
            ".SH A\n.TP\n.B -h\nPrints help.\n.TP\n.BI --config \" FILE\"\nReads FILE instead of the usual one.\n\
             .IP \\(bu 2\nA point, whose second line is indented too.\n",
        );
        insta::assert_snapshot!(text, @r"
        A
               -h     Prints help.

               --config FILE
                      Reads FILE instead of the
                      usual one.

               • A point, whose second line is
                 indented too.
        ");
    }

    #[test]
    fn render_leaves_examples_as_they_are() {
        let text = plain(
            ".SH A\nBefore:\n.PP\n.RS 4\n.EX\n  two  blanks\n\nand a line that is longer than the width of it\n\
             .EE\n.RE\n.PP\nAfter.\n.SS \"Sub section\"\nText.\n",
        );
        insta::assert_snapshot!(text, @r"
        A
               Before:

                     two  blanks

                   and a line that is longer than the width of it

               After.

           Sub section
               Text.
        ");
    }

    #[test]
    fn render_breaks_lines_and_nests_margins() {
        let text = plain(".SH A\none\n.br\ntwo\n.RS\nthree\n.RS 2\nfour\n.RE\nfive\n.RE\nsix\n");
        insta::assert_snapshot!(text, @r"
        A
               one
               two
                      three
                        four
                      five
               six
        ");
    }

    #[test]
    fn render_marks_fonts_on_terminals_only() {
        let source = ".SH A\nplain \\fBbold\\fR and\n.IR italic ,\nend\n";
        let styled = render(source, Format { width: 40, styled: true }).unwrap();
        assert_eq!(
            styled,
            "\x1b[0;1mA\x1b[0m\n       plain \x1b[0;1mbold\x1b[0m and \x1b[0;4mitalic\x1b[0m, end\n"
        );
        assert!(!plain(source).contains('\x1b'));
    }

    #[test]
    fn render_keeps_words_that_are_longer_than_the_width() {
        let word = "x".repeat(60);
        assert_eq!(plain(&format!(".SH A\na {word} b\n")), format!("A\n       a\n       {word}\n       b\n"));
    }

    #[test]
    fn render_refuses_macros_that_it_does_not_know() {
        let error = render(".SH A\n.TS\n", Format { width: 40, styled: false });
        assert_eq!(error, Err(Error::Macro { line: 2, name: "TS".to_owned() }));
    }
}

//! Erlang terms as configuration files have them.

/// Deepest nesting that is read. Files of DC/OS nest six deep.
const DEPTH: usize = 64;

/// A term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    Atom(String),
    /// A string or a binary.
    Text(String),
    Integer(i64),
    Tuple(Vec<Term>),
    List(Vec<Term>),
    Map(Vec<(Term, Term)>),
}

/// Reason why a text is no sequence of terms.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct Error {
    pub line: usize,
    pub reason: String,
}

/// Reads terms, each of which ends with a full stop.
///
/// # Errors
/// At the first place that is no such term; also for floats, characters, records and other things that no
/// configuration of DC/OS has.
pub fn parse(text: &str) -> Result<Vec<Term>, Error> {
    let mut reader = Reader { rest: text, text };
    let mut terms = Vec::new();
    while reader.next().is_some() {
        terms.push(reader.term(0)?);
        reader.expect(".")?;
    }
    Ok(terms)
}

struct Reader<'t> {
    rest: &'t str,
    text: &'t str,
}

impl<'t> Reader<'t> {
    /// Skips spaces and comments, and returns the first character after them.
    fn next(&mut self) -> Option<char> {
        loop {
            self.rest = self.rest.trim_start();
            let Some(comment) = self.rest.strip_prefix('%') else { return self.rest.chars().next() };
            self.rest = comment.find('\n').map_or("", |end| &comment[end..]);
        }
    }

    fn fail<T>(&self, reason: impl Into<String>) -> Result<T, Error> {
        let read = &self.text[..self.text.len() - self.rest.len()];
        Err(Error { line: read.matches('\n').count() + 1, reason: reason.into() })
    }

    fn take(&mut self, token: &str) -> bool {
        self.next();
        self.rest.strip_prefix(token).inspect(|rest| self.rest = rest).is_some()
    }

    fn expect(&mut self, token: &str) -> Result<(), Error> {
        if self.take(token) {
            return Ok(());
        }
        let found =
            self.rest.chars().next().map_or("the end of the file".to_owned(), |found| format!("{found:?}"));
        self.fail(format!("{token:?} is expected, and there is {found}"))
    }

    fn term(&mut self, depth: usize) -> Result<Term, Error> {
        // Each level is a call, and a file must not exhaust the stack.
        if depth == DEPTH {
            return self.fail(format!("terms are nested deeper than {DEPTH}"));
        }
        match self.next() {
            Some('{') => Ok(Term::Tuple(self.sequence("{", "}", |reader| reader.term(depth + 1))?)),
            Some('[') => Ok(Term::List(self.sequence("[", "]", |reader| reader.term(depth + 1))?)),
            Some('#') => Ok(Term::Map(self.sequence("#{", "}", |reader| {
                let key = reader.term(depth + 1)?;
                if !reader.take("=>") {
                    reader.expect(":=")?;
                }
                Ok((key, reader.term(depth + 1)?))
            })?)),
            Some('<') => {
                self.expect("<<")?;
                let text = if self.next() == Some('"') { self.quoted('"')? } else { String::new() };
                self.take("/utf8");
                self.expect(">>")?;
                Ok(Term::Text(text))
            }
            Some('"') => Ok(Term::Text(self.quoted('"')?)),
            Some('\'') => Ok(Term::Atom(self.quoted('\'')?)),
            Some('-' | '0'..='9') => self.integer(),
            Some(letter) if letter.is_lowercase() => Ok(Term::Atom(
                self.word(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '@')).to_owned(),
            )),
            Some(other) => self.fail(format!("a term cannot begin with {other:?}")),
            None => self.fail("the file ends within a term"),
        }
    }

    /// Reads what stands between two tokens, separated by commas.
    fn sequence<T>(
        &mut self,
        open: &str,
        close: &str,
        mut item: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        self.expect(open)?;
        let mut items = Vec::new();
        // An empty one has no item to begin with.
        if self.take(close) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.take(close) {
                return Ok(items);
            }
            self.expect(",")?;
        }
    }

    fn word(&mut self, belongs: impl Fn(char) -> bool) -> &'t str {
        // All that may belong to it, so that an error quotes the whole word.
        let end = self.rest.find(|letter| !belongs(letter)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn quoted(&mut self, quote: char) -> Result<String, Error> {
        let mut text = String::new();
        let mut characters = self.rest.char_indices().skip(1);
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => match characters.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, other)) => text.push(other),
                    None => break,
                },
                end if end == quote => {
                    self.rest = &self.rest[at + quote.len_utf8()..];
                    return Ok(text);
                }
                other => text.push(other),
            }
        }
        self.fail(format!("{quote} is not closed"))
    }

    /// Reads a whole number, also one with a base, such as `16#fd01`.
    fn integer(&mut self) -> Result<Term, Error> {
        let is_negative = self.rest.starts_with('-');
        let word = self.word(|letter| letter.is_alphanumeric() || matches!(letter, '#' | '-'));
        let digits = word.trim_start_matches('-');
        let number = match digits.split_once('#') {
            Some((base, digits)) => base
                .parse()
                .ok()
                .filter(|base| (2..=36).contains(base))
                .and_then(|base| i64::from_str_radix(digits, base).ok()),
            None => digits.parse().ok(),
        };
        match number {
            Some(number) => Ok(Term::Integer(if is_negative { -number } else { number })),
            None => self.fail(format!("{word:?} is not a whole number")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn atom(text: &str) -> Term {
        Term::Atom(text.to_owned())
    }

    #[test]
    fn terms_of_every_kind_are_read() {
        let text = "%% a comment\n[{dcos_l4lb, [{min_named_ip6, {16#fd01, 0}}, {on, true}]},\n \
                    {'a b', \"x\\\"y\", <<\"z\"/utf8>>, -7, #{\"k\" => [], v := {}}}].\nlast.";
        let Ok([Term::List(items), last]) = parse(text).map(|terms| <[Term; 2]>::try_from(terms).unwrap())
        else {
            panic!("{:?}", parse(text));
        };
        assert_eq!(last, atom("last"));
        let address = Term::Tuple(vec![Term::Integer(0xfd01), Term::Integer(0)]);
        assert_eq!(
            items[0],
            Term::Tuple(vec![
                atom("dcos_l4lb"),
                Term::List(vec![
                    Term::Tuple(vec![atom("min_named_ip6"), address]),
                    Term::Tuple(vec![atom("on"), atom("true")]),
                ]),
            ])
        );
        assert_eq!(
            items[1],
            Term::Tuple(vec![
                atom("a b"),
                Term::Text("x\"y".to_owned()),
                Term::Text("z".to_owned()),
                Term::Integer(-7),
                Term::Map(vec![
                    (Term::Text("k".to_owned()), Term::List(vec![])),
                    (atom("v"), Term::Tuple(vec![])),
                ]),
            ])
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, line, reason) in [
            ("[\n{a, 1}\n", 3, "\",\" is expected, and there is the end of the file"),
            ("[a b].", 1, "\",\" is expected, and there is 'b'"),
            ("[a]", 1, "\".\" is expected, and there is the end of the file"),
            ("{\"a}.", 1, "\" is not closed"),
            ("[16#zz].", 1, "\"16#zz\" is not a whole number"),
            ("Variable.", 1, "a term cannot begin with 'V'"),
            ("[a,\n\n", 3, "the file ends within a term"),
        ] {
            assert_eq!(parse(text), Err(Error { line, reason: reason.to_owned() }), "{text:?}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(parse(&deep).unwrap_err().reason, "terms are nested deeper than 64");
    }
}

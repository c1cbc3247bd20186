//! A place in a JSON document that is read in windows.
//!
//! The document comes from any reader, such as one that decompresses, and is never in memory as a whole:
//! the cursor holds a window of it, which grows to the longest value that is read in one piece. Around
//! such values it walks through objects and lists, and what is of no interest is passed over octet by
//! octet, yet as strictly as by a parser: a document is JSON as a whole, or refused.
//!
//! For example, `{"offers":[...],"tasks":[{"id":"a"},{"id":"b"}]}` is entered, `offers` passed over,
//! `tasks` entered, and each of its two items handed out as text.

use std::borrow::Cow;
use std::io::Read;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::wire::{Lenient, strictly};

/// Reason why a document cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("not JSON: {what} at byte {offset}")]
    NotJson { what: Cow<'static, str>, offset: u64 },
    /// A document that cannot be decompressed, or is too long.
    #[error(transparent)]
    Document(std::io::Error),
}

/// First size of the window.
const WINDOW: usize = 64 * 1024;

const CUT_OFF: &str = "EOF inside of a value: the document is cut off";

/// Lists and objects inside of each other.
const MAX_DEPTH: usize = 10_000;

/// Bounds of a value that is read in one piece. Tenants write most of what is in one, and a short text
/// can become much larger values.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Octets.
    pub length: usize,
    /// Members and items in it, at any depth.
    pub values: usize,
}

/// A place in a document.
pub struct Cursor<R> {
    document: R,
    window: Vec<u8>,
    /// The part of the window that was not read yet.
    start: usize,
    end: usize,
    /// Octets of the document before the window.
    passed: u64,
    /// Set when the window has the end of the document.
    is_over: bool,
}

impl<R: Read> Cursor<R> {
    /// Returns a cursor at the beginning of a document.
    pub fn new(document: R) -> Self {
        Self { document, window: vec![0; WINDOW], start: 0, end: 0, passed: 0, is_over: false }
    }

    /// Returns the octets in the window that were not read yet.
    pub fn unread(&self) -> &[u8] {
        self.window.get(self.start..self.end).unwrap_or_default()
    }

    /// Goes past octets that are in the window.
    pub fn advance(&mut self, octets: usize) {
        self.start = (self.start + octets).min(self.end);
    }

    /// Reads until the window has so many octets that were not read yet. Returns false if the document has
    /// fewer.
    pub fn ensure(&mut self, octets: usize) -> Result<bool, ReadError> {
        while self.end - self.start < octets {
            if self.is_over {
                return Ok(false);
            }
            // What was read makes room: a window that only grew would end as the whole document.
            self.window.copy_within(self.start..self.end, 0);
            self.passed += self.start as u64;
            (self.start, self.end) = (0, self.end - self.start);
            // Half of it at least is free then, so that a long item is moved a few times and not for each piece.
            if self.window.len() < octets.max(2 * self.end) {
                self.window.resize(octets.max(2 * self.end), 0);
            }
            let room = self.window.get_mut(self.end..).unwrap_or_default();
            match self.document.read(room) {
                Ok(0) => self.is_over = true,
                Ok(read) => self.end += read,
                // A signal came; nothing was read and nothing is lost.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ReadError::Document(error)),
            }
        }
        Ok(true)
    }

    /// Returns the first octet after white space; `None` at the end of the document.
    pub fn peek(&mut self) -> Result<Option<u8>, ReadError> {
        loop {
            let is_blank = |octet: &&u8| matches!(octet, b' ' | b'\n' | b'\r' | b'\t');
            let blanks = self.unread().iter().take_while(is_blank).count();
            self.advance(blanks);
            if let Some(octet) = self.unread().first() {
                return Ok(Some(*octet));
            }
            if !self.ensure(1)? {
                return Ok(None);
            }
        }
    }

    /// Returns the first octet after white space, which there has to be.
    fn token(&mut self) -> Result<u8, ReadError> {
        self.peek()?.ok_or_else(|| self.wrong(CUT_OFF))
    }

    /// Returns an error about the present place.
    pub fn wrong(&self, what: &'static str) -> ReadError {
        ReadError::NotJson { what: Cow::Borrowed(what), offset: self.offset() }
    }

    /// Enters the next value if it begins with `bracket`.
    pub fn enter(&mut self, bracket: u8) -> Result<bool, ReadError> {
        let is_one = self.token()? == bracket;
        if is_one {
            self.advance(1);
        }
        Ok(is_one)
    }

    /// Goes to the value of the next member of an object, and returns its key; `None` behind the last one.
    /// `is_first` is true for the first call after the bracket.
    pub fn next_key(&mut self, is_first: &mut bool) -> Result<Option<String>, ReadError> {
        match (self.token()?, *is_first) {
            (b'}', _) => {
                self.advance(1);
                return Ok(None);
            }
            (b',', false) => self.advance(1),
            (_, true) => {}
            (_, false) => return Err(self.wrong("expected , or } after a member")),
        }
        *is_first = false;
        if self.token()? != b'"' {
            return Err(self.wrong("the name of a member has to be a string"));
        }
        // A name that is too long is that of no member that is read.
        let key = self.scalar(Bounds { length: WINDOW, values: 0 })?.unwrap_or_default();
        if self.token()? != b':' {
            return Err(self.wrong("expected : after the name of a member"));
        }
        self.advance(1);
        Ok(Some(key))
    }

    /// Goes to the next item of a list; false behind the last one. `is_first` is true for the first call
    /// after the bracket.
    pub fn next_item(&mut self, is_first: &mut bool) -> Result<bool, ReadError> {
        match (self.token()?, std::mem::take(is_first)) {
            (b']', _) => {
                self.advance(1);
                return Ok(false);
            }
            (b',', false) => self.advance(1),
            (_, true) => {}
            (_, false) => return Err(self.wrong("expected , or ] after an item")),
        }
        Ok(true)
    }

    /// Returns the length of the next value, which is then in the window as a whole. A value that exceeds
    /// the bounds is passed over instead, and is `None`.
    ///
    /// Finds the end only: whether it is JSON is found out when the text is read.
    pub fn value(&mut self, bounds: Bounds) -> Result<Option<usize>, ReadError> {
        let mut scan = Scan::new(self.token()?);
        loop {
            if let Some(length) = scan.end(self.unread()) {
                if scan.values > bounds.values || length > bounds.length {
                    break;
                }
                return Ok(Some(length));
            }
            let known = self.unread().len();
            if scan.values > bounds.values || known > bounds.length {
                break;
            }
            if !self.ensure(known + 1)? {
                // A number or a word ends with the document.
                return match scan.is_scalar {
                    true => Ok(Some(known)),
                    false => Err(self.wrong(CUT_OFF)),
                };
            }
        }
        // From its beginning: the search has only looked at the value.
        self.skip()?;
        Ok(None)
    }

    /// Reads the next value and goes past it; `None` if it is no `T` or exceeds the bounds.
    pub fn scalar<T: DeserializeOwned>(&mut self, bounds: Bounds) -> Result<Option<T>, ReadError> {
        let Some(length) = self.value(bounds)? else { return Ok(None) };
        // A value of another type costs itself alone, and what is no JSON costs the document.
        let read = match parsed(&text(self.octets(length))) {
            Ok(Lenient::Read(value)) => Some(value),
            Ok(Lenient::Unreadable { .. }) => None,
            Err(error) => return Err(self.not_json(&error)),
        };
        self.advance(length);
        Ok(read)
    }

    /// Returns so many of the octets that were not read yet.
    pub fn octets(&self, length: usize) -> &[u8] {
        self.unread().get(..length).unwrap_or_default()
    }

    /// Returns an error about the value at the present place.
    pub fn not_json(&self, error: &serde_json::Error) -> ReadError {
        ReadError::NotJson { what: error.to_string().into(), offset: self.offset() }
    }

    fn offset(&self) -> u64 {
        self.passed + self.start as u64
    }

    /// Goes past the next value, of any size, whose octets have to be JSON.
    pub fn skip(&mut self) -> Result<(), ReadError> {
        // The brackets that are open. A list instead of recursion: how deep they are is a tenant's choice, and the
        // stack is not.
        let mut open: Vec<u8> = Vec::new();
        loop {
            match self.token()? {
                bracket @ (b'{' | b'[') => {
                    self.advance(1);
                    if open.len() == MAX_DEPTH {
                        return Err(self.wrong("more than 10000 lists and objects inside of each other"));
                    }
                    open.push(bracket);
                    match (bracket, self.token()?) {
                        (b'{', b'}') | (b'[', b']') => {}
                        (b'{', _) => {
                            self.skip_key()?;
                            continue;
                        }
                        _ => continue,
                    }
                }
                b'"' => self.skip_string()?,
                b't' => self.skip_word(b"true")?,
                b'f' => self.skip_word(b"false")?,
                b'n' => self.skip_word(b"null")?,
                b'-' | b'0'..=b'9' => self.skip_number()?,
                _ => return Err(self.wrong("expected a value")),
            }
            // A value ended, or a bracket is closed at once.
            loop {
                let Some(bracket) = open.last() else { return Ok(()) };
                match (bracket, self.token()?) {
                    (b'{', b'}') | (b'[', b']') => {
                        self.advance(1);
                        open.pop();
                    }
                    (b'{', b',') => {
                        self.advance(1);
                        self.skip_key()?;
                        break;
                    }
                    (b'[', b',') => {
                        self.advance(1);
                        break;
                    }
                    _ => return Err(self.wrong("expected , or the end of a list or object")),
                }
            }
        }
    }

    fn skip_key(&mut self) -> Result<(), ReadError> {
        if self.token()? != b'"' {
            return Err(self.wrong("the name of a member has to be a string"));
        }
        self.skip_string()?;
        if self.token()? != b':' {
            return Err(self.wrong("expected : after the name of a member"));
        }
        self.advance(1);
        Ok(())
    }

    fn skip_string(&mut self) -> Result<(), ReadError> {
        self.advance(1);
        loop {
            // Most of a document is plain text in strings, which is passed over without a look at each octet's
            // meaning.
            let is_special = |octet: &u8| matches!(octet, b'"' | b'\\' | 0..=0x1f);
            match self.unread().iter().position(is_special) {
                None => {
                    self.advance(self.unread().len());
                    self.need()?;
                }
                Some(plain) => {
                    self.advance(plain);
                    match self.need()? {
                        b'"' => {
                            self.advance(1);
                            return Ok(());
                        }
                        b'\\' => self.skip_escape()?,
                        _ => return Err(self.wrong("a control character in a string")),
                    }
                }
            }
        }
    }

    fn skip_escape(&mut self) -> Result<(), ReadError> {
        self.advance(1);
        let escaped = self.need()?;
        self.advance(1);
        match escaped {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => {
                for _ in 0..4 {
                    if !self.need()?.is_ascii_hexdigit() {
                        return Err(self.wrong("an escape in a string that is none"));
                    }
                    self.advance(1);
                }
                Ok(())
            }
            _ => Err(self.wrong("an escape in a string that is none")),
        }
    }

    fn skip_word(&mut self, word: &'static [u8]) -> Result<(), ReadError> {
        // The word may be in two pieces of the document.
        if !self.ensure(word.len())? || !self.unread().starts_with(word) {
            return Err(self.wrong("expected a value"));
        }
        self.advance(word.len());
        Ok(())
    }

    fn skip_number(&mut self) -> Result<(), ReadError> {
        self.skip_one_of(b"-")?;
        // A number begins with 0 only where that is all of its integer part.
        if !self.skip_one_of(b"0")? && self.skip_digits()? == 0 {
            return Err(self.wrong("a number that is none"));
        }
        if self.skip_one_of(b".")? && self.skip_digits()? == 0 {
            return Err(self.wrong("a number that is none"));
        }
        if self.skip_one_of(b"eE")? {
            self.skip_one_of(b"+-")?;
            if self.skip_digits()? == 0 {
                return Err(self.wrong("a number that is none"));
            }
        }
        Ok(())
    }

    /// Goes past the next octet if it is one of these. Returns true if it is.
    fn skip_one_of(&mut self, octets: &[u8]) -> Result<bool, ReadError> {
        let is_one = self.ensure(1)? && self.unread().first().is_some_and(|octet| octets.contains(octet));
        if is_one {
            self.advance(1);
        }
        Ok(is_one)
    }

    /// Goes past digits and returns their number.
    fn skip_digits(&mut self) -> Result<usize, ReadError> {
        let mut all = 0;
        loop {
            let digits = self.unread().iter().take_while(|octet| octet.is_ascii_digit()).count();
            self.advance(digits);
            all += digits;
            if !self.unread().is_empty() || !self.ensure(1)? {
                return Ok(all);
            }
        }
    }

    /// Returns the next octet, be it white space, which there has to be.
    fn need(&mut self) -> Result<u8, ReadError> {
        self.ensure(1)?;
        self.unread().first().copied().ok_or_else(|| self.wrong(CUT_OFF))
    }

    /// Checks that nothing but white space follows.
    pub fn end(&mut self) -> Result<(), ReadError> {
        match self.peek()? {
            None => Ok(()),
            Some(_) => Err(self.wrong("trailing characters behind the document")),
        }
    }
}

/// Search for the end of a value, which goes on where it stopped when more of the document has come.
struct Scan {
    /// Octets that were looked at.
    at: usize,
    depth: usize,
    /// Commas outside of strings, of which each stands for one more value.
    values: usize,
    in_string: bool,
    /// True for a number or a word, which ends before an octet that is not its own.
    is_scalar: bool,
}

impl Scan {
    fn new(first: u8) -> Self {
        let is_scalar = !matches!(first, b'"' | b'{' | b'[');
        Self { at: 0, depth: 0, values: 0, in_string: false, is_scalar }
    }

    /// Returns the length of the value at the beginning of `text`, once its end is there.
    fn end(&mut self, text: &[u8]) -> Option<usize> {
        if self.is_scalar {
            let is_end =
                |octet: &u8| matches!(octet, b',' | b']' | b'}' | b':' | b' ' | b'\n' | b'\r' | b'\t');
            // At least one octet, so that no place is looked at for ever.
            let found = text.iter().skip(self.at.max(1)).position(is_end);
            let length = found.map(|found| found + self.at.max(1));
            self.at = text.len();
            return length;
        }
        while let Some(octet) = text.get(self.at) {
            self.at += 1;
            match octet {
                _ if self.in_string => {
                    self.at -= 1;
                    let rest = text.get(self.at..).unwrap_or_default();
                    match memchr::memchr2(b'"', b'\\', rest) {
                        None => self.at = text.len(),
                        Some(found) if rest.get(found) == Some(&b'"') => {
                            self.at += found + 1;
                            self.in_string = false;
                            if self.depth == 0 {
                                return Some(self.at);
                            }
                        }
                        // With the octet that is escaped.
                        Some(found) if found + 1 < rest.len() => self.at += found + 2,
                        Some(found) => {
                            self.at += found;
                            return None;
                        }
                    }
                }
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some(self.at);
                    }
                }
                b',' => self.values += 1,
                _ => {}
            }
        }
        None
    }
}

/// Returns octets as text. What is not UTF-8 is replaced, so that one odd string costs at most its own
/// value.
pub fn text(octets: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(octets) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(octets),
    }
}

/// Reads a value, at first as if all of it had the expected types, which is the usual case and cheaper.
///
/// # Errors
/// When the text is not JSON. A value of another type is [`Lenient::Unreadable`].
pub fn parsed<'a, T: Deserialize<'a>>(text: &'a str) -> Result<Lenient<T>, serde_json::Error> {
    // Lenient reading keeps a copy of each value in case that it is another one than expected.
    if let Ok(value) = strictly(|| serde_json::from_str(text)) {
        return Ok(Lenient::Read(value));
    }
    // What is no JSON at all makes the rest of the document unreadable as well.
    serde_json::from_str::<IgnoredAny>(text)?;
    Ok(serde_json::from_str(text).map_or_else(|error| Lenient::unreadable(&error, text), Lenient::Read))
}

/// A reader that gives a few octets at a time.
#[cfg(test)]
pub struct Pieces<'d>(pub &'d [u8], pub usize);

#[cfg(test)]
impl Read for Pieces<'_> {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        let length = self.1.min(room.len()).min(self.0.len());
        let (piece, rest) = self.0.split_at(length);
        room[..length].copy_from_slice(piece);
        self.0 = rest;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns true if the octets are one value, passed over in pieces.
    fn is_skipped(octets: &[u8], piece: usize) -> bool {
        let mut cursor = Cursor::new(Pieces(octets, piece));
        cursor.skip().and_then(|()| cursor.end()).is_ok()
    }

    const ALL: Bounds = Bounds { length: usize::MAX, values: usize::MAX };

    fn is_read(octets: &[u8], piece: usize) -> bool {
        let mut cursor = Cursor::new(Pieces(octets, piece));
        cursor.scalar::<serde_json::Value>(ALL).and_then(|_| cursor.end()).is_ok()
    }

    /// JSON with one octet changed, removed or doubled, which mostly is not JSON any more.
    fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
        let leaf = prop_oneof![
            prop::sample::select(vec![
                "null",
                "true",
                "false",
                "0",
                "-1.5e+3",
                "\"\"",
                "\"\\u00e9\\n\"",
                "\"x y\""
            ])
            .prop_map(str::to_owned),
            (-1_000i64..1_000).prop_map(|number| number.to_string()),
        ];
        let value = leaf.prop_recursive(5, 40, 5, |inner| {
            let items = prop::collection::vec(inner, 0..5);
            prop_oneof![
                items.clone().prop_map(|items| format!("[{}]", items.join(" , "))),
                items.prop_map(|items| {
                    let members: Vec<String> = items.iter().map(|item| format!("\"k\" :{item}")).collect();
                    format!("{{{}}}", members.join(","))
                }),
            ]
        });
        let octets = prop::sample::select(b"{}[]\",:\\0e-. tn\x01\xff".to_vec());
        (value, any::<prop::sample::Index>(), octets, 0u8..4).prop_map(|(value, place, octet, edit)| {
            let mut value = value.into_bytes();
            let place = place.index(value.len());
            match edit {
                0 => value[place] = octet,
                1 => drop(value.remove(place)),
                2 => value.insert(place, octet),
                _ => {}
            }
            value
        })
    }

    proptest! {
        #[test]
        fn what_is_passed_over_is_json_to_a_parser_too(json in nearly_json(), piece in 1usize..9) {
            let text = String::from_utf8_lossy(&json).into_owned();
            let is_json = serde_json::from_str::<IgnoredAny>(&text).is_ok();
            prop_assert_eq!(is_skipped(&json, piece), is_json, "{}", text);
            prop_assert_eq!(is_read(&json, piece), is_json, "{}", text);
        }

        #[test]
        fn garbage_is_neither_passed_over_nor_a_panic(garbage: Vec<u8>, piece in 1usize..9) {
            let is_json = serde_json::from_str::<IgnoredAny>(&String::from_utf8_lossy(&garbage)).is_ok();
            prop_assert_eq!(is_skipped(&garbage, piece), is_json);
            prop_assert_eq!(is_read(&garbage, piece), is_json);
        }
    }

    #[test]
    fn a_value_beyond_its_bounds_is_passed_over_and_its_neighbours_stay() {
        let long = format!("[\"{}\",[{}1],{{\"a\":\"b\"}}]", "x".repeat(300_000), "1,".repeat(5_000));
        let mut cursor = Cursor::new(Pieces(long.as_bytes(), 4_096));
        assert!(cursor.enter(b'[').unwrap());
        let bounds = Bounds { length: 200_000, values: 4_000 };
        let (mut is_first, mut found) = (true, Vec::new());
        while cursor.next_item(&mut is_first).unwrap() {
            found.push(cursor.scalar::<serde_json::Value>(bounds).unwrap().map(|value| value.to_string()));
        }
        assert_eq!(found, [None, None, Some("{\"a\":\"b\"}".to_owned())]);
        // What was passed over did not stay in the window.
        assert!(cursor.window.len() <= 512 * 1024, "{}", cursor.window.len());
    }

    #[test]
    fn long_documents_leave_the_window_small() {
        let item = format!("{{\"id\":\"{}\"}}", "x".repeat(1_000));
        let long = format!("[{}]", vec![item; 5_000].join(","));
        let mut cursor = Cursor::new(Pieces(long.as_bytes(), 65_536));
        cursor.skip().unwrap();
        assert_eq!(cursor.window.len(), WINDOW);
    }
}

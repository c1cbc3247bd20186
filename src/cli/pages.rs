//! The manual pages, which the program carries for nodes without man(1).
//!
//! What belongs here: the list of pages and their rendering as plain text. Their text is in `systemd/man/`. `tests/pages` writes the generated parts of it and checks the rest.

mod layout;
mod render;
mod roff;

pub use render::{Format, render};
pub use roff::Error;

/// One manual page.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Short name, for `l4lbd help TOPIC`.
    pub topic: &'static str,
    /// Name as man(1) has it, such as `l4lbd-labels`.
    pub name: &'static str,
    /// Section of the manual, such as `7`.
    pub section: &'static str,
    /// The page in roff, with the macros of man(7).
    pub source: &'static str,
}

macro_rules! page {
    ($topic:literal, $name:literal, $section:literal) => {
        Page {
            topic: $topic,
            name: $name,
            section: $section,
            source: include_str!(concat!("../../systemd/man/", $name, ".", $section)),
        }
    };
}

/// All pages, in the order in which a newcomer needs them.
pub const PAGES: &[Page] = &[
    page!("l4lbd", "l4lbd", "8"),
    page!("config", "l4lbd.toml", "5"),
    page!("labels", "l4lbd-labels", "7"),
    page!("dns", "l4lbd-names", "7"),
    page!("monitoring", "l4lbd-metrics", "7"),
    page!("http", "l4lbd-http", "7"),
    page!("networks", "l4lbd-networks", "7"),
    page!("migrate", "l4lbd-migrate", "7"),
];

impl Page {
    /// Returns the page's title, such as `l4lbd-labels(7)`.
    pub fn title(&self) -> String {
        format!("{}({})", self.name, self.section)
    }

    /// Returns the page's file name, such as `l4lbd-labels.7`.
    pub fn file(&self) -> String {
        format!("{}.{}", self.name, self.section)
    }

    /// Returns the line that describes the page in its section NAME; empty where there is none.
    pub fn summary(&self) -> String {
        let mut lines = self.source.lines().skip_while(|line| *line != ".SH NAME");
        let summary =
            lines.nth(1).and_then(|line| line.split_once(r" \- ")).map_or("", |(_, summary)| summary);
        roff::plain(summary)
    }
}

/// Finds a page by its topic, name, title or file name.
pub fn find(subject: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| {
        subject == page.topic || subject == page.name || subject == page.title() || subject == page.file()
    })
}

/// Lists the topics for `l4lbd help`, one a line.
pub fn topics() -> String {
    let mut text = String::from("Topics (l4lbd help TOPIC shows the manual page):\n");
    for page in PAGES {
        text.push_str(&format!("  {:<11}  {}: {}\n", page.topic, page.title(), page.summary()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn find_takes_topic_name_title_and_file() {
        for subject in ["labels", "l4lbd-labels", "l4lbd-labels(7)", "l4lbd-labels.7"] {
            assert_eq!(find(subject).map(|page| page.topic), Some("labels"), "{subject}");
        }
        assert_eq!(find("l4lbd.toml").map(|page| page.topic), Some("config"));
        assert!(find("label").is_none() && find("").is_none());
    }

    #[test]
    fn topics_have_a_summary_each() {
        for page in PAGES {
            assert!(!page.summary().is_empty() && !page.summary().contains('\\'), "{}", page.title());
            assert!(topics().contains(&page.summary()), "{}", page.title());
        }
    }
}

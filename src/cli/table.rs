//! Tables of text for people.

use std::io::{self, Write};

/// Rows of cells; a row's columns are as wide as the widest cell in any row.
#[derive(Debug, Default)]
pub struct Table(Vec<Vec<String>>);

impl Table {
    pub fn new(header: &[&str]) -> Self {
        Self(vec![header.iter().map(|cell| (*cell).to_owned()).collect()])
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.push(cells.into_iter().collect());
    }

    /// Writes all rows, without blanks at line ends.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            self.0
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.0 {
            let line: String =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

//! Tables for people.

/// Columns as wide as their widest cell, to the left.
pub fn table(header: &str, lines: impl Iterator<Item = Vec<String>>) -> String {
    let header: Vec<String> = header.split(' ').map(str::to_owned).collect();
    let lines: Vec<Vec<String>> = std::iter::once(header).chain(lines).collect();
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let format = |line: &Vec<String>| {
        let cells = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(format).collect::<Vec<_>>().join("\n")
}

/// For people, or for programs.
#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
pub enum Format {
    Text,
    Json,
}

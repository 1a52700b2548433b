//! Columns for people.

/// Rows of equal length, as lines whose columns line up; the last column is not padded.
pub(crate) fn lines(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    rows.iter()
        .map(|row| {
            let last = row.len().saturating_sub(1);
            let cells =
                row.iter().zip(&widths).enumerate().map(|(at, (cell, width))| {
                    if at == last { cell.clone() } else { format!("{cell:<width$}") }
                });
            cells.collect::<Vec<String>>().join("  ").trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<String>>();
        let rows = [row(&["id", "state", "x"]), row(&["dacaf1ff", "ok", "long text"])];
        assert_eq!(lines(&rows), ["id        state  x", "dacaf1ff  ok     long text"]);
    }
}

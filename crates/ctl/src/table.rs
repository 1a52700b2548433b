//! Columns and bars for people.

use dispatch_core::policy::dec::Dec;
use dispatch_core::policy::money::Usd;
use dispatch_node::term::seen_chars;

/// Characters of a bar.
const BAR: usize = 20;

/// Rows of equal length, as lines whose columns line up; the last column is not padded.
pub(crate) fn lines(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| seen_chars(cell)).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    rows.iter()
        .map(|row| {
            let last = row.len().saturating_sub(1);
            let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, width))| {
                if at == last {
                    cell.clone()
                } else {
                    format!("{cell}{}", " ".repeat(width.saturating_sub(seen_chars(cell))))
                }
            });
            cells.collect::<Vec<String>>().join("  ").trim_end().to_owned()
        })
        .collect()
}

/// How much of the cap is committed, in whole characters; exact enough for an eye.
pub(crate) fn bar(committed: &str, cap: &str) -> String {
    let units = |text: &str| {
        let amount = Usd::from_wire(text).ok().and_then(Dec::from_usd);
        amount.map_or(0, Dec::magnitude)
    };
    let (committed, cap) = (units(committed), units(cap));
    let wide = u128::try_from(BAR).unwrap_or(0);
    let full = committed.saturating_mul(wide).checked_div(cap).unwrap_or(0).min(wide);
    let full = usize::try_from(full).unwrap_or(0);
    format!("[{}{}]", "#".repeat(full), ".".repeat(BAR.saturating_sub(full)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_how_much_is_committed() {
        assert_eq!(bar("50.5", "100"), "[##########..........]");
        assert_eq!(bar("500", "100"), "[####################]");
        assert_eq!(bar("0.5", "1"), "[##########..........]");
        assert_eq!(bar("0", "0"), "[....................]");
    }

    #[test]
    fn columns_line_up() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<String>>();
        let rows = [row(&["id", "state", "x"]), row(&["dacaf1ff", "ok", "long text"])];
        assert_eq!(lines(&rows), ["id        state  x", "dacaf1ff  ok     long text"]);
    }
}

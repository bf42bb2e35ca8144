//! The one look of the tables at the end of a run.

use comfy_table::{Row, Table, TableComponent, presets};

/// A table with this head, and no lines but those around it and under its head.
pub(crate) fn with_head(head: impl Into<Row>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    for line in [
        TableComponent::HorizontalLines,
        TableComponent::MiddleIntersections,
        TableComponent::LeftBorderIntersections,
        TableComponent::RightBorderIntersections,
    ] {
        table.remove_style(line);
    }
    table.set_header(head);
    table
}

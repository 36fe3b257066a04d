//! What all pictures have in common. A few lines and texts, for which no library is needed.

use std::fmt::{self, Write};

/// Begins a picture that is readable on light and on dark ground, with a title and what it is counted in. It is to be
/// ended by `</svg>`.
pub(crate) fn write_head(svg: &mut String, width: f64, height: f64, title: &str, unit: &str) -> fmt::Result {
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#808080\">"
    )?;
    writeln!(svg, "<text x=\"8\" y=\"20\" font-weight=\"bold\">{}</text>", escape(title))?;
    writeln!(svg, "<text x=\"8\" y=\"40\">{}</text>", escape(unit))
}

/// A text as it stands in a picture.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

//! What all reports have in common.

use std::fmt;

/// A report with that title, which says so if its run was not made to its end.
pub(crate) fn document(title: &str, complete: bool, write: impl FnOnce(&mut String) -> fmt::Result) -> String {
    let mut text = format!("# {title}\n\n");
    if !complete {
        text.push_str("**This run has not been made to its end.**\n\n");
    }
    // Writing to a string cannot fail.
    let _ = write(&mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    #[test]
    fn a_run_that_was_cut_short_says_so() {
        let write = |text: &mut String| writeln!(text, "something");
        assert_eq!(document("A title", true, write), "# A title\n\nsomething\n");
        let cut = document("A title", false, write);
        assert_eq!(cut, "# A title\n\n**This run has not been made to its end.**\n\nsomething\n");
    }
}

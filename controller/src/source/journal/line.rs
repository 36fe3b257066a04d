//! The lines of a journal.
//!
//! A line is `CHECKSUM NUMBER DURABLE ENTRY`: the entry is JSON, lines are numbered from 1, and `DURABLE` is the number of the last
//! line that was known to be on the disk when this one was written. The checksum (CRC-32, in hexadecimal) is of all that
//! follows it.
//!
//! After a power cut the lines behind the durable ones may be there, or not, or in pieces, in any order: nobody was told that
//! they are done. A line that is not whole and that a later one knows to have been durable was damaged by something else.

/// A line that is whole.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    number: u64,
    durable: u64,
    entry: &'a [u8],
}

/// A line with its end.
pub(super) fn encode(number: u64, durable: u64, entry: &[u8]) -> Vec<u8> {
    let mut rest = format!(" {number} {durable} ").into_bytes();
    rest.extend_from_slice(entry);
    let mut line = format!("{:08x}", crc32fast::hash(&rest)).into_bytes();
    line.append(&mut rest);
    line.push(b'\n');
    line
}

fn decode(line: &[u8]) -> Option<Line<'_>> {
    let (checksum, rest) = line.split_at_checked(8)?;
    if format!("{:08x}", crc32fast::hash(rest)).as_bytes() != checksum {
        return None;
    }
    let mut words = rest.strip_prefix(b" ")?.splitn(3, |byte| *byte == b' ');
    let mut number = || str::from_utf8(words.next()?).ok()?.parse().ok();
    Some(Line { number: number()?, durable: number()?, entry: words.next()? })
}

/// The entries of a journal, in their order, and the number of the first line that was left out, if one was.
///
/// # Errors
/// The number of the line that is damaged.
pub(super) fn entries(text: &[u8]) -> Result<(Vec<&[u8]>, Option<u64>), u64> {
    let lines = text.split_inclusive(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\n").and_then(decode));
    let mut entries = Vec::new();
    let mut missing = None;
    for line in lines {
        let expected = entries.len() as u64 + 1;
        match (missing, line) {
            (None, Some(line)) if line.number == expected => entries.push(line.entry),
            (None, None) => missing = Some(expected),
            // Of another line than this one: it is in the wrong place, or the one before it is missing.
            (None, Some(line)) if line.durable >= expected || line.number < expected => return Err(expected),
            (None, Some(_)) => missing = Some(expected),
            (Some(first), Some(line)) if line.durable >= first => return Err(first),
            (Some(_), _) => {}
        }
    }
    Ok((entries, missing))
}

/// The same of a journal that was written before lines had numbers and checksums: only its last line can lack its end.
pub(super) fn entries_without_checksums(text: &[u8]) -> (Vec<&[u8]>, Option<u64>) {
    let mut entries: Vec<_> = text.split(|byte| *byte == b'\n').collect();
    let rest = entries.pop().filter(|rest| !rest.is_empty());
    let left_out = rest.map(|_| entries.len() as u64 + 1);
    (entries, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn journal(durable: &[u64]) -> Vec<u8> {
        let line = |(number, durable): (u64, &u64)| encode(number, *durable, format!("entry {number}").as_bytes());
        (1..).zip(durable).flat_map(line).collect()
    }

    #[test]
    fn whole_lines_are_read() {
        let text = journal(&[0, 1, 1]);
        assert_eq!(entries(&text), Ok((vec![&b"entry 1"[..], b"entry 2", b"entry 3"], None)));
        assert_eq!(entries(b""), Ok((vec![], None)));
    }

    #[test]
    fn what_was_not_durable_may_be_in_pieces() {
        // The third line is not whole, the fourth is; the last that was known to be on the disk is the second.
        let mut text = journal(&[0, 1, 1, 2]);
        let third = text.windows(7).position(|bytes| bytes == b"entry 3").unwrap();
        text[third] = 0;
        assert_eq!(entries(&text), Ok((vec![&b"entry 1"[..], b"entry 2"], Some(3))));
        let mut durable = journal(&[0, 1, 1, 3]);
        durable[third] = 0;
        assert_eq!(entries(&durable), Err(3));
    }

    #[test]
    fn a_line_that_is_missing_or_in_the_wrong_place_is_damage() {
        let text = journal(&[0, 1, 2, 3]);
        let lines: Vec<_> = text.split_inclusive(|byte| *byte == b'\n').collect();
        assert_eq!(entries(&[lines[0], lines[2], lines[3]].concat()), Err(2));
        assert_eq!(entries(&[lines[0], lines[1], lines[1]].concat()), Err(3));
    }

    proptest! {
        /// Wherever it is cut, and whatever one byte is changed to: nothing is read that was not written.
        #[test]
        fn nothing_is_read_that_was_not_written(
            count in 1..8u64, cut in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let whole = journal(&(0..count).collect::<Vec<_>>());
            let mut text = whole[..=cut.index(whole.len())].to_vec();
            let at = at.index(text.len());
            text[at] = byte;
            let written: Vec<_> = (1..=count).map(|number| format!("entry {number}").into_bytes()).collect();
            if let Ok((entries, _)) = entries(&text) {
                prop_assert!(entries.len() <= written.len());
                prop_assert!(entries.iter().zip(&written).all(|(read, written)| read == written));
            }
        }
    }
}

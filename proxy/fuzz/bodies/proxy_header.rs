//! What holds for every beginning of a connection that should have a PROXY protocol header.

use ringlb_proxy::proxy_protocol::{Header, MAX_VERSION2, Progress, Transport, Version, read, version1, version2};

/// Whether `input` begins with a header. Panics if anything does not hold.
pub(crate) fn check(input: &[u8]) -> bool {
    let whole = read(input);
    for end in ends(input.len()) {
        match read(&input[..end]) {
            Ok(Progress::Missing(missing)) => {
                assert!(missing > 0, "nothing is missing from {end} bytes");
                if let Ok(Progress::Complete(header)) = whole {
                    assert!(end + missing <= header.length, "reads beyond the header after {end} bytes");
                }
            }
            decided => assert_eq!(decided, whole, "decided after {end} bytes"),
        }
    }
    match whole {
        Ok(Progress::Complete(header)) => {
            check_complete(input, header);
            true
        }
        Ok(Progress::Missing(missing)) => {
            assert!(input.len() + missing <= MAX_VERSION2, "waits for more than the limit");
            false
        }
        Err(_) => false,
    }
}

/// All beginnings of what is short, and some of what is long.
fn ends(length: usize) -> impl Iterator<Item = usize> {
    (0..length).filter(move |&end| end < 300 || end + 64 > length || end % 97 == 0)
}

fn check_complete(input: &[u8], header: Header) {
    assert!((15..=MAX_VERSION2.min(input.len())).contains(&header.length), "{header:?}");
    assert_eq!(read(&input[..header.length]), Ok(Progress::Complete(header)), "what follows the header matters");
    let Some((transport, addresses)) = header.relayed else { return };
    assert_eq!(addresses, addresses.canonical());
    let again = |bytes: &[u8], version, transport| {
        let expected = Header { length: bytes.len(), version, relayed: Some((transport, addresses)) };
        assert_eq!(read(bytes), Ok(Progress::Complete(expected)), "{}", bytes.escape_ascii());
    };
    again(&version1(addresses), Version::One, Transport::Stream);
    again(&version2(transport, addresses), Version::Two, transport);
}

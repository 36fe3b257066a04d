use super::*;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn ends(source: &str, destination: &str) -> Addresses {
    Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn complete(bytes: &[u8]) -> Header {
    match read(bytes) {
        Ok(Progress::Complete(header)) => header,
        other => panic!("{}: {other:?}", bytes.escape_ascii()),
    }
}

fn refused(bytes: &[u8]) -> ProxyProtocolError {
    read(bytes).expect_err(&bytes.escape_ascii().to_string())
}

/// A header of version 2 by hand.
fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, body].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

const BLOCK: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0x12, 0x34, 0x01, 0xbb];

#[test]
fn the_example_of_the_specification() {
    let addresses = ends("192.168.0.1:56324", "192.168.0.11:443");
    let line = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n";
    assert_eq!(&*version1(addresses), line);
    let header = complete(&[line, &b"GET / HTTP/1.1\r\n"[..]].concat());
    assert_eq!((header.length, header.version), (line.len(), Version::One));
    assert_eq!(header.relayed, Some((Transport::Stream, addresses)));
}

#[test]
fn version_2_to_the_byte() {
    let addresses = ends("192.0.2.1:4660", "198.51.100.2:443");
    assert_eq!(*version2(Transport::Stream, addresses), *binary(0x21, 0x11, &BLOCK));
    assert_eq!(*version2(Transport::Datagram, addresses), *binary(0x21, 0x12, &BLOCK));
    let v6 = ends("[2001:db8::1]:1", "[2001:db8::2]:2");
    let mut body = [0; 36];
    body[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    body[15] = 1;
    body[16..20].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    body[31..].copy_from_slice(&[2, 0, 1, 0, 2]);
    assert_eq!(*version2(Transport::Stream, v6), *binary(0x21, 0x21, &body));
    assert_eq!(*version2(Transport::Datagram, v6), *binary(0x21, 0x22, &body));
    assert_eq!(*unknown(Version::Two), *binary(0x20, 0, &[]));
}

#[test]
fn two_families_are_written_as_version_6() {
    let mixed = ends("192.0.2.1:1", "[2001:db8::2]:2");
    assert_eq!(&*version1(mixed), b"PROXY TCP6 ::ffff:c000:201 2001:db8::2 1 2\r\n");
    assert_eq!(complete(&version1(mixed)).relayed, Some((Transport::Stream, mixed)));
    assert_eq!(complete(&version2(Transport::Datagram, mixed)).relayed, Some((Transport::Datagram, mixed)));
    // As HAProxy writes it.
    let line = b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n";
    assert_eq!(complete(line).relayed, Some((Transport::Stream, mixed)));
    // What only looks like version 6 is not.
    let mapped = ends("[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:2");
    assert_eq!(&*version1(mapped), b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
}

#[test]
fn nobody_relayed() {
    for bytes in [
        &b"PROXY UNKNOWN\r\n"[..],
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
        b"PROXY UNKNOWN  anything \x00\xff\r\n",
        &[&b"PROXY UNKNOWN "[..], &[b'x'; 91], b"\r\n"].concat(),
        &binary(0x20, 0, &[]),
        &binary(0x20, 0xff, b"whatever it is"),
        &binary(0x20, 0x11, &BLOCK),
        &binary(0x21, 0, b"whatever it is"),
        &binary(0x21, 0x31, &[0; 216]),
        &binary(0x21, 0x32, &[0; 216]),
    ] {
        let header = complete(&[bytes, b"PROXY TCP4 is payload"].concat());
        assert_eq!((header.length, header.relayed), (bytes.len(), None), "{}", bytes.escape_ascii());
    }
    assert_eq!(&*unknown(Version::One), b"PROXY UNKNOWN\r\n");
}

#[test]
fn lines_that_are_no_headers() {
    use ProxyProtocolError::*;
    for (line, reason) in [
        (&b"GET / HTTP/1.1\r\n"[..], NotAHeader),
        (b"proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n", NotAHeader),
        (b"PROXY\r\n", NotAHeader),
        (b"PROXY\tTCP4", NotAHeader),
        (b"PROXY \r\n", Protocol),
        (b"PROXY UNKNOWNX\r\n", Protocol),
        (b"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n", Protocol),
        (b"PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n", Protocol),
        (b"PROXY TCP4\r\n", Fields),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n", Fields),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n", Fields),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n", Fields),
        (b"PROXY TCP4  1.1.1.1 2.2.2.2 1\r\n", Address),
        (b"PROXY TCP4 1.1.1.01 2.2.2.2 1 2\r\n", Address),
        (b"PROXY TCP4 1.1.1.256 2.2.2.2 1 2\r\n", Address),
        (b"PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n", Address),
        (b"PROXY TCP4 0x1.1.1.1 2.2.2.2 1 2\r\n", Address),
        (b"PROXY TCP4 ::1 ::2 1 2\r\n", Address),
        (b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n", Address),
        (b"PROXY TCP6 ::1::2 ::2 1 2\r\n", Address),
        (b"PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n", Address),
        (b"PROXY TCP6 [::1] ::2 1 2\r\n", Address),
        (b"PROXY TCP6 12345::1 ::2 1 2\r\n", Address),
        (b"PROXY TCP4 1.1.1.1 2.2.2.\xff 1 2\r\n", Address),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n", Port),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n", Port),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 00 2\r\n", Port),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n", Port),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 -1 2\r\n", Port),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 99999999999999999999\r\n", Port),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2  2\r\n", Port),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n", LineEnd),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\rx", LineEnd),
        (b"PROXY TCP4 1.1.1.1\r2.2.2.2 1 2\r\n", LineEnd),
        (&[&b"PROXY UNKNOWN "[..], &[b'x'; 92], b"\r\n"].concat(), LineTooLong),
        (&[b"PROXY ", &[b'x'; 101][..]].concat(), LineTooLong),
    ] {
        assert_eq!(refused(line), reason, "{}", line.escape_ascii());
    }
}

#[test]
fn binary_headers_that_are_none() {
    use ProxyProtocolError::*;
    let at_limit = vec![0; MAX_VERSION2 - 16];
    assert_eq!(complete(&binary(0x20, 0, &at_limit)).length, MAX_VERSION2);
    let above_limit = vec![0; MAX_VERSION2 - 15];
    for (bytes, reason) in [
        (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), NotAHeader),
        (b"\r\nx".to_vec(), NotAHeader),
        (binary(0x11, 0x11, &BLOCK), Command(0x11)),
        (binary(0x31, 0x11, &BLOCK), Command(0x31)),
        (binary(0x22, 0x11, &BLOCK), Command(0x22)),
        (binary(0x21, 0x10, &BLOCK), Family(0x10)),
        (binary(0x21, 0x01, &BLOCK), Family(0x01)),
        (binary(0x21, 0x13, &BLOCK), Family(0x13)),
        (binary(0x21, 0x41, &BLOCK), Family(0x41)),
        (binary(0x21, 0x11, &BLOCK[..11]), TooShort { length: 11, needed: 12 }),
        (binary(0x21, 0x21, &[0; 35]), TooShort { length: 35, needed: 36 }),
        (binary(0x21, 0x31, &[0; 215]), TooShort { length: 215, needed: 216 }),
        (binary(0x20, 0, &above_limit), TooLong(MAX_VERSION2 + 1)),
        (binary(0x21, 0x11, &[0xff; 65_535])[..16].to_vec(), TooLong(65_551)),
        (binary(0x21, 0x11, &[&BLOCK[..], &[4]].concat()), TlvLength),
        (binary(0x21, 0x11, &[&BLOCK[..], &[4, 0]].concat()), TlvLength),
        (binary(0x21, 0x11, &[&BLOCK[..], &[4, 0, 1]].concat()), TlvLength),
        (binary(0x21, 0x11, &[&BLOCK[..], &tlv(3, &[0; 3])].concat()), ChecksumForm),
        (binary(0x21, 0x11, &[&BLOCK[..], &tlv(3, &[0; 4]), &tlv(3, &[0; 4])].concat()), ChecksumForm),
        (binary(0x21, 0x11, &[&BLOCK[..], &tlv(3, &[0; 4])].concat()), Checksum),
    ] {
        assert_eq!(refused(&bytes), reason, "{}", bytes.escape_ascii());
    }
}

/// Gives a header of version 2 TLVs, one of them its checksum.
fn with_checksum(header: &[u8], before: &[u8], after: &[u8]) -> Vec<u8> {
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(before);
    let at = bytes.len() + 3;
    bytes.extend(tlv(3, &[0; 4]));
    bytes.extend_from_slice(after);
    let length = u16::try_from(bytes.len() - 16).unwrap();
    bytes[14..16].copy_from_slice(&length.to_be_bytes());
    let sum = checksum::crc32c(bytes.iter().copied());
    bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
        any::<[u8; 4]>().prop_map(|v4| Ipv4Addr::from(v4).to_ipv6_mapped().into()),
        // Runs of zeros at every place.
        prop::array::uniform8(prop_oneof![3 => Just(0u16), 1 => any::<u16>()])
            .prop_map(|groups| Ipv6Addr::from(groups).into()),
    ]
}

fn addresses() -> impl Strategy<Value = Addresses> {
    let end = || (address(), any::<u16>()).prop_map(SocketAddr::from);
    (end(), end()).prop_map(|(source, destination)| Addresses { source, destination })
}

fn headers() -> impl Strategy<Value = Vec<u8>> {
    let tlvs = || {
        prop::collection::vec((4u8.., prop::collection::vec(any::<u8>(), 0..20)), 0..4)
            .prop_map(|all| all.iter().flat_map(|(kind, value)| tlv(*kind, value)).collect::<Vec<_>>())
    };
    let transport = prop_oneof![Just(Transport::Stream), Just(Transport::Datagram)];
    prop_oneof![
        addresses().prop_map(|addresses| version1(addresses).to_vec()),
        (transport.clone(), addresses()).prop_map(|(transport, addresses)| version2(transport, addresses).to_vec()),
        (transport, addresses(), tlvs(), tlvs()).prop_map(|(transport, addresses, before, after)| {
            with_checksum(&version2(transport, addresses), &before, &after)
        }),
        Just(unknown(Version::One).to_vec()),
        Just(unknown(Version::Two).to_vec()),
    ]
}

/// How many of the four fields differ.
fn differences(one: Addresses, two: Addresses) -> usize {
    let fields = |Addresses { source, destination }: Addresses| {
        [source.ip(), destination.ip(), IpAddr::from(u128::from(source.port()).to_be_bytes()), {
            IpAddr::from(u128::from(destination.port()).to_be_bytes())
        }]
    };
    fields(one).iter().zip(fields(two)).filter(|(one, two)| **one != *two).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_is_written_is_read(addresses in addresses(), datagram: bool, payload in prop::collection::vec(any::<u8>(), 0..40)) {
        let transport = if datagram { Transport::Datagram } else { Transport::Stream };
        for (bytes, version, transport) in [
            (version1(addresses), Version::One, Transport::Stream),
            (version2(transport, addresses), Version::Two, transport),
        ] {
            let header = complete(&[&*bytes, &payload].concat());
            let expected = Header { length: bytes.len(), version, relayed: Some((transport, addresses.canonical())) };
            prop_assert_eq!(header, expected);
        }
    }

    /// However the bytes arrive: every proper beginning is incomplete, says that something is missing and never more than is,
    /// and what follows the header means nothing.
    #[test]
    fn the_way_bytes_arrive_means_nothing(bytes in headers(), payload in prop::collection::vec(any::<u8>(), 0..40)) {
        for end in 0..bytes.len() {
            match read(&bytes[..end]) {
                Ok(Progress::Missing(missing)) => prop_assert!((1..=bytes.len() - end).contains(&missing)),
                other => prop_assert!(false, "{} bytes of {}: {other:?}", end, bytes.escape_ascii()),
            }
        }
        let whole = complete(&bytes);
        prop_assert_eq!(whole.length, bytes.len());
        prop_assert_eq!(complete(&[&*bytes, &*payload].concat()), whole);
    }

    /// A decision is final: what is certain of some bytes is certain of all that begin with them.
    #[test]
    fn an_answer_is_final(bytes in headers(), at: prop::sample::Index, byte: u8, tail in prop::collection::vec(any::<u8>(), 0..150)) {
        let mut bytes = [bytes, tail].concat();
        *at.get_mut(&mut bytes) = byte;
        let last = read(&bytes);
        for end in 0..bytes.len() {
            match read(&bytes[..end]) {
                Ok(Progress::Missing(_)) => {}
                decided => prop_assert_eq!(&decided, &last, "{} bytes of {}", end, bytes.escape_ascii()),
            }
        }
    }

    #[test]
    fn any_bytes_are_taken_or_refused(start in 0usize..3, rest in prop::collection::vec(any::<u8>(), 0..200)) {
        let start: &[u8] = [&b""[..], b"PROXY TCP", b"\r\n\r\n\0\r\nQUIT\n\x21"][start];
        let bytes = [start, &rest].concat();
        if let Ok(Progress::Complete(header)) = read(&bytes) {
            prop_assert!(header.length <= bytes.len());
        }
    }

    /// One wrong bit in a line changes one field at most, if the line is still one.
    #[test]
    fn one_wrong_bit_in_a_line(addresses in addresses()) {
        let line = version1(addresses).to_vec();
        for bit in 0..line.len() * 8 {
            let mut wrong = line.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            if let Ok(Progress::Complete(header)) = read(&wrong) {
                prop_assert_eq!(header.length, line.len());
                let (_, found) = header.relayed.unwrap();
                prop_assert!(differences(found, addresses.canonical()) <= 1, "{}", wrong.escape_ascii());
            }
        }
    }

    /// One wrong bit in a binary header without a checksum: with one in the fixed part it is refused or incomplete, but for
    /// the bit that turns PROXY into LOCAL; with one in the block exactly one field differs.
    #[test]
    fn one_wrong_bit_in_a_binary_header(addresses in addresses(), datagram: bool) {
        let transport = if datagram { Transport::Datagram } else { Transport::Stream };
        let right = version2(transport, addresses).to_vec();
        for bit in 0..right.len() * 8 {
            let mut wrong = right.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            match (bit / 8, read(&wrong)) {
                (12, Ok(Progress::Complete(header))) => {
                    prop_assert_eq!((wrong[12], header.relayed), (0x20, None));
                }
                (0..14, result) => prop_assert!(result.is_err(), "bit {bit}"),
                (14..16, result) => prop_assert!(!matches!(result, Ok(Progress::Complete(_))), "bit {bit}"),
                (_, result) => {
                    let Ok(Progress::Complete(Header { relayed: Some((_, found)), .. })) = result else {
                        return Err(TestCaseError::fail(format!("bit {bit}: {result:?}")));
                    };
                    prop_assert_eq!(differences(found, addresses.canonical()), 1);
                }
            }
        }
    }

    /// One wrong bit after the fixed part of a header with a checksum is always found.
    #[test]
    fn a_checksum_finds_one_wrong_bit(addresses in addresses(), value in prop::collection::vec(any::<u8>(), 0..30)) {
        let right = with_checksum(&version2(Transport::Stream, addresses), &tlv(0xe0, &value), &tlv(4, &[]));
        complete(&right);
        let addresses_end = right.len() - 3 - 7 - 3 - value.len();
        for bit in 16 * 8..right.len() * 8 {
            // A wrong kind or length of a TLV can hide the checksum itself.
            let byte = bit / 8;
            let value_start = addresses_end + 3;
            let covered = byte < addresses_end
                || (value_start..value_start + value.len()).contains(&byte)
                || (right.len() - 7..right.len() - 3).contains(&byte);
            let mut wrong = right.clone();
            wrong[byte] ^= 1 << (bit % 8);
            let result = read(&wrong);
            prop_assert!(!covered || result == Err(ProxyProtocolError::Checksum), "bit {bit}: {result:?}");
        }
    }
}

//! The two messages of a look-up (RFC 1035).

use crate::model::{Family, OfFamily};
use simple_dns::rdata::{OPT, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, SimpleDnsError, TYPE};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest datagram that is taken for an answer (EDNS0, RFC 6891). The Engine writes the name beside each address, so that
/// this is 48 to 163 of them.
pub(super) const MAX_ANSWER: u16 = 4096;

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// These are all addresses.
    Addresses(BTreeSet<IpAddr>),
    /// It does not say: the name is not known there.
    Unknown,
    /// There are more addresses than fit.
    Truncated,
}

/// The question for all addresses of `family` that the tasks of a service have.
pub(super) fn question(id: u16, service: &str, family: Family) -> Result<Vec<u8>, SimpleDnsError> {
    let name = format!("tasks.{service}");
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let kind = match family {
        Family::V4 => TYPE::A,
        Family::V6 => TYPE::AAAA,
    };
    packet.questions.push(Question::new(Name::new(&name)?, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    *packet.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size: MAX_ANSWER, version: 0 });
    packet.build_bytes_vec()
}

/// Reads an answer, and the id of its question; `None` if it is none.
///
/// An answer without an address says nothing: a name without tasks is not known there, and what is not known is asked of
/// others.
pub(super) fn answer(bytes: &[u8], family: Family) -> Option<(u16, Answer)> {
    let packet = Packet::parse(bytes).ok()?;
    if !packet.has_flags(PacketFlag::RESPONSE) {
        return None;
    }
    if packet.rcode() == RCODE::NoError && packet.has_flags(PacketFlag::TRUNCATION) {
        return Some((packet.id(), Answer::Truncated));
    }
    let addresses = packet.answers.iter().filter_map(|record| match &record.rdata {
        RData::A(a) => Some(IpAddr::V4(Ipv4Addr::from(a.address))),
        RData::AAAA(aaaa) => Some(IpAddr::V6(Ipv6Addr::from(aaaa.address))),
        _ => None,
    });
    let addresses: BTreeSet<_> = addresses.filter(|address| address.family() == family).collect();
    let known = packet.rcode() == RCODE::NoError && !addresses.is_empty();
    Some((packet.id(), if known { Answer::Addresses(addresses) } else { Answer::Unknown }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::A;

    fn reply(addresses: &[[u8; 4]], change: impl FnOnce(&mut Packet<'_>)) -> Vec<u8> {
        let mut packet = Packet::new_reply(7);
        let name = Name::new("tasks.web").unwrap();
        packet.answers = addresses
            .iter()
            .map(|address| {
                let a = A { address: u32::from_be_bytes(*address) };
                ResourceRecord::new(name.clone(), CLASS::IN, 600, RData::A(a))
            })
            .collect();
        change(&mut packet);
        packet.build_bytes_vec().unwrap()
    }

    #[test]
    fn a_question_is_for_the_tasks() {
        let bytes = question(4711, "web", Family::V4).unwrap();
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.id(), 4711);
        assert_eq!(packet.questions[0].qname.to_string(), "tasks.web");
        assert_eq!(packet.questions[0].qtype, QTYPE::TYPE(TYPE::A));
        assert_eq!(packet.opt().unwrap().udp_packet_size, MAX_ANSWER);
        assert!(question(1, &"x".repeat(64), Family::V4).is_err());
    }

    #[test]
    fn an_answer_has_all_addresses_or_says_nothing() {
        let two = reply(&[[10, 0, 1, 3], [10, 0, 1, 4]], |_| {});
        let expected = ["10.0.1.3", "10.0.1.4"].map(|text| text.parse().unwrap()).into();
        assert_eq!(answer(&two, Family::V4), Some((7, Answer::Addresses(expected))));
        assert_eq!(answer(&two, Family::V6), Some((7, Answer::Unknown)));
        assert_eq!(answer(&reply(&[], |_| {}), Family::V4), Some((7, Answer::Unknown)));
        let truncated = reply(&[[10, 0, 1, 3]], |packet| packet.set_flags(PacketFlag::TRUNCATION));
        assert_eq!(answer(&truncated, Family::V4), Some((7, Answer::Truncated)));
        let unknown = reply(&[], |packet| *packet.rcode_mut() = RCODE::NameError);
        assert_eq!(answer(&unknown, Family::V4), Some((7, Answer::Unknown)));
        assert_eq!(answer(&question(7, "web", Family::V4).unwrap(), Family::V4), None);
    }

    proptest! {
        #[test]
        fn anything_can_come(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = answer(&bytes, Family::V4);
        }
    }
}

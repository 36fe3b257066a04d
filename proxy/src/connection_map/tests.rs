use super::layout::{Leg, Slot};
use super::*;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};
use ringlb_netns::connection_map as wanted;
use std::mem::{offset_of, size_of};
use std::net::Ipv4Addr;

fn map() -> Arc<ConnectionMap> {
    let memory = memfd_create(c"connection-map", MFdFlags::MFD_CLOEXEC).unwrap();
    ftruncate(&memory, wanted::BYTES as i64).unwrap();
    Arc::new(ConnectionMap::new(&memory).unwrap())
}

fn address() -> impl Strategy<Value = SocketAddrV4> {
    (any::<u32>(), any::<u16>()).prop_map(|(ip, port)| SocketAddrV4::new(Ipv4Addr::from(ip), port))
}

fn leg() -> impl Strategy<Value = LegAddresses> {
    (address(), address()).prop_map(|(end, socket)| LegAddresses { end, socket })
}

fn legs(number: u16) -> [LegAddresses; 2] {
    let address = |last, port| SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, last), port);
    [
        LegAddresses { end: address(2, number), socket: address(3, 80) },
        LegAddresses { end: address(4, 8080), socket: address(5, number) },
    ]
}

proptest! {
    /// Both sides are of different crates, which do not depend on each other.
    #[test]
    fn a_leg_is_where_the_program_looks(leg in leg()) {
        let key = layout::key_of(leg);
        let hash = layout::hash_of(key);
        let ([end, socket], ports) = key;
        prop_assert_eq!(hash, wanted::hash_of(end, socket, ports));
        prop_assert_eq!(layout::bucket_of(hash), wanted::bucket_of(hash));
        prop_assert_eq!(layout::tag_of(hash), wanted::tag_of(hash));
        prop_assert!(!layout::tag_of(hash).is_multiple_of(2));
    }

    /// Whatever is seen at whatever moments of a leg that goes on, its beginning is what they have in common.
    #[test]
    fn a_beginning_lies_between_what_is_seen(base in any::<u32>(), moments in proptest::collection::vec((0u32..5000, 0u32..5000), 1..20)) {
        let mut bounds = Bounds::default();
        for (before, after) in moments {
            bounds.narrow(base.wrapping_sub(before), base.wrapping_add(after));
            let (least, most) = bounds.0.unwrap();
            prop_assert!(base.wrapping_sub(least) <= before && most.wrapping_sub(base) <= after);
            prop_assert!(!bounds.is_certain() || bounds.least() == base);
        }
        bounds.narrow(base, base);
        prop_assert!(bounds.is_certain());
        prop_assert_eq!(bounds.least(), base);
    }
}

#[test]
fn the_layout_is_that_of_the_program() {
    assert_eq!((layout::BUCKETS, layout::WAYS, layout::RECORDS), (wanted::BUCKETS, wanted::WAYS, wanted::RECORDS));
    assert_eq!(size_of::<Layout>(), wanted::BYTES);
    assert_eq!(offset_of!(Layout, records), wanted::FIRST_RECORD);
    assert_eq!((size_of::<Slot>(), size_of::<Record>()), (wanted::SLOT_BYTES, wanted::RECORD_BYTES));
    assert_eq!((offset_of!(Slot, tag), offset_of!(Slot, record)), (wanted::SLOT_TAG, wanted::SLOT_RECORD));
    assert_eq!(layout::slot_value(7, 1), 7 | wanted::SLOT_LEG);
    assert_eq!(Record::offsets(), {
        let first = [wanted::LOCK, wanted::MODE, wanted::MAY_PASS, wanted::HOLD, wanted::ACTIVITY, wanted::OVER];
        let then = [wanted::PASSINGS, wanted::STAMP, wanted::END_CLOCKS, wanted::SCALES, wanted::EDGES, wanted::LEGS];
        [first, then].concat()
    });
    assert_eq!(size_of::<Leg>(), wanted::LEG_BYTES);
    assert_eq!(Leg::offsets(), {
        let first = [wanted::ADDRESSES, wanted::PORTS, wanted::SEEN, wanted::END_NEXT, wanted::END_HAS];
        let then = [wanted::SOCKET_NEXT, wanted::SOCKET_HAS, wanted::SHIFT, wanted::TO_OTHER_CLOCK, wanted::END_BASE];
        let last = [wanted::SOCKET_BASE, wanted::READ, wanted::SOCKET_CLOCK, wanted::PASSED_BYTES];
        [&first[..], &then, &last].concat()
    });
    assert_eq!(layout::HOLD_END, wanted::HOLD_END);
    assert_eq!(layout::BOTH_SEEN, wanted::END_SEEN | wanted::SOCKET_SEEN);
    let over = wanted::END_IS_OVER | wanted::SOCKET_IS_OVER;
    assert_eq!(layout::ALL_OVER, over | over << 2);
    assert_eq!(layout::MODES, [wanted::FREE, wanted::RELAYS, wanted::PASSES, wanted::REPLACED, wanted::TAKEN]);
}

#[test]
fn a_connection_is_there_until_it_is_freed() {
    let map = map();
    let entry = map.put(legs(1), 0).unwrap();
    assert!(map.put(legs(1), 0).is_none(), "it is there already");
    assert!(entry.seen(0).is_none() && entry.passed() == [0, 0] && entry.passings() == 0 && !entry.is_over());
    entry.set_read(1, 5);
    entry.free();
    // Both of its legs, also when only one was in the way.
    let entry = map.put(legs(1), 0).unwrap();
    let [client, _] = legs(2);
    let [_, backend] = legs(1);
    assert!(map.put([client, backend], 0).is_none());
    let other = map.put(legs(2), 0).unwrap();
    assert_eq!(entry.leg(1).read.load(Ordering::Relaxed), 0, "it begins anew");
    entry.free();
    other.free();
    assert!(map.memory.buckets.iter().flatten().all(|slot| slot.tag.load(Ordering::Relaxed) == layout::NO_TAG));
}

#[test]
fn there_is_room_for_as_many_as_there_are_records() {
    let map = map();
    let mut entries = Vec::new();
    let mut without_room = 0;
    for number in 0..layout::RECORDS as u16 {
        match map.put(legs(number + 1), 0) {
            Some(entry) => entries.push(entry),
            None => without_room += 1,
        }
    }
    // Some meet in a bucket that is full.
    assert!(without_room < layout::RECORDS / 20, "{without_room} find no room");
    while let Some(entry) = map.put(legs(10_000 + entries.len() as u16), 0) {
        entries.push(entry);
    }
    let last = entries.pop().unwrap();
    last.free();
    assert!((0..100).any(|number| map.put(legs(50_000 + number), 0).map(Entry::free).is_some()));
    entries.into_iter().for_each(Entry::free);
}

#[test]
fn what_nobody_stamps_any_more_is_swept_away() {
    let map = map();
    let left = map.put(legs(1), 1000).unwrap();
    let live = map.put(legs(2), 1000).unwrap();
    map.sweep(1000 + ABANDONED);
    live.stamp(1000 + ABANDONED);
    map.sweep(1001 + ABANDONED);
    assert!(map.put(legs(2), 0).is_none(), "it is stamped");
    map.put(legs(1), 0).unwrap().free();
    drop(left);
    // The clock of 32 bits begins anew.
    live.stamp(u32::MAX - 10);
    map.sweep(5);
    assert!(map.put(legs(2), 0).is_none());
    live.free();
}

use super::*;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;
use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};
use ringlb_netns::session_map as layout;
use std::mem::offset_of;
use std::net::Ipv4Addr;

fn map() -> SessionMap {
    let memory = memfd_create(c"session-map", MFdFlags::MFD_CLOEXEC).unwrap();
    ftruncate(&memory, layout::BYTES as i64).unwrap();
    SessionMap::new(&memory).unwrap()
}

fn address() -> impl Strategy<Value = SocketAddrV4> {
    (any::<u32>(), 1..=u16::MAX).prop_map(|(ip, port)| SocketAddrV4::new(Ipv4Addr::from(ip), port))
}

fn tuple() -> impl Strategy<Value = Tuple> {
    (address(), address()).prop_map(|(source, destination)| Tuple { source, destination })
}

fn numbered(number: u16) -> Tuple {
    let address = |last, port| SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, last), port);
    Tuple { source: address(2, number), destination: address(3, 53) }
}

proptest! {
    /// Both sides are of different crates, which do not depend on each other.
    #[test]
    fn a_key_is_in_the_bucket_where_the_program_looks(tuple in tuple()) {
        let word = |octets| u32::from_ne_bytes(octets);
        let Tuple { source, destination } = tuple;
        let [a, b] = source.port().to_be_bytes();
        let [c, d] = destination.port().to_be_bytes();
        let bucket = layout::bucket_of(word(source.ip().octets()), word(destination.ip().octets()), word([a, b, c, d]));
        prop_assert_eq!(Key::of(tuple).bucket(), bucket);
    }
}

#[test]
fn the_layout_is_that_of_the_program() {
    assert_eq!((BUCKETS, WAYS), (layout::BUCKETS, layout::WAYS));
    assert_eq!((size_of::<Entry>(), size_of::<[[Entry; WAYS]; BUCKETS]>()), (layout::ENTRY_BYTES, layout::BYTES));
    assert_eq!(offset_of!(Entry, sequence), layout::SEQUENCE);
    assert_eq!(offset_of!(Entry, key_addresses), layout::KEY_ADDRESSES);
    assert_eq!(offset_of!(Entry, key_ports), layout::KEY_PORTS);
    assert_eq!(offset_of!(Entry, new_ports), layout::NEW_PORTS);
    assert_eq!(offset_of!(Entry, new_addresses), layout::NEW_ADDRESSES);
    assert_eq!(offset_of!(Entry, datagrams), layout::DATAGRAMS);
    assert_eq!(offset_of!(Entry, bytes), layout::PAYLOAD_BYTES);
}

#[test]
fn an_entry_is_there_until_it_is_taken_back() {
    let map = map();
    let place = map.put(numbered(1), numbered(2)).unwrap();
    assert!(map.put(numbered(1), numbered(3)).is_none(), "one way has two ends");
    let entry = map.entry(&place).unwrap();
    assert_eq!(entry.key(), Key::of(numbered(1)));
    entry.datagrams.fetch_add(3, Ordering::Relaxed);
    entry.bytes.fetch_add(192, Ordering::Relaxed);
    let passed = Passed { datagrams: 3, bytes: 192 };
    assert_eq!(map.passed(&place), Some(passed));
    assert_eq!(map.remove(&place), Some(passed));
    assert_eq!((map.passed(&place), map.remove(&place)), (None, None));
    // What was counted for one is not counted for the next.
    let place = map.put(numbered(1), numbered(3)).unwrap();
    assert_eq!(map.passed(&place), Some(Passed::default()));
    assert!(map.entry(&place).unwrap().sequence.load(Ordering::Relaxed).is_multiple_of(2));
}

#[test]
fn a_full_bucket_takes_no_more() {
    let map = map();
    let bucket = Key::of(numbered(1)).bucket();
    let mut same = (1..).map(numbered).filter(|tuple| Key::of(*tuple).bucket() == bucket);
    let places: Vec<_> = same.by_ref().take(WAYS).map(|tuple| map.put(tuple, tuple).unwrap()).collect();
    let next = same.next().unwrap();
    assert!(map.put(next, next).is_none());
    map.remove(&places[3]).unwrap();
    assert!(map.put(next, next).is_some());
}

/// The daemon clears it when a proxy has ended, while another one may use it.
#[test]
fn it_can_be_cleared_at_any_time() {
    let map = map();
    let place = map.put(numbered(1), numbered(2)).unwrap();
    for entry in map.0.0.iter().flatten() {
        entry.sequence.store(0, Ordering::Relaxed);
        entry.set_key(Key::NONE);
    }
    assert_eq!((map.passed(&place), map.remove(&place)), (None, None));
    assert!(map.put(numbered(1), numbered(2)).is_some());
}

/// Somebody else may have found the entry free a moment ago, and look at it again.
#[test]
fn who_looks_at_an_entry_does_not_keep_it_from_being_freed() {
    let map = map();
    let place = map.put(numbered(1), numbered(2)).unwrap();
    let entry = map.entry(&place).unwrap();
    let sequence = entry.lock().unwrap();
    assert_eq!(map.remove(&place), Some(Passed::default()));
    entry.unlock(sequence);
    assert_eq!(entry.key(), Key::NONE);
    assert!(map.put(numbered(1), numbered(3)).is_some());
}

/// Threads that put the same and other entries at the same time.
#[test]
fn threads_do_not_take_each_others_entries() {
    let map = map();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let map = &map;
            scope.spawn(move || {
                for round in 0..2000u16 {
                    let own = numbered(1 + thread * 4000 + round);
                    let place = map.put(own, own).unwrap();
                    assert_eq!(map.passed(&place), Some(Passed::default()));
                    assert_eq!(map.remove(&place), Some(Passed::default()));
                }
            });
        }
    });
    let left = map.0.0.iter().flatten().filter(|entry| entry.key() != Key::NONE);
    assert_eq!(left.count(), 0);
}

#[test]
fn what_is_no_memory_is_no_map() {
    let (near, _far) = std::io::pipe().unwrap();
    assert!(SessionMap::new(&near).is_err());
}

//! What holds for everything that can come over a control channel.

use ringlb_proxy::balance;
use ringlb_proxy::control::frame::{MAX_PACKET, Reassembler, encode};
use ringlb_proxy::control::message::{Reply, Request};
use ringlb_proxy::control::replacement::SessionBatch;
use ringlb_proxy::control::version::Message;
use ringlb_proxy::table::Table;
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::fmt::Debug;

/// Takes `input` as packets, each with its length before it (2 bytes, little-endian): once as what a daemon says to a proxy,
/// once as what a proxy says to a daemon, once as what it says to another proxy. Whether they make a message in one of these ways. Panics if anything does not
/// hold.
pub(crate) fn check(input: &[u8]) -> bool {
    let mut table = Table::default();
    let requests = converse(input, |request: Request| apply(&mut table, &request));
    let replies = converse(input, |_: Reply| {});
    let sessions = converse(input, |_: SessionBatch| {});
    requests + replies + sessions > 0
}

fn packets(mut input: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (&length, rest) = input.split_first_chunk::<2>()?;
        let (packet, rest) = rest.split_at(rest.len().min(u16::from_le_bytes(length).into()));
        input = rest;
        Some(packet)
    })
}

/// Reads messages until the connection would be closed; gives their number.
fn converse<T>(input: &[u8], mut each: impl FnMut(T)) -> usize
where
    T: Message + DeserializeOwned + Debug + PartialEq,
{
    let (mut reassembler, mut messages) = (Reassembler::default(), 0);
    for packet in packets(input) {
        match reassembler.push::<T>(packet) {
            Ok(Some(message)) => {
                check_encoding(&message);
                each(message);
                messages += 1;
            }
            Ok(None) => {}
            Err(error) => {
                assert!(!error.to_string().is_empty());
                break;
            }
        }
    }
    messages
}

/// What has been decoded is encoded into packets that are decoded to the same.
fn check_encoding<T>(message: &T)
where
    T: Message + DeserializeOwned + Debug + PartialEq,
{
    let mut packets = encode(message).unwrap_or_else(|error| panic!("{error}: {message:?}"));
    assert!(packets.iter().all(|packet| packet.len() <= MAX_PACKET));
    let (mut reassembler, last) = (Reassembler::default(), packets.pop().unwrap_or_default());
    for packet in packets {
        assert!(matches!(reassembler.push::<T>(&packet), Ok(None)), "an early end");
    }
    assert_eq!(reassembler.push::<T>(&last).ok().flatten().as_ref(), Some(message));
}

fn apply(table: &mut Table, request: &Request) {
    let (result, generation) = match request {
        Request::Snapshot(snapshot) => (table.replaced_by(snapshot), snapshot.generation),
        Request::Delta(delta) => (table.changed_by(delta), delta.to),
        Request::Statistics
        | Request::AddPort { .. }
        | Request::RemovePort(_)
        | Request::Descriptors
        | Request::Shutdown
        | Request::Introduce
        | Request::AwaitSessions
        | Request::ReceiveDatagrams
        | Request::Retire { .. }
        | Request::Digests
        | Request::AwaitBusySessions
        | Request::PassSessions(_) => return,
    };
    match result {
        Ok(step) => {
            assert!(generation > table.generation());
            *table = step.table;
            assert_eq!(table.generation(), generation);
            check_table(table);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn check_table(table: &Table) {
    let (mut vips, mut ports) = (HashSet::new(), HashSet::new());
    let mut random = fastrand::Rng::with_seed(table.generation());
    for service in table.services() {
        assert!(!service.vips.is_empty() || !service.published.is_empty(), "{} cannot be reached", service.name);
        for vip in &service.vips {
            assert!(vips.insert(*vip), "{vip} is there twice");
            assert_eq!(table.service_at(*vip).map(|found| &found.name), Some(&service.name));
        }
        for port in &service.published {
            assert!(ports.insert(port.published), "{} is there twice", port.published);
            assert!(port.published.number > 0 && port.target > 0);
            let found = table.published(port.published).map(|(found, target)| (&found.name, target));
            assert_eq!(found, Some((&service.name, port.target)));
        }
        assert_eq!(table.service(&service.name).map(|found| &found.vips), Some(&service.vips));
        let mut addresses = HashSet::new();
        assert!(service.backends().iter().all(|backend| addresses.insert(backend.address)), "a backend is there twice");
        let mut tried = Vec::new();
        while let Some(backend) = balance::pick(service, service.vips.first().copied(), &tried, &mut random) {
            assert!(!backend.draining && backend.weight > 0, "picked {} of {}", backend.address, service.name);
            assert!(!tried.contains(&backend.address), "picked {} twice", backend.address);
            tried.push(backend.address);
            if tried.len() == 3 {
                break;
            }
        }
        // Nothing is known yet of anybody's health: what is not eligible, but usable, is what is left to try.
        let usable = service.backends().iter().filter(|backend| backend.is_usable()).count();
        assert_eq!(tried.len(), usable.min(3));
        assert_eq!(service.eligible().is_empty(), usable == 0);
    }
}

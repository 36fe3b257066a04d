//! What receives, sends and splices come to, and that every byte arrives once and in its place.

use super::connection::Connection;
use super::faults::Faults;
use crate::flow::{Chunk, Destination, Event, ReceiveEnd, Side, Source, SpliceTurn};

const BUFFER: u64 = 16 * 1024;
const PIPE: u64 = 1024 * 1024;

impl Connection {
    pub(super) fn receive(&mut self, side: Side, faults: &mut Faults) -> Event {
        let shortage = self.random.u8(..30) == 0;
        let lost_more = self.random.u8(..10) == 0;
        let peer = &mut self.peers[side.index()];
        let operation = peer.receive.unwrap();
        if operation.stopping && self.random.bool() {
            peer.receive = None;
            return Event::ReceiveEnded { side, why: ReceiveEnd::Stopped };
        }
        if peer.reset || peer.reset_at == Some(peer.read) {
            *faults.resets_of(side) += 1;
            faults.resets_before_data += u64::from(peer.read == 0);
            peer.reset = true;
            peer.end_seen = true;
            peer.receive = None;
            return Event::ReceiveEnded { side, why: ReceiveEnd::Reset };
        }
        if peer.read == peer.total {
            peer.end_seen = true;
            peer.receive = None;
            return Event::ReceiveEnded { side, why: ReceiveEnd::Finished };
        }
        if shortage && !operation.private {
            faults.starved += 1;
            peer.receive = None;
            return Event::ReceiveEnded { side, why: ReceiveEnd::Starved };
        }
        faults.late_data_after_stop += u64::from(operation.stopping);
        faults.lost_more += u64::from(lost_more && !operation.private);
        let limit = peer.reset_at.unwrap_or(peer.total) - peer.read;
        let length = if self.random.u8(..3) == 0 { self.random.u64(1..=BUFFER) } else { BUFFER }.min(limit);
        let armed = !operation.private && !lost_more;
        if !armed {
            peer.receive = None;
        }
        let buffer = self.next_buffer;
        self.next_buffer += 1;
        self.buffers.insert(buffer, (side, peer.read));
        peer.read += length;
        let chunk = Chunk { buffer, start: 0, length: u32::try_from(length).unwrap() };
        Event::Received { side, chunk, full: length == BUFFER, armed }
    }

    pub(super) fn send(&mut self, side: Side, faults: &mut Faults) -> Event {
        let (chunk, stopping) = self.peers[side.index()].send.take().unwrap();
        let resets_now = self.peers[side.index()].reset_at.is_some() && self.random.u8(..200) == 0;
        let peer = &mut self.peers[side.index()];
        peer.reset |= resets_now;
        if peer.reset || (stopping && self.random.bool()) {
            faults.send_failures += 1;
            return Event::SendFailed { side };
        }
        if let Some((buffer, whole, sent)) = self.header_out
            && buffer == chunk.buffer
        {
            assert_eq!((chunk.start, chunk.length, peer.received), (sent, whole - sent, 0), "the header is not first");
            let length = if self.random.u8(..3) == 0 { self.random.u32(0..=chunk.length) } else { chunk.length };
            faults.headers_out_short += u64::from(length < chunk.length);
            self.header_out = Some((buffer, whole, sent + length));
            return Event::Sent { side, length };
        }
        assert!(side == Side::Client || self.is_header_sent(), "data before the whole header");
        let peer = &mut self.peers[side.index()];
        let (source, position) = self.buffers[&chunk.buffer];
        assert_eq!(source, side.other());
        assert_eq!(position + u64::from(chunk.start), peer.received, "bytes out of order, lost or repeated");
        let length = if self.random.u8(..8) == 0 { self.random.u32(0..=chunk.length) } else { chunk.length };
        faults.short_sends += u64::from(length < chunk.length);
        peer.received += u64::from(length);
        Event::Sent { side, length }
    }

    pub(super) fn splice(&mut self, from: Side, faults: &mut Faults) -> Event {
        let read = self.ways[from.index()].splice.take().unwrap();
        if self.ways[from.index()].pipe.is_none() && self.random.u8(..5) == 0 {
            faults.no_pipe += 1;
            return Event::SpliceUnavailable { from };
        }
        let position = self.peers[from.index()].read;
        let (start, mut held) = self.ways[from.index()].pipe.unwrap_or((position, 0));
        let mut source = Source::Ready;
        if read {
            let peer = &mut self.peers[from.index()];
            let limit = peer.reset_at.unwrap_or(peer.total) - peer.read;
            if peer.reset || (limit == 0 && peer.reset_at.is_some()) {
                *faults.resets_of(from) += 1;
                peer.reset = true;
                peer.end_seen = true;
                source = Source::Reset;
                self.lingered = true;
            } else if limit == 0 {
                peer.end_seen = true;
                source = Source::Finished;
            } else if self.random.u8(..3) == 0 {
                source = Source::Dry;
            } else {
                let length = self.random.u64(1..=PIPE).min(limit).min(PIPE - held);
                peer.read += length;
                held += length;
            }
        }
        let mut destination = Destination::Ready;
        let taken = match self.random.u8(..3) {
            0 => held,
            _ => self.random.u64(0..=held),
        };
        let peer = &mut self.peers[from.other().index()];
        let mut start = start;
        if peer.reset {
            destination = Destination::Reset;
            faults.send_failures += 1;
        } else {
            assert!(held == 0 || start == peer.received, "bytes out of order, lost or repeated");
            peer.received += taken;
            start += taken;
            held -= taken;
            faults.spliced_bytes += taken;
            if held > 0 {
                destination = Destination::Full;
            }
        }
        self.ways[from.index()].pipe = Some((start, held));
        let turn = SpliceTurn { held: u32::try_from(held).unwrap(), source, destination };
        Event::Spliced { from, turn }
    }
}

//! Streams of every shape, by iperf3, netcat and plain sockets.

use super::{VIP, one_backend, vip};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

#[test]
fn iperf3_both_ways_with_eight_streams() {
    let (_node, backend, client) = one_backend();
    let _server = backend.spawn("iperf3", &["-s", "-p", "5201"]);
    backend.wait_for_port(5201);
    for reverse in [&[][..], &["-R"]] {
        let arguments = ["-c", VIP, "-p", "5201", "-P", "8", "-t", "2", "-J"];
        let output = client.output("iperf3", &[&arguments[..], reverse].concat());
        let result: Value = serde_json::from_slice(&output).unwrap();
        assert!(result.get("error").is_none(), "{result:#}");
        let received = result["end"]["sum_received"]["bytes"].as_f64().unwrap();
        assert!(received > 10_000_000.0, "{received} bytes in two seconds");
        assert_eq!(result["start"]["connected"].as_array().unwrap().len(), 8);
    }
}

/// 1 GiB each way at once over one connection, every byte checked.
#[test]
fn a_gibibyte_in_both_directions_at_once() {
    const TOTAL: u64 = 1 << 30;
    let (_node, backend, client) = one_backend();
    let listener = backend.listen(80);
    let server = std::thread::spawn(move || exchange(listener.accept().unwrap().0, TOTAL));
    let received = exchange(client.connect(SocketAddr::new(vip(), 80)), TOTAL);
    let sent = server.join().unwrap();
    assert_eq!((received, sent), (expected_sum(TOTAL), expected_sum(TOTAL)));
}

/// Sends `total` bytes and receives to the end; gives count and checksum of what came.
fn exchange(mut stream: TcpStream, total: u64) -> (u64, u64) {
    let mut writer = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let mut block = vec![0; 256 * 1024];
        let mut position = 0;
        while position < total {
            fill(position, &mut block);
            writer.write_all(&block).unwrap();
            position += block.len() as u64;
        }
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut sum = Sum::default();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let length = stream.read(&mut buffer).unwrap();
        if length == 0 {
            sender.join().unwrap();
            return (sum.count, sum.value);
        }
        sum.add(&buffer[..length]);
    }
}

fn fill(position: u64, block: &mut [u8]) {
    for (word, bytes) in (position / 8..).zip(block.chunks_exact_mut(8)) {
        bytes.copy_from_slice(&word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    }
}

fn expected_sum(total: u64) -> (u64, u64) {
    let mut sum = Sum::default();
    let mut block = vec![0; 256 * 1024];
    while sum.count < total {
        fill(sum.count, &mut block);
        sum.add(&block);
    }
    (sum.count, sum.value)
}

/// A checksum that depends on every byte's value and place, whatever the pieces it comes in: words of the stream, each
/// multiplied into the sum (FNV-1a by 64-bit words).
#[derive(Default)]
struct Sum {
    count: u64,
    value: u64,
    partial: [u8; 8],
}

impl Sum {
    fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let at = (self.count % 8) as usize;
            let take = bytes.len().min(8 - at);
            self.partial[at..at + take].copy_from_slice(&bytes[..take]);
            self.count += take as u64;
            bytes = &bytes[take..];
            if at + take == 8 {
                self.value = (self.value ^ u64::from_le_bytes(self.partial)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
}

/// `printf … | nc -N`: the client ends its side at once and still gets the whole reply.
#[test]
fn netcat_gets_the_whole_reply_after_its_half_close() {
    let (_node, backend, client) = one_backend();
    let listener = backend.listen(80);
    let reply: Vec<u8> = (0..3_000_000u32).map(|index| b'a' + (index % 26) as u8).collect();
    let expected = reply.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = String::new();
            stream.read_to_string(&mut request).unwrap();
            assert_eq!(request, "question");
            std::thread::sleep(Duration::from_millis(100));
            stream.write_all(&reply).unwrap();
        }
    });
    for _ in 0..5 {
        let output = client.output("sh", &["-c", &format!("printf question | nc -N {VIP} 80")]);
        assert!(output == expected, "{} of {} bytes came", output.len(), expected.len());
    }
}

/// A server that closes first, with netcat as the client, which goes on until the server is done.
#[test]
fn a_server_that_closes_first_is_heard_to_the_end() {
    let (_node, backend, client) = one_backend();
    let listener = backend.listen(80);
    let reply = vec![b'z'; 2_000_000];
    let expected = reply.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            stream.write_all(&reply).unwrap();
        }
    });
    for _ in 0..5 {
        // It reads no standard input (-d): only the server's end can end it.
        let output = client.output("nc", &["-d", VIP, "80"]);
        assert!(output == expected, "{} of {} bytes came", output.len(), expected.len());
    }
}

/// A 10 MB reply to a reader that takes 1 KB at a time, slowly for a while: the proxy's memory stays bounded, and in the
/// end all is there.
#[test]
fn a_slow_reader_gets_all_and_costs_little() {
    const SIZE: usize = 10_000_000;
    let (node, backend, client) = one_backend();
    let listener = backend.listen(80);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || stream.write_all(&vec![b'r'; SIZE]).unwrap());
        }
    });
    let proxy = node.proxy_pid();
    let before = anonymous_memory(proxy);
    let readers: Vec<_> = (0..20).map(|_| client.connect(SocketAddr::new(vip(), 80))).collect();
    let slow = |stream: &TcpStream| {
        let mut stream = stream.try_clone().unwrap();
        for _ in 0..50 {
            stream.read_exact(&mut [0; 1024]).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    std::thread::scope(|scope| readers.iter().for_each(|reader| drop(scope.spawn(move || slow(reader)))));
    let held = anonymous_memory(proxy) - before;
    assert!(held < 8 * 1024, "{held} KiB for 20 slow readers");
    for mut reader in readers {
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert_eq!(rest.len() + 50 * 1024, SIZE);
    }
}

/// In KiB.
fn anonymous_memory(pid: i32) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim_end_matches("kB").trim().parse().unwrap()
}

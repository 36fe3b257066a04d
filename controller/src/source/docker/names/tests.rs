//! A little DNS server at the Engine's address in a namespace of the test's own. Needs root.

use super::*;
use ringlb_netns::isolate::{self, Kind};
use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Packet, PacketFlag, ResourceRecord};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::time::timeout;

/// How the server answers what comes by TCP.
#[derive(Clone, Copy)]
enum ByTcp {
    Whole,
    /// The connection is closed instead.
    Nothing,
    /// As the Engine does what does not fit into the longest message.
    AsMuchAsFits,
}

/// Runs `test` with a server whose service `web` has so many tasks, and gives how often each transport was asked.
fn with_server<F: Future<Output = ()>>(
    tasks: u16,
    by_tcp: ByTcp,
    test: impl FnOnce(Asker, mpsc::UnboundedReceiver<Answers>) -> F + Send,
) -> (usize, usize) {
    std::thread::scope(|scope| {
        let isolated = scope.spawn(|| {
            assert_eq!(Kind::of_this_process(), Kind::Root, "this test needs root");
            isolate::enter(Kind::Root).unwrap();
            let asked = Arc::new(Mutex::new((0, 0)));
            serve(tasks, by_tcp, &asked);
            let path = PathBuf::from(format!("/proc/self/task/{}/ns/net", nix::unistd::gettid()));
            let metadata = std::fs::metadata(&path).unwrap();
            let sandbox = SandboxFile { path, identity: (metadata.dev(), metadata.ino()) };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (sender, answers) = mpsc::unbounded_channel();
                let asker = Asker::start("net", &sandbox, sender).unwrap();
                asker.ask_for([("web", "10.0.1.2".parse().unwrap())].into_iter());
                test(asker, answers).await;
            });
            *asked.lock().unwrap()
        });
        isolated.join().unwrap()
    })
}

/// Answers on threads of their own, for as long as the test's process lasts.
fn serve(tasks: u16, by_tcp: ByTcp, asked: &Arc<Mutex<(usize, usize)>>) {
    let socket = std::net::UdpSocket::bind(SERVER).unwrap();
    let listener = TcpListener::bind(SERVER).unwrap();
    let (by_datagram, by_stream) = (Arc::clone(asked), Arc::clone(asked));
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            by_datagram.lock().unwrap().0 += 1;
            socket.send_to(&answer(&buffer[..length], tasks, usize::from(MAX_ANSWER), true), client).unwrap();
        }
    });
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            by_stream.lock().unwrap().1 += 1;
            let mut length = [0; 2];
            if matches!(by_tcp, ByTcp::Nothing) || stream.read_exact(&mut length).is_err() {
                continue;
            }
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut question).unwrap();
            let tasks = if matches!(by_tcp, ByTcp::AsMuchAsFits) { u16::MAX } else { tasks };
            let answer = answer(&question, tasks, usize::from(u16::MAX) - 1, false);
            let length = u16::try_from(answer.len()).unwrap();
            stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat()).unwrap();
        }
    });
}

/// With the name beside each address and nothing else, as the Engine answers.
fn answer(question: &[u8], tasks: u16, max: usize, tell: bool) -> Vec<u8> {
    let question = Packet::parse(question).unwrap();
    let name = question.questions[0].qname.clone();
    assert_eq!(name.to_string(), "tasks.web");
    let mut reply = Packet::new_reply(question.id());
    reply.questions = question.questions.clone();
    let record = 2 + name.to_string().len() + 14;
    let fit = (max - reply.build_bytes_vec().unwrap().len()) / record;
    if tell && fit < usize::from(tasks) {
        reply.set_flags(PacketFlag::TRUNCATION);
    }
    reply.answers = address_list(tasks)
        .take(fit)
        .map(|address| ResourceRecord::new(name.clone(), CLASS::IN, 600, RData::A(A { address: address.into() })))
        .collect();
    reply.build_bytes_vec().unwrap()
}

fn address_list(tasks: u16) -> impl Iterator<Item = Ipv4Addr> {
    (0..tasks).map(|task| Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 1, 0, 0)) + u32::from(task)))
}

/// The first answer.
async fn first(answers: &mut mpsc::UnboundedReceiver<Answers>) -> Option<BTreeSet<IpAddr>> {
    let told = timeout(Duration::from_secs(20), answers.recv()).await.unwrap().unwrap();
    let (service, _, addresses) = told.services.into_iter().next().unwrap();
    assert_eq!(service, "web");
    addresses
}

#[test]
fn what_fits_into_a_datagram_is_not_asked_again() {
    let (_, by_tcp) = with_server(100, ByTcp::Whole, async |_asker, mut answers| {
        let all = address_list(100).map(IpAddr::from).collect();
        assert_eq!(first(&mut answers).await, Some(all));
        assert_eq!(first(&mut answers).await.map(|all| all.len()), Some(100));
    });
    assert_eq!(by_tcp, 0);
}

#[test]
fn what_does_not_fit_is_asked_again_by_tcp() {
    let (by_udp, by_tcp) = with_server(1000, ByTcp::Whole, async |_asker, mut answers| {
        let all: BTreeSet<_> = address_list(1000).map(IpAddr::from).collect();
        for _ in 0..3 {
            assert_eq!(first(&mut answers).await.as_ref(), Some(&all));
        }
    });
    assert!(by_tcp >= 3 && by_udp >= by_tcp, "{by_udp} {by_tcp}");
}

#[test]
fn without_an_answer_by_tcp_nothing_is_known() {
    for by_tcp in [ByTcp::Nothing, ByTcp::AsMuchAsFits] {
        let (_, asked) = with_server(1000, by_tcp, async |_asker, mut answers| {
            assert_eq!(first(&mut answers).await, None);
            // It goes on.
            assert_eq!(first(&mut answers).await, None);
        });
        assert!(asked >= 2);
    }
}

//! Whoever reaches a manager's port can connect to it; no worker is to notice.

use super::{Authority, LOOPBACK, quick, service, soon};
use crate::source::docker::cluster::{ServeStatus, Timing};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Nobody is sent away for being slow.
fn patient() -> Timing {
    let for_ever = Duration::from_secs(3600);
    Timing { handshake: for_ever, greeting: for_ever, shown: for_ever, ..quick() }
}

/// Connects so many times from that address, and says nothing.
async fn silent(from: Ipv4Addr, manager: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut connections = Vec::new();
    for _ in 0..count {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        connections.push(socket.connect(manager).await.unwrap());
    }
    connections
}

/// Whether the other end has closed the connection by now.
fn is_closed(connection: &TcpStream) -> bool {
    !matches!(connection.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

#[tokio::test]
async fn whoever_holds_connections_keeps_no_worker_out() {
    // Both ends of each connection are this process's.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let swarm = Authority::new();
    let mut manager = swarm.manager().serve_at(LOOPBACK, vec![service("web", "rr")], patient()).await;
    let mut before = swarm.worker().follow(&[manager.address]);
    soon(&mut before.services, Option::is_some).await;

    // From the worker's own address more than there are places for workers; then from very many addresses.
    let one = silent(Ipv4Addr::LOCALHOST, manager.address, 2100).await;
    soon(&mut swarm.worker().follow(&[manager.address]).services, Option::is_some).await;
    let mut many = Vec::new();
    for number in 1..=250 {
        many.extend(silent(Ipv4Addr::new(127, 0, 1, number), manager.address, 8).await);
    }
    soon(&mut swarm.worker().follow(&[manager.address]).services, Option::is_some).await;
    let open = |connections: &[TcpStream]| connections.iter().filter(|connection| !is_closed(connection)).count();
    let (of_one, of_many) = (open(&one), open(&many));
    assert!(of_one <= 8 && (1..=256).contains(&of_many), "{of_one} and {of_many}");

    manager.facts.send_replace(vec![service("web", "p2c")]);
    soon(&mut before.services, |services| *services == Some(vec![service("web", "p2c")])).await;
    assert_eq!(before.status.borrow().error, None);
    let status = soon(&mut manager.serving.status, |status: &ServeStatus| status.workers == 1).await;
    assert_eq!(status.error, None);
}

#[tokio::test]
async fn whoever_says_nothing_is_sent_away_soon_and_not_remembered_for_long() {
    let swarm = Authority::new();
    let timing = Timing { greeting: Duration::from_millis(100), shown: Duration::from_secs(1), ..patient() };
    let mut manager = swarm.manager().serve_at(LOOPBACK, vec![service("web", "rr")], timing).await;
    let mut connection = TcpStream::connect(manager.address).await.unwrap();
    let read = timeout(Duration::from_secs(20), connection.read(&mut [0])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    let status = soon(&mut manager.serving.status, |status| status.error.is_some()).await;
    assert!(status.error.unwrap().contains("no secure connection"));
    soon(&mut manager.serving.status, |status| status.error.is_none()).await;
}

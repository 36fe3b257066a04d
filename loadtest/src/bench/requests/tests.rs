use super::{Connections, EchoServer, Order, run};
use ringlb_netns::Namespace;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Has each connection to the address that it gives handled by a thread. Ends with the test's process: it waits for one more.
fn serve(handle: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let handle = Arc::new(handle);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let (connection, handle) = (connection.unwrap(), Arc::clone(&handle));
            std::thread::spawn(move || handle(connection));
        }
    });
    address
}

fn short(target: SocketAddr) -> Order {
    Order { connections: Connections::ForOneRequest(8), ..order(target, None) }
}

fn order(target: SocketAddr, rate: Option<f64>) -> Order {
    Order { targets: vec![target], connections: Connections::Lasting(8), rate, duration: Duration::from_millis(300) }
}

#[test]
fn a_closed_loop_keeps_every_connection_busy_until_the_end() {
    let address = free_address();
    let here = Namespace::current().unwrap();
    let _server = EchoServer::start([(&here, address)].into_iter()).unwrap();
    let outcome = run(&order(address, None)).unwrap();
    assert_eq!((outcome.failures, outcome.failure), (0, None));
    assert!(outcome.times.count() > 100.0, "{}", outcome.times.count());
    assert!(outcome.elapsed >= Duration::from_millis(300));
}

#[test]
fn an_open_loop_makes_as_many_requests_as_are_due() {
    let address = free_address();
    let here = Namespace::current().unwrap();
    let _server = EchoServer::start([(&here, address)].into_iter()).unwrap();
    let outcome = run(&order(address, Some(200.0))).unwrap();
    assert_eq!(outcome.failures, 0);
    // Due at 0, 5, 10 ... 295 ms; those that are due when the machine was busy at the end are not begun any more.
    assert!((1.0..=61.0).contains(&outcome.times.count()), "{}", outcome.times.count());
}

#[test]
fn each_request_has_a_connection_of_its_own() {
    let asked = Arc::new(AtomicUsize::new(0));
    let closed = Arc::new(AtomicUsize::new(0));
    let (is_asked, is_closed) = (Arc::clone(&asked), Arc::clone(&closed));
    let address = serve(move |mut connection| {
        let mut request = [0; 64];
        connection.read_exact(&mut request).unwrap();
        is_asked.fetch_add(1, Ordering::Relaxed);
        // In two pieces, which come one after the other.
        connection.write_all(&request[..10]).unwrap();
        connection.write_all(&request[10..]).unwrap();
        assert_eq!(connection.read(&mut request).unwrap(), 0, "the client closes with its answer");
        is_closed.fetch_add(1, Ordering::Relaxed);
    });
    let outcome = run(&short(address)).unwrap();
    assert_eq!((outcome.failures, outcome.failure), (0, None));
    assert!(outcome.times.count() > 8.0);
    assert_eq!(outcome.times.count(), asked.load(Ordering::Relaxed) as f64);
    let deadline = Instant::now() + Duration::from_secs(20);
    while closed.load(Ordering::Relaxed) < asked.load(Ordering::Relaxed) {
        assert!(Instant::now() < deadline, "not all were closed");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(outcome.elapsed >= Duration::from_millis(300));
}

#[test]
fn short_connections_are_served() {
    let address = free_address();
    let here = Namespace::current().unwrap();
    let _server = EchoServer::start([(&here, address)].into_iter()).unwrap();
    let outcome = run(&short(address)).unwrap();
    assert_eq!((outcome.failures, outcome.failure), (0, None));
    assert!(outcome.times.count() > 100.0, "{}", outcome.times.count());
}

/// Nobody listens, and the next ones are tried all the same.
#[test]
fn refused_connections_are_failures() {
    let outcome = run(&short(free_address())).unwrap();
    assert_eq!(outcome.times.count(), 0.0);
    assert!(outcome.failures > 8, "{}", outcome.failures);
    assert!(outcome.failure.unwrap().contains("refused"));
}

#[test]
fn an_answer_that_is_wrong_and_a_connection_that_ends_are_failures() {
    for (wrong, connections) in [true, false]
        .into_iter()
        .flat_map(|wrong| [(wrong, Connections::Lasting(8)), (wrong, Connections::ForOneRequest(8))])
    {
        let address = serve(move |mut connection| {
            let mut request = [0; 64];
            if connection.read_exact(&mut request).is_ok() && wrong {
                request[63] ^= 1;
                let _ = connection.write_all(&request);
                let _ = connection.read(&mut request);
            }
        });
        let outcome = run(&Order { connections, ..order(address, None) }).unwrap();
        assert_eq!(outcome.times.count(), 0.0);
        assert!(outcome.failures >= 8);
        let failure = outcome.failure.unwrap();
        assert!(failure.contains(if wrong { "not what was sent" } else { "ended" }), "{failure}");
    }
}

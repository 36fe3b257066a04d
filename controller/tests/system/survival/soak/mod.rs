//! Hours in a node's life: all kinds of bad clients and backends at once, changes, and times without descriptors. Memory stays
//! flat, descriptors are given back, nothing fails that was not made to, and the counters add up.
//!
//! `RINGLB_SOAK` is the time in seconds; `RINGLB_SOAK_JSON` a file for what was seen.

mod clients;
mod counters;
mod process;
mod tally;

use super::site::{PORT, Site};
use super::{chance, number};
use crate::node::{Admin, Container, Node, wait_until};
use clients::{ABANDONED, CHURNED, ECHO, FULL, HOLED, IDLE_TIMEOUT, KINDS, RESET, SLOW, STEADY};
use process::{Holdings, descriptors, open_files, wait_until_closed};
use ringlb_load::{Exchange, LoadHandle, LoadOptions, Workload};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};
use tally::{Exhaustions, Tally};

#[test]
fn a_long_life_with_bad_company() {
    let mut chance = chance();
    let duration = Duration::from_secs(number("RINGLB_SOAK", 30));
    // So that the test may take the proxy's descriptors away.
    let node = Node::start_with(&["--proxy-first-user", "0"]);
    let stage = Stage::set(&node);
    let (proxy, daemon) = (stage.proxy(), node.daemon.pid());
    let before = [proxy, daemon].map(Holdings::of);
    let before_open = [proxy, daemon].map(open_files);
    let (stopped, exhaustions) = (AtomicBool::new(false), Exhaustions::default());
    let (steady, datagrams) = stage.good_clients();
    let mut samples = Vec::new();
    let tallies: Vec<(&str, Tally)> = std::thread::scope(|scope| {
        let mut actors: Vec<_> = stage.bad_clients(scope, &stopped).collect();
        actors.push(("vanished", stage.vanishing_clients(scope, &stopped)));
        actors.push(("change", stage.changes(scope, &stopped, chance.fork())));
        scope.spawn(|| stage.take_descriptors_away(proxy, &stopped, &exhaustions));
        let started = Instant::now();
        while started.elapsed() < duration {
            std::thread::sleep(Duration::from_millis(500));
            samples.push([proxy, daemon].map(Holdings::of));
        }
        stopped.store(true, Ordering::Relaxed);
        actors.into_iter().map(|(name, actor)| (name, actor.join().unwrap())).collect()
    });
    let reports = [steady, datagrams].map(|load| {
        load.stop();
        load.join().unwrap()
    });
    let status = stage.settled();
    for (name, tally) in &tallies {
        println!("{name}: {tally}");
    }
    println!("{} times without descriptors", exhaustions.count());
    println!("the proxy counts {}", stage.site.of(&status)["connections"]);
    for (pid, before) in [proxy, daemon].into_iter().zip(&before_open) {
        wait_until_closed(pid, before);
    }
    let after = [proxy, daemon].map(Holdings::of);
    println!("proxy and daemon before: {before:?}, after: {after:?}");
    if let Ok(file) = std::env::var("RINGLB_SOAK_JSON") {
        std::fs::write(
            file,
            json!({"status": status, "samples": samples, "before": before, "after": after}).to_string(),
        )
        .unwrap();
    }

    let unexplained = tallies.iter().flat_map(|(name, tally)| {
        tally.unexplained(&exhaustions).into_iter().map(move |failure| format!("{name}: {failure}"))
    });
    assert_eq!(unexplained.collect::<Vec<_>>(), Vec::<String>::new(), "failures that nobody made");
    for (name, tally) in &tallies {
        assert!(tally.done + tally.injected > 0, "{name} has done nothing");
    }
    let [steady, datagrams] = &reports;
    assert_eq!((steady.failures, steady.connections_opened), (0, steady.connections), "{steady}");
    counters::check(stage.site.of(&status), &tallies, datagrams.failures);
    check_flat(&samples);
}

/// A network with services for all kinds of clients, and what belongs to them.
struct Stage<'a> {
    node: &'a Node,
    site: Site,
    vanishing: Container,
    /// A listener that takes no connections, and those that fill its backlog.
    _full: (Socket, Vec<TcpStream>),
}

impl<'a> Stage<'a> {
    fn set(node: &'a Node) -> Self {
        let site = Site::make(node, 1);
        let vanishing = node.container_on(&site.network, 50, &["10.1.0.50"]);
        let full = node.container_on(&site.network, 13, &["10.1.0.13"]);
        let full = full.run(|| {
            let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            listener.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into()).unwrap();
            listener.listen(0).unwrap();
            let target = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
            let fill = || TcpStream::connect_timeout(&target, Duration::from_millis(300)).ok();
            let filled = std::iter::from_fn(fill).collect();
            (listener, filled)
        });
        let mut admin = node.admin();
        let both = json!([{"ip": site.server(0)}, {"ip": site.server(1)}]);
        let services = [
            ("steady", STEADY, json!({"backends": both})),
            ("echo", ECHO, json!({"backends": both, "udp": {"idle_timeout": "1s"}})),
            ("churned", CHURNED, json!({"backends": both})),
            ("abandoned", ABANDONED, json!({"backends": both, "idle_timeout": IDLE_TIMEOUT})),
            ("slow", SLOW, json!({"backends": both})),
            ("reset", RESET, json!({"backends": both})),
            ("full", FULL, json!({"backends": [{"ip": "10.1.0.13"}], "connect_timeout": "300ms"})),
            (
                "holed",
                HOLED,
                json!({"backends": [{"ip": "10.1.0.250"}, {"ip": site.server(0)}], "connect_timeout": "300ms"}),
            ),
        ];
        for (name, index, mut body) in services {
            body["vip"] = json!(site.vip(index));
            admin.done("PUT", &format!("/v1/networks/{}/services/{name}", site.network), &body.to_string());
        }
        Self { node, site, vanishing, _full: full }
    }

    fn status(&self) -> Value {
        self.node.admin().get("/v1/status")
    }

    fn proxy(&self) -> i32 {
        self.site.proxy(self.node)
    }

    /// The status when nobody is connected any more.
    fn settled(&self) -> Value {
        let mut status = Value::Null;
        wait_until("all connections have ended", || {
            status = self.status();
            let network = self.site.of(&status);
            let open = ["active", "waiting"].map(|what| &network["connections"][what]);
            open == [0, 0] && network["datagrams"]["active"] == 0
        });
        status
    }

    /// Connections and UDP clients that nothing may happen to; but without descriptors UDP sessions make room for others.
    fn good_clients(&self) -> (LoadHandle, LoadHandle) {
        let load = |index, workload, connections, rate| {
            let mut options = LoadOptions::new(vec![self.site.target(index)], workload);
            (options.connections, options.rate) = (connections, Some(rate));
            self.site.client.load(options)
        };
        let datagrams = Workload::Udp { exchange: Exchange::Pingpong, size_bytes: 100, names: false };
        (load(STEADY, Workload::Pingpong { size_bytes: 64 }, 8, 100.0), load(ECHO, datagrams, 4, 100.0))
    }

    /// The clients that misbehave, each kind on a thread.
    fn bad_clients<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        stopped: &'scope AtomicBool,
    ) -> impl Iterator<Item = (&'static str, ScopedJoinHandle<'scope, Tally>)> {
        KINDS.iter().map(move |kind| {
            let turns = move || {
                let mut tally = Tally::default();
                self.site.client.run(|| {
                    while !stopped.load(Ordering::Relaxed) {
                        (kind.turn)(&self.site, &mut tally);
                        std::thread::sleep(kind.rest);
                    }
                });
                tally
            };
            (kind.name, scope.spawn(turns))
        })
    }

    fn vanishing_clients<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        stopped: &'scope AtomicBool,
    ) -> ScopedJoinHandle<'scope, Tally> {
        scope.spawn(|| {
            let links: Value = serde_json::from_slice(&self.vanishing.output("ip", &["-j", "link", "show"])).unwrap();
            let mut names = links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap());
            let leg = names.find(|name| name.starts_with("rlb-")).unwrap();
            let mut tally = Tally::default();
            self.vanishing.run(|| {
                while !stopped.load(Ordering::Relaxed) {
                    clients::vanish(&self.site, leg, &mut tally);
                    std::thread::sleep(Duration::from_millis(500));
                }
            });
            tally
        })
    }

    /// Changes the backends of a service all the time.
    fn changes<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        stopped: &'scope AtomicBool,
        mut chance: fastrand::Rng,
    ) -> ScopedJoinHandle<'scope, Tally> {
        scope.spawn(move || {
            let mut tally = Tally::default();
            let mut admin: Admin = self.node.admin();
            while !stopped.load(Ordering::Relaxed) {
                let path = format!("/v1/networks/{}/services/churned/backends", self.site.network);
                let path = format!("{path}/{}", self.site.server(chance.u8(..2)));
                let (method, path, body) = match chance.u8(..4) {
                    0 => ("DELETE", path, String::new()),
                    1 => ("POST", path + "/drain", String::new()),
                    _ => ("PUT", path, json!({"weight": chance.u8(1..4)}).to_string()),
                };
                let (status, answer) = admin.request(method, &path, &body);
                // One that is gone already cannot go.
                assert!(status < 300 || status == 404 && method != "PUT", "{method} {path}: {status} {answer}");
                tally.done += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            tally
        })
    }

    /// From time to time the proxy has no descriptors left for more than a few connections.
    fn take_descriptors_away(&self, proxy: i32, stopped: &AtomicBool, exhaustions: &Exhaustions) {
        let process = Pid::from_raw(proxy);
        // A proxy uses all that it may.
        let most = getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit { current: most, maximum: most };
        let mut pause = 0;
        while !stopped.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
            pause += 1;
            if pause % 50 != 0 {
                continue;
            }
            let began = Instant::now();
            let few = descriptors(proxy) as u64 + 6;
            prlimit(process, Resource::Nofile, Rlimit { current: Some(few), ..limit }).unwrap();
            self.site.client.run(|| {
                let target = self.site.target(ECHO);
                let connect = |_| TcpStream::connect_timeout(&target, Duration::from_secs(1));
                let crowd: Vec<_> = (0..30).filter_map(|index| connect(index).ok()).collect();
                std::thread::sleep(Duration::from_millis(500));
                drop(crowd);
            });
            prlimit(process, Resource::Nofile, limit).unwrap();
            exhaustions.add(began, Instant::now() + Duration::from_millis(500));
        }
    }
}

/// What is in use at the end is what was in use when all had begun: no more than chance makes it.
fn check_flat(samples: &[[Holdings; 2]]) {
    let quarter = samples.len() / 4;
    let typical = |samples: &[[Holdings; 2]], process: usize| {
        let mut memory: Vec<_> = samples.iter().map(|sample| sample[process].memory_kib).collect();
        memory.sort_unstable();
        memory[memory.len() / 2]
    };
    for (process, name) in ["proxy", "daemon"].into_iter().enumerate() {
        let (early, late) =
            (typical(&samples[quarter..2 * quarter], process), typical(&samples[3 * quarter..], process));
        println!("memory of the {name}: {early} KiB in the second quarter, {late} KiB in the last");
        assert!(late <= early + early / 10 + 2_048, "the memory of the {name} grows: {early} to {late} KiB");
    }
}

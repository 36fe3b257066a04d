//! Proxies that are killed under load.

use super::fresh::{Attempt, Fresh};
use super::site::Site;
use super::{chance, number, print_times};
use crate::node::Node;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringlb_load::{LoadOptions, Workload};
use rustix::process::{PidfdFlags, pidfd_open};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// The networks whose proxies are killed, in turn; and one more, whose proxy is not.
const VICTIMS: u8 = 4;
/// Fresh connections a second to each network.
const RATE: u32 = 50;
/// A proxy that lives shorter than a second is taken for one that does not work.
const LIFE: Duration = Duration::from_millis(1_100);

struct Kill {
    site: usize,
    killed: Instant,
    gone: Instant,
}

/// Proxies are killed again and again under load. Each time the network's open connections end and nothing else: whoever connects
/// while there is no proxy waits, and is served by the next one; other networks do not notice.
#[test]
fn a_proxy_that_is_killed_again_and_again_costs_its_own_connections() {
    let mut chance = chance();
    let kills: usize = number("RINGLB_KILLS", 200);
    let node = Node::start();
    let sites: Vec<_> = (1..=VICTIMS + 1).map(|number| Site::make(&node, number)).collect();
    sites.iter().for_each(|site| site.service(&node, "web", 0));
    let (victims, bystander) = sites.split_at(usize::from(VICTIMS));
    let loads: Vec<_> = sites.iter().map(|site| Fresh::start(&site.client, site.target(0), RATE, 4)).collect();
    let mut options = LoadOptions::new(vec![bystander[0].target(0)], Workload::Pingpong { size_bytes: 1 });
    (options.connections, options.rate) = (8, Some(80.0));
    let steady = bystander[0].client.load(options);

    let mut held: Vec<_> = victims.iter().map(hold).collect();
    let mut alive_since = vec![Instant::now(); victims.len()];
    let (mut done, mut probes, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..kills {
        let index = round % victims.len();
        let site = &victims[index];
        let moment = alive_since[index] + LIFE + Duration::from_millis(chance.u64(..50));
        std::thread::sleep(moment.saturating_duration_since(Instant::now()));
        let pid = site.proxy(&node);
        held.iter_mut().for_each(|stream| assert!(echoes(stream), "a connection of another network has ended"));
        let (kill, attempts) = kill_and_probe(index, pid, site);
        times.push(attempts.last().unwrap().ended - kill.killed);
        assert!(!echoes(&mut held[index]), "the connection goes on without its proxy");
        held[index] = hold(site);
        alive_since[index] = Instant::now();
        done.push(kill);
        probes.extend(attempts.into_iter().map(|attempt| (index, attempt)));
    }
    let attempts =
        loads.into_iter().enumerate().flat_map(|(site, load)| load.stop().into_iter().map(move |one| (site, one)));
    let attempts: Vec<_> = attempts.chain(probes).collect();
    let failed = attempts.iter().filter(|(_, attempt)| attempt.outcome.is_err());
    for (site, attempt) in failed.clone() {
        let its_own = |kill: &Kill| kill.site == *site && attempt.began <= kill.gone && attempt.ended >= kill.killed;
        assert!(done.iter().any(its_own), "{attempt:?} to network {site} has met no proxy that was killed");
        let cut = [Err(ErrorKind::ConnectionReset), Err(ErrorKind::UnexpectedEof), Err(ErrorKind::BrokenPipe)];
        assert!(cut.contains(&attempt.outcome), "{attempt:?}");
    }
    steady.stop();
    let report = steady.join().unwrap();
    assert_eq!((report.failures, report.connections_opened), (0, report.connections), "{report}");
    let status = node.admin().get("/v1/status");
    for (index, site) in sites.iter().enumerate() {
        let restarts = done.iter().filter(|kill| kill.site == index).count();
        assert_eq!(site.of(&status)["proxy"]["restarts"], restarts);
    }
    println!("{kills} proxies killed; {} connections, {} of them ended by that", attempts.len(), failed.count());
    print_times("from the kill to the first connection served", &mut times);
    let elsewhere = attempts.iter().filter(|(site, _)| *site == victims.len());
    print_times(
        "connections to the other network",
        &mut elsewhere.map(|(_, one)| one.ended - one.began).collect::<Vec<_>>(),
    );
}

/// Kills a proxy and connects until that is served. A connection may still be taken by the process that dies.
fn kill_and_probe(site: usize, pid: i32, at: &Site) -> (Kill, Vec<Attempt>) {
    let process = pidfd_open(rustix::process::Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    let target = at.target(0);
    let mut attempts = Vec::new();
    let (killed, gone) = at.client.run(|| {
        let killed = Instant::now();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        let gone = std::thread::scope(|scope| {
            let gone = scope.spawn(|| {
                poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
                Instant::now()
            });
            while attempts.last().is_none_or(|attempt: &Attempt| attempt.outcome.is_err()) {
                attempts.push(Attempt::make(target));
            }
            gone.join().unwrap()
        });
        (killed, gone)
    });
    (Kill { site, killed, gone }, attempts)
}

/// A connection that stays open.
fn hold(site: &Site) -> TcpStream {
    let mut stream = site.client.connect(site.target(0));
    assert!(echoes(&mut stream));
    stream
}

fn echoes(stream: &mut TcpStream) -> bool {
    let mut echo = [0];
    stream.write_all(b"x").and_then(|()| stream.read_exact(&mut echo)).is_ok() && echo == *b"x"
}

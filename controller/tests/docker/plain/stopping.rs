//! Containers that stop, pause, or are not healthy.

use super::{NETWORK, Plain, SERVER, backends};
use crate::daemon::Daemon;
use crate::image::{ENTRY_POINT, import_image};
use crate::lasting::Lasting;
use crate::load::SteadyLoad;
use crate::requests::{ask, ask_all, wait_for_servers};
use crate::wait::wait_until;
use crate::wire::port_of;
use std::time::{Duration, SystemTime};

/// New connections a second.
const RATE: u32 = 100;
const LABELS: [&str; 2] = ["ringlb.service=web", "ringlb.publish=8080:80"];
/// As servers do that finish what they have.
const POLITE: [&str; 5] = ["serve", "--listen", "0.0.0.0:80", "--stop-after", "1500ms"];

#[test]
fn stopping_containers_one_after_the_other_fails_no_request() {
    let plain = Plain::start();
    let engine = &plain.engine;
    let run = |name| plain.run_with(name, &LABELS, &["--network", NETWORK], &POLITE);
    let servers: Vec<String> = ["one", "two", "three"].map(run).into();
    let client = plain.client();
    let daemon = plain.daemon();
    let vip = plain.target(&daemon, "web", 80);
    wait_for_servers(&client, vip, &servers);
    wait_for_servers(plain.outside(), port_of(1, 8080), &servers);
    let lasting = Lasting::open(&client, vip, &servers, 2);
    let loads = [SteadyLoad::start(&client, vip, RATE), SteadyLoad::start(plain.outside(), port_of(1, 8080), RATE)];
    wait_until("there is load", || loads.iter().all(|load| load.answered() > 100));
    let began = SystemTime::now();
    for (name, server) in ["one", "two"].iter().zip(&servers) {
        let mut stop = engine.cli().args(["stop", "--time", "30", name]).spawn().unwrap();
        wait_until("it drains while it goes on", || draining(&daemon) == 1);
        assert!(stop.wait().unwrap().success());
        wait_until("it is no backend any more", || {
            let addresses = backends(&daemon, "shop.web").len();
            addresses == 3 - servers.iter().take_while(|other| *other != server).count() - 1
        });
    }
    engine.docker(&["start", "one", "two"]);
    wait_for_servers(&client, vip, &servers);
    let answered = loads.each_ref().map(SteadyLoad::answered);
    wait_until("the load goes on", || loads.iter().zip(answered).all(|(load, before)| load.answered() > before + 100));
    for load in loads {
        let record = load.stop();
        println!("{record}");
        record.assert_no_failure();
    }
    // Connections to it went on until it ended.
    let ends = lasting.close();
    let events = engine.container_events(began);
    assert!(servers[..2].iter().all(|server| ends.iter().any(|end| end.server == *server)), "{ends:?}");
    for end in ends {
        let died = events.iter().find(|event| event.container == end.server && event.action == "die");
        let died = died.unwrap_or_else(|| panic!("{end:?} and no end of its server: {events:#?}")).time;
        // The server's end is a little before that of its container.
        assert!(end.time + Duration::from_millis(700) > died, "{end:?}, died {died:?}");
    }
}

/// Whether it is healthy is what another container on the network decides: one that answers at that address.
#[test]
fn a_container_with_a_health_check_counts_while_it_is_healthy() {
    const JUDGE: &str = "10.77.0.50";
    let plain = Plain::start();
    let engine = &plain.engine;
    let check = format!(
        r#"HEALTHCHECK --interval=300ms --timeout=1s --retries=1 CMD ["/ringlb-load", "tcp", "{JUDGE}:80", "--requests", "1", "--connections", "1", "--quiet", "--fail-on-error"]"#
    );
    import_image(engine, "ringlb-checked", &[ENTRY_POINT, &check]);
    let always = plain.run("always", &["ringlb.service=web"]);
    let client = plain.client();
    let daemon = plain.daemon();
    let vip = plain.target(&daemon, "web", 80);
    let fixed = ["run", "--detach", "--cap-add", "IPC_LOCK", "--name", "judged", "--label", "ringlb.service=web"];
    let id = engine.docker(&[&fixed[..], &["--network", NETWORK, "ringlb-checked"], &SERVER].concat());
    let both = [always.clone(), id[..12].to_owned()];
    let judged = engine.namespace_of("judged");
    wait_until("the container listens", || ask(&judged, "127.0.0.1:80".parse().unwrap()).is_ok());
    wait_until("it is not healthy", || engine.docker(&["ps"]).contains("unhealthy"));
    assert_eq!(ask_all(&client, vip, 20).into_keys().collect::<Vec<_>>(), both[..1]);

    plain.run_with("judge", &[], &["--network", NETWORK, "--ip", JUDGE], &SERVER);
    wait_for_servers(&client, vip, &both);
    let lasting = Lasting::open(&client, vip, &both, 2);
    engine.docker(&["pause", "judge"]);
    wait_until("it gets nothing new", || draining(&daemon) == 1);
    assert_eq!(ask_all(&client, vip, 20).into_keys().collect::<Vec<_>>(), both[..1]);
    engine.docker(&["unpause", "judge"]);
    wait_for_servers(&client, vip, &both);

    // A paused container answers nobody, and may go on.
    engine.docker(&["pause", "always"]);
    wait_until("it gets nothing new", || draining(&daemon) == 1);
    assert_eq!(ask_all(&client, vip, 20).into_keys().collect::<Vec<_>>(), both[1..]);
    engine.docker(&["unpause", "always"]);
    wait_for_servers(&client, vip, &both);
    let ends = lasting.close();
    assert!(ends.is_empty(), "{ends:?}");
}

fn draining(daemon: &Daemon) -> usize {
    backends(daemon, "shop.web").iter().filter(|backend| backend["drain"] == true).count()
}

use super::super::view::{ClusterService, InspectedPort, InspectedService, InspectedTask};
use super::*;
use crate::model::{Families, ObservedNetwork, ObservedService};
use proptest::prelude::*;
use ringlb_proxy::control::message::{Port, Protocol, PublishedPort};
use std::path::PathBuf;

const SECOND: Duration = Duration::from_secs(1);

/// A state with its clock, a network `net` and an ingress network, both with a sandbox.
struct Scene {
    state: State,
    now: Instant,
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn task(last: u8) -> IpAddr {
    address(&format!("10.0.1.{last}"))
}

fn inspected(ingress: bool, services: &[(&str, &str, &[u8])]) -> InspectedNetwork {
    let services = services.iter().map(|(name, vip, tasks)| {
        let tasks =
            tasks.iter().map(|last| (task(*last), InspectedTask { id: format!("{name}{last}"), local: *last < 10 }));
        let ports = if ingress { vec![InspectedPort { published: 8080, target: 80 }] } else { Vec::new() };
        ((*name).to_owned(), InspectedService { vip: address(vip), ports, tasks: tasks.collect() })
    });
    InspectedNetwork {
        name: if ingress { "ingress" } else { "Net" }.to_owned(),
        ingress,
        subnet: Families::from("10.0.1.0/24".parse::<ipnet::IpNet>().unwrap()),
        lb_address: Families::from(address("10.0.1.250")),
        services: services.collect(),
    }
}

fn sandbox(inode: u64) -> SandboxFile {
    SandboxFile { path: PathBuf::from("/lb_net"), identity: (4, inode) }
}

impl Scene {
    fn new() -> Self {
        let mut scene = Self { state: State::new(), now: Instant::now() };
        let network =
            |id: &str, name: &str, ingress| ListedNetwork { id: id.to_owned(), name: name.to_owned(), ingress };
        scene.state.listed(&[network("net", "Net", false), network("in", "ingress", true)]);
        scene.state.sandbox("net", scene.now, Some(sandbox(1)));
        scene
    }

    fn pass(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    fn inspect(&mut self, services: &[(&str, &str, &[u8])]) -> &mut Self {
        self.pass(Duration::from_millis(20));
        self.state.inspected("net", self.now, Some(inspected(false, services)));
        self
    }

    fn inspect_ingress(&mut self, services: &[(&str, &str, &[u8])]) -> &mut Self {
        self.state.sandbox("in", self.now, Some(sandbox(2)));
        self.pass(Duration::from_millis(20));
        self.state.inspected("in", self.now, Some(inspected(true, services)));
        self
    }

    fn answer(&mut self, service: &str, tasks: Option<&[u8]>) -> &mut Self {
        self.pass(Duration::from_millis(20));
        let addresses = tasks.map(|tasks| tasks.iter().map(|last| task(*last)).collect());
        self.state.answered("net", service, self.now, addresses);
        self
    }

    fn network(&mut self, name: &str) -> Option<ObservedNetwork> {
        self.state.derive(self.now).networks.into_iter().find(|network| &*network.name == name)
    }

    fn service(&mut self, network: &str, name: &str) -> Option<ObservedService> {
        self.network(network)?.services.into_iter().find(|service| &*service.name == name)
    }

    /// The backends of `web`, those that drain with a `-`; `none` if there is no such service.
    fn web(&mut self) -> String {
        self.backends("net", "web")
    }

    fn backends(&mut self, network: &str, name: &str) -> String {
        let Some(service) = self.service(network, name) else { return "none".to_owned() };
        let backends = service.backends.iter().map(|backend| {
            let last = backend.address.to_string().rsplit('.').next().unwrap_or_default().to_owned();
            if backend.draining { format!("-{last}") } else { last }
        });
        backends.collect::<Vec<_>>().join(" ")
    }
}

const VIP: &str = "10.0.1.2";

#[test]
fn a_task_is_served_as_soon_as_either_shows_it() {
    let mut scene = Scene::new();
    assert_eq!(scene.inspect(&[("web", VIP, &[3])]).web(), "3");
    assert_eq!(scene.answer("web", Some(&[3, 14])).web(), "3 14");
    assert_eq!(scene.inspect(&[("web", VIP, &[3, 5, 14])]).web(), "3 5 14", "no answer since then says otherwise");
    let network = scene.network("net").unwrap();
    assert_eq!(network.sandbox.unwrap().identity, (4, 1));
    let local: Vec<_> = network.services[0].backends.iter().map(|backend| backend.local).collect();
    assert_eq!(local, [true, true, false]);
}

#[test]
fn a_task_that_is_not_named_drains_and_is_gone_with_its_end() {
    let mut scene = Scene::new();
    scene.inspect(&[("web", VIP, &[3, 4])]).answer("web", Some(&[3, 4]));
    assert_eq!(scene.answer("web", Some(&[3])).web(), "3 -4");
    assert_eq!(scene.inspect(&[("web", VIP, &[3, 4])]).web(), "3 -4");
    assert_eq!(scene.inspect(&[("web", VIP, &[3])]).web(), "3");
}

#[test]
fn a_task_that_vanishes_at_once_is_suspended_and_forgotten_later() {
    let mut scene = Scene::new();
    scene.inspect(&[("web", VIP, &[3, 4])]).answer("web", Some(&[3, 4]));
    assert_eq!(scene.answer("web", Some(&[3])).inspect(&[("web", VIP, &[3])]).web(), "3 -4");
    assert_eq!(scene.pass(HOLD_DOWN - SECOND).web(), "3 -4");
    assert_eq!(scene.pass(SECOND * 2).web(), "3");
    let mut healed = Scene::new();
    healed.inspect(&[("web", VIP, &[3, 4])]).answer("web", Some(&[3, 4]));
    assert_eq!(healed.inspect(&[("web", VIP, &[3])]).answer("web", Some(&[3])).web(), "3 -4");
    assert_eq!(healed.pass(SECOND * 20).inspect(&[("web", VIP, &[3, 4])]).answer("web", Some(&[3, 4])).web(), "3 4");
}

#[test]
fn a_dns_that_does_not_answer_says_nothing() {
    let mut scene = Scene::new();
    scene.inspect(&[("web", VIP, &[3, 4])]).answer("web", Some(&[3]));
    assert_eq!(scene.answer("web", None).web(), "3 -4");
    // After a while what it said last does not count either.
    assert_eq!(scene.pass(ANSWER_LIFE).web(), "3 4");
}

#[test]
fn a_service_that_vanishes_keeps_its_vip_unless_it_is_removed() {
    let mut scene = Scene::new();
    scene.inspect(&[("web", VIP, &[])]);
    assert_eq!(scene.inspect(&[]).web(), "");
    assert_eq!(scene.pass(HOLD_DOWN + SECOND).web(), "none");
    scene.inspect(&[("web", VIP, &[3])]).inspect(&[]);
    let now = scene.pass(SECOND).now;
    scene.state.cluster(now, Cluster::default());
    assert_eq!(scene.web(), "none");
}

#[test]
fn the_newest_service_has_a_vip_and_an_address() {
    let mut scene = Scene::new();
    scene.inspect(&[("web", VIP, &[3, 4])]);
    scene.inspect(&[("shop", VIP, &[4])]);
    assert_eq!(scene.backends("net", "shop"), "4");
    assert_eq!(scene.web(), "none");
    scene.inspect(&[("shop", "10.0.1.9", &[4])]);
    assert_eq!(scene.web(), "-3");
}

#[test]
fn a_manager_tells_what_stops_and_what_is_over() {
    let mut scene = Scene::new();
    scene.inspect(&[("web", VIP, &[3, 4, 5])]).answer("web", Some(&[3, 4, 5]));
    let phases = |phases: &[(&str, TaskPhase)]| phases.iter().map(|(id, phase)| ((*id).to_owned(), *phase)).collect();
    let facts = ServiceFacts { id: "w".into(), name: "web".into(), labels: BTreeMap::new(), ports: Vec::new() };
    let cluster = |tasks| Cluster {
        services: vec![ClusterService {
            facts: facts.clone(),
            vips: BTreeMap::from([("net".to_owned(), address(VIP))]),
        }],
        tasks,
    };
    use TaskPhase::{Over, Stopping, Wanted};
    let now = scene.pass(SECOND).now;
    scene.state.cluster(now, cluster(phases(&[("web3", Wanted), ("web4", Stopping), ("web5", Over)])));
    assert_eq!(scene.web(), "3 -4 -5");
    scene.answer("web", Some(&[3])).inspect(&[("web", VIP, &[3])]);
    assert_eq!(scene.web(), "3 -4", "the one that is over is not held, the other may be cut off");
    assert_eq!(scene.inspect(&[]).web(), "3 -4", "the DNS has named it a moment ago");
    assert_eq!(scene.pass(ANSWER_LIFE).web(), "-3 -4");
    assert_eq!(scene.pass(HOLD_DOWN).web(), "", "a manager knows its VIP");
}

#[test]
fn ports_have_a_protocol_if_a_manager_tells() {
    let mut scene = Scene::new();
    scene.inspect_ingress(&[("web", VIP, &[3])]);
    let port = |protocol| PublishedPort { published: Port { protocol, number: 8080 }, target: 80 };
    assert_eq!(scene.service("ingress", "web").unwrap().published, [port(Protocol::Tcp), port(Protocol::Udp)]);
    let labels =
        BTreeMap::from([("ringlb.weight".to_owned(), "5".to_owned()), ("ringlb.nothing".to_owned(), String::new())]);
    let facts = ServiceFacts { id: "w".into(), name: "web".into(), labels, ports: vec![port(Protocol::Udp)] };
    let now = scene.now;
    scene.state.facts(now, Some(&Arc::new(Facts { services: vec![facts] })));
    let web = scene.service("ingress", "web").unwrap();
    assert_eq!((web.published.as_slice(), web.backends[0].weight.0), ([port(Protocol::Udp)].as_slice(), 5));
    let outcome = scene.state.derive(now);
    assert_eq!(outcome.invalid_labels[0].label, "ringlb.nothing");
}

#[test]
fn a_task_drains_on_ingress_when_another_networks_dns_says_so() {
    let mut scene = Scene::new();
    scene.inspect(&[("web", VIP, &[3, 4])]).inspect_ingress(&[("web", VIP, &[3, 4])]).answer("web", Some(&[3, 4]));
    assert_eq!(scene.backends("ingress", "web"), "3 4");
    assert_eq!(scene.answer("web", Some(&[4])).backends("ingress", "web"), "-3 4");
}

#[test]
fn a_task_that_was_killed_is_over_on_all_networks() {
    let mut scene = Scene::new();
    scene.inspect(&[("web", VIP, &[3, 4])]).inspect_ingress(&[("web", VIP, &[3, 4])]).answer("web", Some(&[3, 4]));
    let now = scene.now;
    scene.state.task_ended(now, "web4".to_owned());
    assert_eq!((scene.web().as_str(), scene.backends("ingress", "web").as_str()), ("3 -4", "3 -4"));
    scene.answer("web", Some(&[3])).inspect(&[("web", VIP, &[3])]);
    assert_eq!((scene.web().as_str(), scene.backends("ingress", "web").as_str()), ("3", "3 -4"), "not looked at yet");
    scene.pass(HOLD_DOWN * 2);
    assert_eq!(scene.backends("ingress", "web"), "3 -4");
    assert_eq!(scene.inspect_ingress(&[("web", VIP, &[3])]).backends("ingress", "web"), "3");
}

/// The DNS and one network have shown that it stopped; the ingress network has not been looked at since.
#[test]
fn a_task_that_is_gone_from_one_network_stays_drained_on_ingress() {
    let mut scene = Scene::new();
    scene.inspect(&[("web", VIP, &[3, 4])]).inspect_ingress(&[("web", VIP, &[3, 4])]).answer("web", Some(&[3, 4]));
    scene.answer("web", Some(&[3])).inspect(&[("web", VIP, &[3, 4])]).inspect(&[("web", VIP, &[3])]);
    assert_eq!((scene.web().as_str(), scene.backends("ingress", "web").as_str()), ("3", "3 -4"));
}

#[test]
fn an_engine_that_has_just_started_forgets_nothing() {
    let mut scene = Scene::new();
    scene.inspect(&[("web", VIP, &[3, 14])]).answer("web", Some(&[3, 14]));
    let now = scene.pass(SECOND).now;
    scene.state.engine_started(now);
    assert_eq!(scene.inspect(&[("web", VIP, &[3])]).pass(ANSWER_LIFE).answer("web", Some(&[3])).web(), "3 -14");
    assert_eq!(scene.pass(HOLD_DOWN - SECOND * 5).web(), "3 -14");
}

#[test]
fn a_sandbox_that_is_to_be_found_elsewhere_stays_the_same() {
    let mut scene = Scene::new();
    scene.inspect(&[("web", VIP, &[3])]);
    let now = scene.pass(SECOND).now;
    let moved = SandboxFile { path: PathBuf::from("/proc/7/root/lb_net"), ..sandbox(1) };
    scene.state.sandbox("net", now, Some(moved.clone()));
    let sandbox = scene.network("net").unwrap().sandbox.expect("its address is known");
    assert_eq!((sandbox.path, sandbox.identity), (moved.path, moved.identity));
}

#[test]
fn a_network_without_a_sandbox_stays_for_a_while() {
    let mut scene = Scene::new();
    scene.inspect(&[("web", VIP, &[3])]);
    let now = scene.pass(SECOND).now;
    scene.state.sandbox("net", now, None);
    assert_eq!(scene.network("net").unwrap().sandbox, None);
    scene.pass(SECOND);
    let now = scene.now;
    scene.state.sandbox("net", now, Some(sandbox(9)));
    assert_eq!(scene.network("net").unwrap().sandbox, None, "its address is not known yet");
    scene.inspect(&[("web", VIP, &[3])]);
    assert_eq!(scene.network("net").unwrap().sandbox.unwrap().identity, (4, 9));
    let now = scene.now;
    scene.state.sandbox("net", now, None);
    assert!(scene.pass(HOLD_DOWN * 2).network("net").is_none());
}

#[derive(Debug, Clone)]
enum Step {
    Inspect(Vec<(usize, u8, Vec<u8>)>),
    Answer(usize, Option<Vec<u8>>),
    Ended(usize, u8),
    Started,
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let service = (0..3usize, 200..203u8, prop::collection::vec(3..8u8, 0..4));
    let inspect = prop::collection::vec(service, 0..3).prop_map(Step::Inspect);
    let answer = (0..3usize, prop::option::of(prop::collection::vec(3..8u8, 1..4)));
    let step = prop_oneof![
        4 => inspect,
        4 => answer.prop_map(|(service, tasks)| Step::Answer(service, tasks)),
        1 => (0..3usize, 3..8u8).prop_map(|(service, task)| Step::Ended(service, task)),
        1 => Just(Step::Started),
        2 => (0..40_000u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..25)
}

const NAMES: [&str; 3] = ["web", "shop", "mail"];

proptest! {
    /// In whatever order observations come: nothing is there twice, and nothing stays that nobody has shown for long.
    #[test]
    fn any_order_of_observations_gives_a_valid_state(steps in steps()) {
        let mut scene = Scene::new();
        for step in steps {
            match step {
                Step::Inspect(services) => {
                    let vips: Vec<_> = services.iter().map(|(_, vip, _)| format!("10.0.1.{vip}")).collect();
                    let services: Vec<_> = services.iter().zip(&vips)
                        .map(|((name, _, tasks), vip)| (NAMES[*name], vip.as_str(), tasks.as_slice())).collect();
                    scene.inspect(&services);
                }
                Step::Answer(service, tasks) => { scene.answer(NAMES[service], tasks.as_deref()); }
                Step::Ended(service, task) => {
                    let now = scene.now;
                    scene.state.task_ended(now, format!("{}{task}", NAMES[service]));
                }
                Step::Started => { let now = scene.now; scene.state.engine_started(now); }
                Step::Pass(milliseconds) => { scene.pass(Duration::from_millis(milliseconds)); }
            }
            let outcome = scene.state.derive(scene.now);
            for network in &outcome.networks {
                let (mut names, mut addresses, mut ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
                for service in &network.services {
                    prop_assert!(names.insert(service.name.clone()));
                    for vip in service.vip.iter() {
                        prop_assert!(addresses.insert(*vip));
                    }
                    for backend in &service.backends {
                        prop_assert!(addresses.insert(backend.address));
                    }
                    for port in &service.published {
                        prop_assert!(ports.insert(port.published));
                    }
                }
            }
            let again = scene.state.derive(scene.now);
            prop_assert_eq!(again.networks, outcome.networks);
        }
        scene.inspect(&[]).pass(ANSWER_LIFE + SECOND);
        scene.state.derive(scene.now);
        scene.pass(HOLD_DOWN + SECOND);
        scene.state.derive(scene.now);
        prop_assert!(scene.network("net").unwrap().services.is_empty());
    }
}

use crate::programs::{attach_another, programs_at};
use crate::support::{Stack, ip, iproute2, is_silent, ping, plan};
use crate::unprivileged::is_real_root;
use ringlb_netns::{Fabric, Namespace, NetworkPlan};

const CONTAINERS: [(&str, &str, &str); 2] = [("one", "10.77.0.11", "fd77::11"), ("two", "10.77.0.12", "fd77::12")];

/// Two containers whose packets go past the bridge.
struct Network {
    plan: NetworkPlan,
    fabric: Fabric,
    containers: Vec<Namespace>,
}

impl Network {
    /// `None` where the kernel cannot.
    async fn new(test: &str) -> Option<Self> {
        if !kernel_has_tcx() {
            return None;
        }
        let plan = NetworkPlan { subnets: Stack::Dual.subnets(), ..plan(test) };
        let fabric = Fabric::ensure(&plan).await.unwrap();
        let mut network = Self { plan, fabric, containers: containers(test) };
        network.fabric.take_shortcuts().await.unwrap();
        connect(&network.fabric, &network.containers).await;
        Some(network)
    }

    /// Whether the first container reaches the second, by both families. With the bridge set down only shortcuts lead
    /// there, once the neighbours know each other.
    fn reach_each_other(&self) -> bool {
        let [(_, _, _), (_, v4, v6)] = CONTAINERS;
        ping(&self.containers[0], v4) && ping(&self.containers[0], v6)
    }

    /// Nobody has the packets any more that the bridge would have.
    fn are_silent(&self) -> bool {
        let [(_, _, _), (_, v4, v6)] = CONTAINERS;
        is_silent(&self.containers[0], v4) && is_silent(&self.containers[0], v6)
    }

    /// The numbers of the programs at each container's port.
    fn programs(&self) -> [Vec<u32>; 2] {
        CONTAINERS.map(|(name, ..)| programs_at(self.fabric.namespace(), name))
    }

    fn set_bridge(&self, state: &str) {
        iproute2(self.fabric.namespace(), &["link", "set", "br0", state]);
    }

    async fn remove(self) {
        self.fabric.remove().await.unwrap();
        self.plan.remove().unwrap();
        for container in self.containers {
            Namespace::remove(container.name().unwrap()).unwrap();
        }
    }
}

fn containers(test: &str) -> Vec<Namespace> {
    let container = |name| Namespace::create(&format!("ringlb-test-{test}-{name}")).unwrap();
    CONTAINERS.into_iter().map(|(name, ..)| container(name)).collect()
}

async fn connect(fabric: &Fabric, containers: &[Namespace]) {
    for ((name, v4, v6), container) in CONTAINERS.into_iter().zip(containers) {
        fabric.connect(name, container, "eth0", Stack::Dual.addresses(v4, v6)).await.unwrap();
    }
}

/// Linux 6.6 was the first with `tcx`.
pub(crate) fn kernel_has_tcx() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(6))
}

mod as_root {
    use super::*;

    #[tokio::test]
    async fn packets_go_past_the_bridge() {
        let Some(mut network) = Network::new("shortcuts").await else { return };
        assert!(network.reach_each_other());
        network.set_bridge("down");
        assert!(network.reach_each_other());

        // They are there without a daemon, and the next one's take their places.
        let before = network.programs();
        assert!(before.iter().all(|programs| programs.len() == 1), "{before:?}");
        network.fabric = Fabric::ensure(&network.plan).await.unwrap();
        network.set_bridge("down");
        assert!(network.reach_each_other());
        network.fabric.take_shortcuts().await.unwrap();
        assert!(network.reach_each_other());
        connect(&network.fabric, &network.containers).await;
        network.set_bridge("down");
        assert!(network.reach_each_other());
        let after = network.programs();
        assert!(after.iter().all(|programs| programs.len() == 1), "{after:?}");
        assert_ne!(before, after);
        network.remove().await;
    }

    #[tokio::test]
    async fn whoever_wishes_for_none_takes_those_away_that_are_there() {
        let Some(mut network) = Network::new("shortcuts-end").await else { return };
        assert!(network.reach_each_other());
        network.fabric = Fabric::ensure(&network.plan).await.unwrap();
        network.fabric.end_shortcuts().await.unwrap();
        assert_eq!(network.programs(), [[0; 0]; 2]);
        connect(&network.fabric, &network.containers).await;
        assert!(network.reach_each_other());
        network.set_bridge("down");
        assert!(network.are_silent());
        // There is nothing to take away any more.
        network.fabric.end_shortcuts().await.unwrap();
        network.remove().await;
    }

    #[tokio::test]
    async fn programs_of_others_stay() {
        let Some(mut network) = Network::new("shortcuts-programs").await else { return };
        let (name, ..) = CONTAINERS[0];
        let other = attach_another(network.fabric.namespace(), name, "other");
        let [ours, others] = network.programs()[0][..] else { panic!("{:?}", network.programs()) };
        assert_eq!(others, other);

        network.fabric = Fabric::ensure(&network.plan).await.unwrap();
        network.fabric.take_shortcuts().await.unwrap();
        connect(&network.fabric, &network.containers).await;
        let [next, others] = network.programs()[0][..] else { panic!("{:?}", network.programs()) };
        assert_eq!(others, other);
        assert_ne!(next, ours);
        network.fabric.end_shortcuts().await.unwrap();
        assert_eq!(network.programs()[0], [other]);
        network.fabric.take_shortcuts().await.unwrap();
        connect(&network.fabric, &network.containers).await;
        assert_eq!(network.programs().map(|programs| programs.len()), [2, 1]);
        assert!(network.reach_each_other());
        network.set_bridge("down");
        assert!(network.reach_each_other());
        network.remove().await;
    }

    /// One that has no map, or another kind of it.
    #[tokio::test]
    async fn a_program_of_another_version_is_replaced() {
        let Some(mut network) = Network::new("shortcuts-version").await else { return };
        network.fabric.end_shortcuts().await.unwrap();
        let bridge = network.fabric.namespace();
        let before = CONTAINERS.map(|(name, ..)| [attach_another(bridge, name, "ringlb_ports")]);
        assert_eq!(network.programs(), before);
        network.fabric.take_shortcuts().await.unwrap();
        assert!(network.reach_each_other());
        connect(&network.fabric, &network.containers).await;
        let after = network.programs();
        assert!(after.iter().all(|programs| programs.len() == 1), "{after:?}");
        assert!(after.iter().zip(&before).all(|(after, before)| after != before));
        network.set_bridge("down");
        assert!(network.reach_each_other());
        network.remove().await;
    }

    /// What the map says of a port that has gone meanwhile would lead to nobody.
    #[tokio::test]
    async fn what_was_left_of_ports_that_are_gone_is_forgotten() {
        let Some(mut network) = Network::new("shortcuts-gone").await else { return };
        assert!(network.reach_each_other());
        network.fabric = Fabric::ensure(&network.plan).await.unwrap();
        let (_, v4, v6) = CONTAINERS[1];
        iproute2(&network.containers[1], &["link", "delete", "eth0"]);
        network.fabric.take_shortcuts().await.unwrap();
        // Somebody else has the hardware address by now, where only the bridge leads to.
        let bridge = network.fabric.namespace();
        iproute2(bridge, &["link", "add", "own", "up", "master", "br0", "type", "veth", "peer", "name", "own-end"]);
        let other = &network.containers[1];
        iproute2(bridge, &["link", "set", "own-end", "address", "02:42:0a:4d:00:0c"]);
        iproute2(bridge, &["link", "set", "own-end", "netns", other.name().unwrap()]);
        for address in [format!("{v4}/24"), format!("{v6}/64")] {
            iproute2(other, &["address", "add", &address, "dev", "own-end", "nodad"]);
        }
        iproute2(other, &["link", "set", "own-end", "up"]);
        assert!(network.reach_each_other());
        network.remove().await;
    }

    /// A leg that nobody has connected again is known all the same.
    #[tokio::test]
    async fn a_leg_of_an_earlier_daemon_can_go() {
        let Some(mut network) = Network::new("shortcuts-leg").await else { return };
        assert!(network.reach_each_other());
        network.fabric = Fabric::ensure(&network.plan).await.unwrap();
        network.fabric.take_shortcuts().await.unwrap();
        let (name, v4, v6) = CONTAINERS[1];
        network.fabric.disconnect(name).await.unwrap();
        assert!(network.are_silent());
        // Without a shortcut: what was left of the one before would lead to nobody.
        let plain = Fabric::ensure(&network.plan).await.unwrap();
        plain.connect(name, &network.containers[1], "eth0", Stack::Dual.addresses(v4, v6)).await.unwrap();
        assert!(network.reach_each_other());
        network.remove().await;
    }

    #[tokio::test]
    async fn a_leg_that_is_made_anew_has_its_shortcut() {
        let Some(network) = Network::new("shortcuts-anew").await else { return };
        assert!(network.reach_each_other());
        let (name, v4, v6) = CONTAINERS[1];
        network.fabric.disconnect(name).await.unwrap();
        assert!(network.are_silent());
        connect(&network.fabric, &network.containers).await;
        assert!(network.reach_each_other());
        network.set_bridge("down");
        assert!(network.reach_each_other());

        // The port goes with the container's interface, without a word to the fabric.
        network.set_bridge("up");
        iproute2(&network.containers[1], &["link", "delete", "eth0"]);
        assert!(network.are_silent());
        let addresses = Stack::Dual.addresses(v4, v6);
        network.fabric.connect(name, &network.containers[1], "eth0", addresses).await.unwrap();
        assert!(network.reach_each_other());
        network.set_bridge("down");
        assert!(network.reach_each_other());
        network.remove().await;
    }

    /// The new port gets the address before the old one loses it.
    #[tokio::test]
    async fn an_address_that_moves_keeps_its_shortcut() {
        let Some(mut network) = Network::new("shortcuts-moves").await else { return };
        let (name, v4, v6) = CONTAINERS[1];
        let new = Namespace::create("ringlb-test-shortcuts-moves-new").unwrap();
        network.fabric.connect("new", &new, "eth0", Stack::Dual.addresses(v4, v6)).await.unwrap();
        network.fabric.disconnect(name).await.unwrap();
        network.containers.push(new);
        assert!(network.reach_each_other());
        network.set_bridge("down");
        assert!(network.reach_each_other());
        network.remove().await;
    }

    /// Whoever has put an interface of his own on the bridge, and broadcasts, are reached as ever.
    #[tokio::test]
    async fn what_has_no_shortcut_takes_the_bridge() {
        let Some(network) = Network::new("shortcuts-others").await else { return };
        let bridge = network.fabric.namespace();
        iproute2(bridge, &["link", "add", "own", "up", "master", "br0", "type", "veth", "peer", "name", "own-end"]);
        let other = Namespace::create("ringlb-test-shortcuts-others-three").unwrap();
        iproute2(bridge, &["link", "set", "own-end", "netns", other.name().unwrap()]);
        iproute2(&other, &["address", "add", "10.77.0.13/24", "dev", "own-end"]);
        iproute2(&other, &["link", "set", "own-end", "up"]);
        assert!(ping(&network.containers[0], "10.77.0.13") && ping(&other, CONTAINERS[1].1));
        network.set_bridge("down");
        assert!(is_silent(&network.containers[0], "10.77.0.13"));
        Namespace::remove(other.name().unwrap()).unwrap();
        network.remove().await;
    }
}

/// On older kernels, and for ordinary users, who may not use `bpf(2)`: an error, and the bridge as it was.
#[tokio::test]
async fn where_there_are_none_packets_take_the_bridge() {
    if is_real_root() && kernel_has_tcx() {
        return;
    }
    let plan = plan("shortcuts-none");
    let mut fabric = Fabric::ensure(&plan).await.unwrap();
    fabric.take_shortcuts().await.unwrap_err();
    let containers = containers("shortcuts-none");
    for ((name, v4, _), container) in CONTAINERS.into_iter().zip(&containers) {
        fabric.connect(name, container, "eth0", ip(v4)).await.unwrap();
    }
    assert!(ping(&containers[0], CONTAINERS[1].1));
    fabric.remove().await.unwrap();
    plan.remove().unwrap();
    for container in containers {
        Namespace::remove(container.name().unwrap()).unwrap();
    }
}

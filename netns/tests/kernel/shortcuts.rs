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
        network.fabric.take_shortcuts().unwrap();
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

        // The next daemon's are there before this one's are gone.
        let mut again = Fabric::ensure(&network.plan).await.unwrap();
        again.take_shortcuts().unwrap();
        connect(&again, &network.containers).await;
        network.set_bridge("down");
        assert!(network.reach_each_other());
        network.fabric = again;
        assert!(network.reach_each_other());

        // Without them the bridge has the packets.
        network.fabric = Fabric::ensure(&network.plan).await.unwrap();
        assert!(network.reach_each_other());
        network.set_bridge("down");
        assert!(network.are_silent());
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
    fabric.take_shortcuts().unwrap_err();
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

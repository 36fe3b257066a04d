//! What the kernel's balancer costs at a size, as Docker uses it.
//!
//! It is counted, not measured: from the code of libnetwork (`service_linux.go` of moby), which has for each service a
//! virtual service of IPVS, a rule that marks its packets, and a destination for each backend. Adding or removing a backend
//! takes two netlink requests, and enters the namespace and leaves it again. `docs/scaling.md` has the same seen on a real
//! Engine.

use super::results::{KernelBalancer, KernelCost};
use super::size::Size;

const REQUESTS: u64 = 2;
const SWITCHES: u64 = 2;

/// What it costs with so many containers of this node on each network.
pub(super) fn cost(size: Size, containers: u32) -> KernelBalancer {
    let objects = size.all_backends() + 2 * size.all_services();
    let in_namespaces = |count: u64| KernelCost {
        objects: objects * count,
        change_netlink_requests: REQUESTS * count,
        change_namespace_switches: SWITCHES * count,
    };
    KernelBalancer { per_sandbox: in_namespaces(1), per_container: in_namespaces(containers.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_container_had_all_of_it() {
        let size = Size { networks: 1, services: 100, backends: 10 };
        let cost = cost(size, 50);
        assert_eq!(cost.per_sandbox.objects, 1_000 + 100 + 100);
        assert_eq!(cost.per_container.objects, 50_000 + 5_000 + 5_000);
        assert_eq!((cost.per_sandbox.change_netlink_requests, cost.per_container.change_netlink_requests), (2, 100));
    }
}

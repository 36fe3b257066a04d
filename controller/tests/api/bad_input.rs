//! Bad input: each gets a problem document that names the field, and changes nothing.

use crate::support::schema::Description;
use crate::support::{Daemon, Response, read_response};
use serde_json::Value;
use std::io::Write;
use std::os::unix::net::UnixStream;

const STATE: &str = "
version: 1
networks:
- name: web
  subnet: 10.1.0.0/24
  services:
  - {name: api, vip: 10.1.0.200, backends: [{ip: 10.1.0.2}]}
";

/// A request, the status it must get, and the field and a part of the reason that must be named.
struct Case {
    method: &'static str,
    path: &'static str,
    body: &'static str,
    status: u16,
    field: &'static str,
    reason: &'static str,
}

const fn case(
    method: &'static str,
    path: &'static str,
    body: &'static str,
    status: u16,
    field: &'static str,
    reason: &'static str,
) -> Case {
    Case { method, path, body, status, field, reason }
}

const WEB: &str = "/v1/networks/web";
const API: &str = "/v1/networks/web/services/api";
const SERVICE: &str = "/v1/networks/web/services/new";
const BACKEND: &str = "/v1/networks/web/services/api/backends/10.1.0.3";

const CASES: &[Case] = &[
    // Published ports.
    case(
        "PUT",
        SERVICE,
        r#"{"published": {"port": 1}}"#,
        422,
        "networks.web.services.new.published",
        "expected a sequence",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"published": [8080]}"#,
        422,
        "networks.web.services.new.published[0]",
        "expected an object",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"published": [{"port": 8080}]}"#,
        422,
        "networks.web.services.new.published[0]",
        "missing field `target`",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"published": [{"port": 65536, "target": 80}]}"#,
        422,
        "networks.web.services.new.published[0].port",
        "expected u16",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"published": [{"port": 8080, "target": 0}]}"#,
        422,
        "networks.web.services.new.published",
        "ports are 1 to 65535",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"published": [{"port": 8080, "target": 80, "protocol": "sctp"}]}"#,
        422,
        "networks.web.services.new.published[0].protocol",
        "unknown variant `sctp`",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"published": [{"port": 8080, "target": 80, "host": 1}]}"#,
        422,
        "networks.web.services.new.published[0].host",
        "unknown field `host`",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"published": [{"port": 8080, "target": 80}, {"port": 8080, "target": 81}]}"#,
        422,
        "networks.web.services.new.published",
        "8080/tcp is listed twice",
    ),
    // Networks.
    case(
        "PUT",
        "/v1/networks/other",
        r#"{"subnet": "10.1.0.0/16"}"#,
        409,
        "networks.other.subnet",
        "overlaps 10.1.0.0/24 of network `web`",
    ),
    case(
        "PUT",
        "/v1/networks/other",
        r#"{"subnet": "fd00::/47"}"#,
        422,
        "networks.other.subnet",
        "not between /48 and /124",
    ),
    case(
        "PUT",
        "/v1/networks/other",
        r#"{"subnet": "fd00::/125"}"#,
        422,
        "networks.other.subnet",
        "not between /48 and /124",
    ),
    case("PUT", "/v1/networks/other", r#"{"subnet": "fe80::/64"}"#, 422, "networks.other.subnet", "link-local"),
    case("PUT", "/v1/networks/other", r#"{"subnet": "ff02::/64"}"#, 422, "networks.other.subnet", "multicast"),
    case("PUT", "/v1/networks/other", r#"{"subnet": "::/64"}"#, 422, "networks.other.subnet", "loopback"),
    case(
        "PUT",
        "/v1/networks/other",
        r#"{"subnet": "::ffff:10.2.0.0/112"}"#,
        422,
        "networks.other.subnet",
        "IPv4-mapped",
    ),
    case("PUT", "/v1/networks/other", r#"{"subnet": "fd00::1/64"}"#, 422, "networks.other.subnet", "host bits"),
    case("PUT", "/v1/networks/other", r#"{"subnet": []}"#, 422, "networks.other.subnet", "is an empty list"),
    case(
        "PUT",
        "/v1/networks/other",
        r#"{"subnet": ["10.2.0.0/16", "10.3.0.0/16"]}"#,
        422,
        "networks.other.subnet",
        "several IPv4 subnets",
    ),
    case(
        "PUT",
        "/v1/networks/other",
        r#"{"subnet": ["10.2.0.0/16", "fd00::"]}"#,
        422,
        "networks.other.subnet[1]",
        "CIDR notation",
    ),
    case(
        "PUT",
        "/v1/networks/other",
        r#"{"subnet": ["10.2.0.0/16", 6]}"#,
        422,
        "networks.other.subnet[1]",
        "CIDR notation",
    ),
    case(
        "PUT",
        "/v1/networks/other",
        r#"{"subnet": "10.2.0.0/16", "vip_prefix": "fd00::/66"}"#,
        422,
        "networks.other.vip_prefix",
        "no IPv6 subnet",
    ),
    case(
        "PUT",
        "/v1/networks/other",
        r#"{"subnet": ["10.2.0.0/16", "fd00::/64"], "vip_prefix": "fd01::/66"}"#,
        422,
        "networks.other.vip_prefix",
        "outside the subnet fd00::/64",
    ),
    case(
        "PUT",
        "/v1/networks/other",
        r#"{"subnet": ["fd00::/64", "10.1.0.0/16"]}"#,
        409,
        "networks.other.subnet",
        "10.1.0.0/16 overlaps 10.1.0.0/24 of network `web`",
    ),
    case("PUT", "/v1/networks/other", r#"{"subnet": "10.2.0.1/16"}"#, 422, "networks.other.subnet", "host bits"),
    case("PUT", "/v1/networks/other", r#"{"subnet": "10.2.0.0"}"#, 422, "networks.other.subnet", "CIDR notation"),
    case("PUT", "/v1/networks/other", r#"{"subnet": "10.2.0.0/33"}"#, 422, "networks.other.subnet", "CIDR notation"),
    case("PUT", "/v1/networks/other", r#"{"subnet": 10}"#, 422, "networks.other.subnet", "CIDR notation"),
    case(
        "PUT",
        "/v1/networks/other",
        r#"{"subnet": "10.2.0.0/16", "vip_prefix": "10.3.0.0/24"}"#,
        422,
        "networks.other.vip_prefix",
        "outside the subnet",
    ),
    case(
        "PUT",
        "/v1/networks/other",
        r#"{"subnet": "10.2.0.0/16", "vip_prefix": null}"#,
        422,
        "networks.other.vip_prefix",
        "null",
    ),
    case(
        "PUT",
        "/v1/networks/other",
        r#"{"subnet": "10.2.0.0/16", "mtu": 9000}"#,
        422,
        "networks.other.mtu",
        "unknown field `mtu`",
    ),
    case("PUT", "/v1/networks/other", r"{}", 422, "networks.other", "missing field `subnet`"),
    case("PUT", "/v1/networks/other", r"[]", 422, "networks.other", "expected an object"),
    case("PUT", "/v1/networks/other", r#"["10.2.0.0/16"]"#, 422, "networks.other", "expected an object"),
    case(
        "PUT",
        "/v1/networks/other",
        r#"{"subnet": "10.2.0.0/16", "subnet": "10.3.0.0/16"}"#,
        422,
        "networks.other",
        "duplicate field `subnet`",
    ),
    case("PUT", "/v1/networks/We!rd", r#"{"subnet": "10.2.0.0/16"}"#, 422, "networks.We!rd.name", "not a valid name"),
    case(
        "PUT",
        "/v1/networks/..%2f..%2fetc",
        r#"{"subnet": "10.2.0.0/16"}"#,
        422,
        "networks.../../etc.name",
        "not a valid name",
    ),
    case("PUT", "/v1/networks/%00", r#"{"subnet": "10.2.0.0/16"}"#, 422, "networks.\0.name", "not a valid name"),
    case(
        "PUT",
        "/v1/networks/%F0%9F%90%99",
        r#"{"subnet": "10.2.0.0/16"}"#,
        422,
        "networks.🐙.name",
        "not a valid name",
    ),
    case("PUT", WEB, r#"{"subnet": "10.9.0.0/24"}"#, 409, "networks.web.subnet", "remove them first"),
    case("DELETE", "/v1/networks/none", "", 404, "networks.none", "does not exist"),
    case("DELETE", WEB, "", 409, "networks.web", "remove_lb"),
    // Services.
    case("PUT", SERVICE, r#"{"vip": "10.2.0.1"}"#, 422, "networks.web.services.new.vip", "outside the subnet"),
    case("PUT", SERVICE, r#"{"vip": "10.1.0.0"}"#, 422, "networks.web.services.new.vip", "network address"),
    case("PUT", SERVICE, r#"{"vip": "10.1.0.255"}"#, 422, "networks.web.services.new.vip", "broadcast address"),
    case(
        "PUT",
        SERVICE,
        r#"{"vip": "10.1.0.200"}"#,
        409,
        "networks.web.services.new.vip",
        "already the VIP of service `api`",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"vip": "10.1.0.2"}"#,
        409,
        "networks.web.services.new.vip",
        "already the address of a backend",
    ),
    case("PUT", SERVICE, r#"{"vip": "fd00::1"}"#, 422, "networks.web.services.new.vip", "IPv6"),
    case("PUT", SERVICE, r#"{"vip": ["10.1.0.201", "fd00::1"]}"#, 422, "networks.web.services.new.vip", "IPv6"),
    case("PUT", SERVICE, r#"{"vip": "::ffff:10.1.0.201"}"#, 422, "networks.web.services.new.vip", "write 10.1.0.201"),
    case("PUT", SERVICE, r#"{"vip": "fe80::1"}"#, 422, "networks.web.services.new.vip", "link-local"),
    case("PUT", SERVICE, r#"{"vip": []}"#, 422, "networks.web.services.new.vip", "is an empty list"),
    case(
        "PUT",
        SERVICE,
        r#"{"vip": ["10.1.0.201", "x"]}"#,
        422,
        "networks.web.services.new.vip[1]",
        "not an IP address",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"vip": ["10.1.0.201", "10.1.0.202"]}"#,
        422,
        "networks.web.services.new.vip",
        "several IPv4 addresses",
    ),
    case("PUT", SERVICE, r#"{"vip": "10.1.0"}"#, 422, "networks.web.services.new.vip", "is not an IP address"),
    case("PUT", SERVICE, r#"{"algorithm": "random"}"#, 422, "networks.web.services.new.algorithm", "random"),
    case(
        "PUT",
        SERVICE,
        r#"{"algorithm": "Maglev"}"#,
        422,
        "networks.web.services.new.algorithm",
        "expected one of `rr`, `p2c`, `wrr`, `maglev`, `source-hash`",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"algorithm": "source_hash"}"#,
        422,
        "networks.web.services.new.algorithm",
        "unknown variant `source_hash`",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"drain_timeout": "soon"}"#,
        422,
        "networks.web.services.new.drain_timeout",
        "is not a drain timeout",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"drain_timeout": 30}"#,
        422,
        "networks.web.services.new.drain_timeout",
        "a duration such as",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"connect_timeout": "0s"}"#,
        422,
        "networks.web.services.new.connect_timeout",
        "is not a connect timeout",
    ),
    case("PUT", SERVICE, r#"{"retries": 11}"#, 422, "networks.web.services.new.retries", "a whole number from 0 to 10"),
    case(
        "PUT",
        SERVICE,
        r#"{"retry_budget": {"percent": -1}}"#,
        422,
        "networks.web.services.new.retry_budget.percent",
        "a whole number from 0 to 1000",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"retry_budget": [20, 10]}"#,
        422,
        "networks.web.services.new.retry_budget",
        "expected an object",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"retry_budget": {"percentage": 1}}"#,
        422,
        "networks.web.services.new.retry_budget.percentage",
        "unknown field `percentage`",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"drain_policy": "wait"}"#,
        422,
        "networks.web.services.new.drain_policy",
        "unknown variant `wait`",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"idle_timeout": "500ms"}"#,
        422,
        "networks.web.services.new.idle_timeout",
        "at least `1s`",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"max_lifetime": "1000h"}"#,
        422,
        "networks.web.services.new.max_lifetime",
        "is not a maximum lifetime",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"keepalive": {"idle": "10h"}}"#,
        422,
        "networks.web.services.new.keepalive.idle",
        "is not a keepalive time",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"keepalive": {"interval": "never"}}"#,
        422,
        "networks.web.services.new.keepalive.interval",
        "is not a keepalive interval",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"keepalive": {"probes": 0}}"#,
        422,
        "networks.web.services.new.keepalive.probes",
        "a whole number from 1 to 127",
    ),
    case("PUT", SERVICE, r#"{"user_timeout": 5}"#, 422, "networks.web.services.new.user_timeout", "a duration such as"),
    case(
        "PUT",
        SERVICE,
        r#"{"access_log": {"format": "xml"}}"#,
        422,
        "networks.web.services.new.access_log.format",
        "unknown variant `xml`",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"max_connections": -1}"#,
        422,
        "networks.web.services.new.max_connections",
        "a whole number from 0 to 10000000",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"access_log": {"sample": 0}}"#,
        422,
        "networks.web.services.new.access_log.sample",
        "a whole number from 1 to 1000000",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"max_connections_per_backend": "many"}"#,
        422,
        "networks.web.services.new.max_connections_per_backend",
        "a whole number from 0 to",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"max_connections_per_client": 10000001}"#,
        422,
        "networks.web.services.new.max_connections_per_client",
        "a whole number from 0 to",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"queue": {"length": 65536}}"#,
        422,
        "networks.web.services.new.queue.length",
        "a whole number from 0 to 65535",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"queue": {"timeout": "1ms"}}"#,
        422,
        "networks.web.services.new.queue.timeout",
        "is not a queue timeout",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"client_rate": {"per_second": 1.5}}"#,
        422,
        "networks.web.services.new.client_rate.per_second",
        "a whole number from 0 to",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"client_rate": {"burst": 0}}"#,
        422,
        "networks.web.services.new.client_rate.burst",
        "a whole number from 1 to",
    ),
    case("PUT", SERVICE, r#"{"client_rate": 5}"#, 422, "networks.web.services.new.client_rate", "an object"),
    case(
        "PUT",
        SERVICE,
        r#"{"allow": "10.0.0.0/8"}"#,
        422,
        "networks.web.services.new.allow",
        "a list of at most 10000 prefixes",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"allow": ["10.0.0.0/8", "10.0.0.0/33"]}"#,
        422,
        "networks.web.services.new.allow[1]",
        "is not a prefix",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"deny": ["10.0.0.1/8"]}"#,
        422,
        "networks.web.services.new.deny[0]",
        "write `10.0.0.0/8` for the prefix, `10.0.0.1` for the address",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"proxy_protocol": "v3"}"#,
        422,
        "networks.web.services.new.proxy_protocol",
        "unknown variant `v3`, expected one of `off`, `v1`, `v2`",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"accept_proxy_protocol": [true]}"#,
        422,
        "networks.web.services.new.accept_proxy_protocol[0]",
        "a prefix as text",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"proxy_protocol_timeout": "never"}"#,
        422,
        "networks.web.services.new.proxy_protocol_timeout",
        "is not a PROXY protocol timeout",
    ),
    case("PUT", SERVICE, r#"{"port": 80}"#, 422, "networks.web.services.new.port", "unknown field `port`"),
    case(
        "PUT",
        SERVICE,
        r#"{"backends": [{"ip": "10.1.0.5"}, {"ip": "10.1.0.5"}]}"#,
        422,
        "networks.web.services.new.backends.10.1.0.5",
        "listed twice",
    ),
    case(
        "PUT",
        SERVICE,
        r#"{"backends": [{"ip": "10.1.0.5", "weight": -1}]}"#,
        422,
        "networks.web.services.new.backends[0].weight",
        "a whole number from 0 to 65535",
    ),
    case("PUT", "/v1/networks/none/services/new", "{}", 404, "networks.none", "does not exist"),
    case("PUT", "/v1/networks/web/services/-x", "{}", 422, "networks.web.services.-x.name", "not a valid name"),
    case("DELETE", SERVICE, "", 404, "networks.web.services.new", "does not exist"),
    // Backends.
    case(
        "PUT",
        BACKEND,
        r#"{"weight": 65536}"#,
        422,
        "networks.web.services.api.backends.10.1.0.3.weight",
        "from 0 to 65535",
    ),
    case(
        "PUT",
        BACKEND,
        r#"{"weight": 99999999999999999999}"#,
        422,
        "networks.web.services.api.backends.10.1.0.3.weight",
        "from 0 to 65535",
    ),
    case(
        "PUT",
        BACKEND,
        r#"{"weight": -1}"#,
        422,
        "networks.web.services.api.backends.10.1.0.3.weight",
        "from 0 to 65535",
    ),
    case(
        "PUT",
        BACKEND,
        r#"{"weight": 1.5}"#,
        422,
        "networks.web.services.api.backends.10.1.0.3.weight",
        "from 0 to 65535",
    ),
    case(
        "PUT",
        BACKEND,
        r#"{"weight": "1"}"#,
        422,
        "networks.web.services.api.backends.10.1.0.3.weight",
        "from 0 to 65535",
    ),
    case(
        "PUT",
        BACKEND,
        r#"{"port": 80}"#,
        422,
        "networks.web.services.api.backends.10.1.0.3.port",
        "unknown field `port`",
    ),
    case(
        "PUT",
        "/v1/networks/web/services/api/backends/fd00::3",
        "{}",
        422,
        "networks.web.services.api.backends.fd00::3",
        "IPv6",
    ),
    case(
        "PUT",
        "/v1/networks/web/services/api/backends/10.2.0.3",
        "{}",
        422,
        "networks.web.services.api.backends.10.2.0.3",
        "outside the subnet",
    ),
    case(
        "PUT",
        "/v1/networks/web/services/api/backends/10.1.0.200",
        "{}",
        409,
        "networks.web.services.api.backends.10.1.0.200",
        "the VIP of service `api`",
    ),
    case(
        "PUT",
        "/v1/networks/web/services/api/backends/10.1.0.201",
        "{}",
        422,
        "networks.web.services.api.backends.10.1.0.201",
        "inside the VIP prefix",
    ),
    case(
        "PUT",
        "/v1/networks/web/services/api/backends/ten",
        "{}",
        422,
        "networks.web.services.api.backends.ten",
        "is not an IP address",
    ),
    case(
        "PUT",
        "/v1/networks/web/services/none/backends/10.1.0.3",
        "{}",
        404,
        "networks.web.services.none",
        "does not exist",
    ),
    case("DELETE", BACKEND, "", 404, "networks.web.services.api.backends.10.1.0.3", "does not exist"),
    case(
        "POST",
        "/v1/networks/web/services/api/backends/10.1.0.3/drain",
        "",
        404,
        "networks.web.services.api.backends.10.1.0.3",
        "does not exist",
    ),
    // Attachments.
    case(
        "PUT",
        "/v1/networks/web/attachments/c",
        r#"{"netns": "/run/netns/none"}"#,
        422,
        "networks.web.attachments.c.netns",
        "there is no network namespace",
    ),
    case(
        "PUT",
        "/v1/networks/web/attachments/c",
        r#"{"netns": "/etc/passwd"}"#,
        422,
        "networks.web.attachments.c.netns",
        "is not a network namespace",
    ),
    case(
        "PUT",
        "/v1/networks/web/attachments/c",
        r#"{"netns": "run/netns/c"}"#,
        422,
        "networks.web.attachments.c.netns",
        "not an absolute path",
    ),
    case(
        "PUT",
        "/v1/networks/web/attachments/c",
        r#"{"netns": ""}"#,
        422,
        "networks.web.attachments.c.netns",
        "is empty",
    ),
    case(
        "PUT",
        "/v1/networks/web/attachments/c",
        r#"{"netns": "/proc/self/ns/net", "ip": "10.1.0.210"}"#,
        422,
        "networks.web.attachments.c.ip",
        "inside the VIP prefix",
    ),
    case(
        "PUT",
        "/v1/networks/web/attachments/c",
        r#"{"netns": "/proc/self/ns/net", "ip": "10.9.0.1"}"#,
        422,
        "networks.web.attachments.c.ip",
        "outside the subnet",
    ),
    case("DELETE", "/v1/networks/web/attachments/c", "", 404, "networks.web.attachments.c", "does not exist"),
    // Whole states.
    case("POST", "/v1/upgrade", r#"{"drain_timeout": "25h"}"#, 422, "drain_timeout", "is not a drain timeout"),
    case("POST", "/v1/upgrade", r#"{"networks": []}"#, 422, "networks", "unknown field"),
    case("POST", "/v1/upgrade", r#"{"network": "none"}"#, 404, "networks.none", "does not exist"),
    case("POST", "/v1/apply", r#"{"version": 2, "networks": []}"#, 422, "version", "version 1"),
    case("POST", "/v1/apply", r#"{"networks": []}"#, 422, "(document)", "missing field `version`"),
    case(
        "POST",
        "/v1/apply",
        r#"{"version": 1, "networks": [{"name": "a", "subnet": "10.0.0.0/8"}, {"name": "b", "subnet": "10.0.0.0/24"}]}"#,
        409,
        "networks.b.subnet",
        "overlaps 10.0.0.0/8 of network `a`",
    ),
    case(
        "POST",
        "/v1/apply",
        r#"{"version": 1, "networks": [{"name": "a", "subnet": "10.0.0.0/8", "services": [{"name": "x", "bakends": []}]}]}"#,
        422,
        "networks[0].services[0].bakends",
        "unknown field `bakends`",
    ),
    case(
        "POST",
        "/v1/apply",
        r#"{"version": 1, "networks": [{"name": "web", "subnet": "10.1.0.0/24", "attachments": [{"name": "c", "netns": "/run/netns/none"}]}]}"#,
        422,
        "networks.web.attachments.c.netns",
        "there is no network namespace",
    ),
];

#[test]
fn each_gets_a_problem_that_names_the_field_and_changes_nothing() {
    let daemon = Daemon::start();
    assert_eq!(daemon.apply(STATE).status, 200);
    let before = daemon.status();
    let description = Description(daemon.done("GET", "/openapi.json", None));
    for Case { method, path, body, status, field, reason } in CASES {
        let response = daemon.http(method, path, Some(*body).filter(|body| !body.is_empty()));
        let what = format!("{method} {path} {body}: {response:#?}");
        assert_problem(&response, *status, &what);
        description
            .check_response(method, path, *status, &response.body)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let errors = response.body["errors"].as_array().unwrap_or_else(|| panic!("{what}"));
        let named =
            errors.iter().any(|error| error["field"] == *field && error["reason"].as_str().unwrap().contains(reason));
        assert!(named, "{what}\nshould name {field:?} with {reason:?}");
        assert_eq!(daemon.status(), before, "{what}");
    }
}

#[test]
fn what_is_no_document_is_malformed() {
    let daemon = Daemon::start();
    let json = "Content-Type: application/json\r\n";
    let yaml = "Content-Type: application/yaml\r\n";
    let deep = format!("{{\"subnet\": {}", "[".repeat(200_000));
    let bomb = "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c]\ne: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d]\nf: &f [*e, *e, *e, *e, *e, *e, *e, *e, *e]\ng: &g [*f, *f, *f, *f, *f, *f, *f, *f, *f]\nh: [*g, *g, *g, *g, *g, *g, *g, *g, *g]\n";
    let cases: [(&str, &str, &[u8], u16); 14] = [
        ("/v1/networks/a", json, b"{", 400),
        ("/v1/networks/a", json, b"{\"subnet\": \"10.0.0.0/8\"} x", 400),
        ("/v1/networks/a", json, b"\xff\xfe", 400),
        ("/v1/networks/a", json, b"", 400),
        ("/v1/networks/a", "Content-Type: application/x-www-form-urlencoded\r\n", b"subnet=10.0.0.0/8", 415),
        ("/v1/networks/a", yaml, b"subnet: 10.0.0.0/8", 415),
        ("/v1/networks/a?force=1", json, b"{\"subnet\": \"10.0.0.0/8\"}", 400),
        ("/v1/networks/%ff", json, b"{\"subnet\": \"10.0.0.0/8\"}", 400),
        ("/v1/apply", yaml, b"{", 400),
        ("/v1/apply", yaml, deep.as_bytes(), 400),
        ("/v1/apply", json, b"{\"version\": 1, \"networks\": [[\"web\", \"10.0.0.0/8\"]]}", 422),
        ("/v1/apply", yaml, b"version: 1\nversion: 1\nnetworks: []", 400),
        ("/v1/apply", yaml, b"\xff", 400),
        ("/v1/apply", yaml, bomb.as_bytes(), 400),
    ];
    for (path, headers, body, status) in cases {
        let method = if path == "/v1/apply" { "POST" } else { "PUT" };
        let response = daemon.http_with(method, path, headers, body);
        assert_problem(
            &response,
            status,
            &format!("{path} {:?}: {response:?}", String::from_utf8_lossy(&body[..body.len().min(60)])),
        );
    }
    assert_eq!(daemon.done("GET", "/v1/networks", None), Value::Array(Vec::new()));
}

/// What was sent is repeated in an answer, but not at any length.
#[test]
fn an_answer_is_short_whatever_was_sent() {
    let daemon = Daemon::start();
    let long = "x".repeat(1_000_000);
    let state =
        |field: &str| format!(r#"{{"version": 1, "networks": [{{"name": "a", "subnet": "10.0.0.0/8", {field}}}]}}"#);
    for body in [
        state(&format!(r#""{long}": 1"#)),
        state(&format!(r#""vip_prefix": "{long}""#)),
        state(&format!(r#""services": [{{"name": "{long}"}}]"#)),
        state(&format!(r#""services": [{{"name": "a", "algorithm": "{long}"}}]"#)),
        state(&format!(r#""attachments": [{{"name": "{}", "netns": "/{long}"}}]"#, "ä".repeat(400))),
        format!("\"{long}\""),
        long.clone(),
    ] {
        let response = daemon.http("POST", "/v1/apply", Some(&body));
        assert!(response.status == 422 || response.status == 400, "{}", response.status);
        assert!(response.body.to_string().len() < 4_000, "{:.300}", response.body.to_string());
    }
    let backends: Vec<_> = (0..1000).map(|_| r#"{"ip": "10.0.0.1"}"#).collect();
    let services: Vec<_> =
        (0..100).map(|n| format!(r#"{{"name": "{n}", "backends": [{}]}}"#, backends.join(","))).collect();
    let many = state(&format!(r#""services": [{}]"#, services.join(",")));
    let response = daemon.http("POST", "/v1/apply", Some(&many));
    assert_eq!((response.status, response.body["errors"].as_array().unwrap().len()), (422, 20));
}

#[test]
fn a_huge_body_is_refused_without_being_read() {
    let daemon = Daemon::start();
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = memory();
    let huge = vec![b' '; 100 * 1024 * 1024];
    let response = daemon.http_with("POST", "/v1/apply", "Content-Type: application/json\r\n", &huge);
    assert_problem(&response, 413, "100 MB with its length said");
    let chunked = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
    let mut body = format!("{:x}\r\n", huge.len()).into_bytes();
    body.extend_from_slice(&huge);
    body.extend_from_slice(b"\r\n0\r\n\r\n");
    let response = daemon.http_with("PUT", "/v1/networks/web", chunked, &body);
    assert_problem(&response, 413, "100 MB with its length not said");
    let grown = memory() - before;
    assert!(grown < 24 * 1024, "the daemon grew by {grown} KiB: the limit is 8 MiB");
    // Only the head: it must be answered although no body comes.
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    stream.write_all(b"POST /v1/apply HTTP/1.1\r\nHost: ringlb\r\nContent-Length: 104857600\r\n\r\n").unwrap();
    assert_problem(&read_response(&mut stream), 413, "100 MB announced");
}

#[test]
fn a_get_changes_nothing_and_other_methods_are_told_what_is_allowed() {
    let daemon = Daemon::start();
    assert_eq!(daemon.apply(STATE).status, 200);
    let before = daemon.status();
    let backend = "/v1/networks/web/services/api/backends/10.1.0.2";
    for (method, path, allowed) in [
        ("GET", "/v1/apply", "POST"),
        ("GET", "/v1/networks/web/services/api/backends/10.1.0.2/drain", "POST"),
        ("POST", "/v1/networks/web", "DELETE,GET,HEAD,PUT"),
        ("POST", backend, "DELETE,GET,HEAD,PUT"),
        ("PUT", "/v1/networks", "GET,HEAD"),
        ("DELETE", "/v1/status", "GET,HEAD"),
        ("PATCH", API, "DELETE,GET,HEAD,PUT"),
        ("PUT", "/healthz", "GET,HEAD"),
    ] {
        let response = daemon.http(method, path, None);
        assert_problem(&response, 405, &format!("{method} {path}: {response:?}"));
        let mut listed: Vec<_> = response.header("allow").unwrap().split(',').map(str::trim).collect();
        listed.sort_unstable();
        assert_eq!(listed.join(","), allowed, "{method} {path}");
        assert_eq!(daemon.status(), before);
    }
    // A body and a query do not turn a GET into something else.
    let with_body = daemon.http("GET", "/v1/networks/web", Some(r#"{"subnet": "10.9.0.0/24"}"#));
    assert_eq!(with_body.body["subnet"], "10.1.0.0/24");
    assert_problem(&daemon.http("GET", "/v1/networks/web?remove_lb=true", None), 400, "a query on GET");
    for path in ["/", "/v1", "/v1/networks/", "/v1/networks/web/", "/v2/networks", "/v1/networks//services", "/admin"] {
        assert_problem(&daemon.http("GET", path, None), 404, path);
    }
    assert_eq!(daemon.status(), before);
}

fn assert_problem(response: &Response, status: u16, what: &str) {
    assert_eq!(response.status, status, "{what}");
    assert_eq!(response.header("content-type"), Some("application/problem+json"), "{what}");
    assert_eq!(response.body["status"], status, "{what}");
    for field in ["type", "title", "detail"] {
        assert!(response.body[field].as_str().is_some_and(|text| !text.is_empty()), "{what}: no {field}");
    }
}

//! The API's description says what the API does.

use crate::support::Daemon;
use crate::support::schema::Description;
use ipnet::IpNet;
use ringlb::admin::ROUTES;
use ringlb::model::document::{AttachmentDocument, BackendDocument, DesiredState, NetworkDocument, ServiceDocument};
use ringlb::model::{AttachmentSpec, BackendSpec, Families, NetworkSpec, Protocol, PublishedDocument, ServiceSpec};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;

fn description(daemon: &Daemon) -> Description {
    Description(daemon.done("GET", "/openapi.json", None))
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let description = description(&Daemon::start());
    assert_eq!(description.0["openapi"], "3.1.0");
    let methods = |item: &Value| {
        let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
        methods.cloned().collect::<BTreeSet<_>>()
    };
    let described = description.0["paths"].as_object().unwrap();
    let described: BTreeSet<_> = described.iter().map(|(path, item)| (path.clone(), methods(item))).collect();
    let routes: BTreeSet<_> = ROUTES
        .iter()
        .map(|(path, methods)| ((*path).to_owned(), methods.iter().map(|method| (*method).to_owned()).collect()))
        .collect();
    assert_eq!(described, routes);
    let mut identifiers = BTreeSet::new();
    for (path, item) in description.0["paths"].as_object().unwrap() {
        let in_path: Vec<_> = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        let described = item["parameters"].as_array().map_or(&[][..], Vec::as_slice);
        let described: Vec<_> = described.iter().map(|parameter| parameter["name"].as_str().unwrap()).collect();
        assert_eq!(described, in_path, "{path}");
        for method in methods(item) {
            assert!(identifiers.insert(item[&method]["operationId"].as_str().unwrap().to_owned()), "{path}");
        }
    }
    assert_references(&description, &description.0);
}

fn assert_references(description: &Description, value: &Value) {
    match value {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref") {
                description.resolve(reference.as_str().unwrap());
            }
            fields.values().for_each(|field| assert_references(description, field));
        }
        Value::Array(items) => items.iter().for_each(|item| assert_references(description, item)),
        _ => {}
    }
}

/// Bodies with every field that the program knows are as described, and have every field that is described.
#[test]
fn bodies_are_described() {
    let description = description(&Daemon::start());
    let addresses = |text: &str| Families::from(text.parse::<IpAddr>().unwrap());
    let subnets = |text: &str| Families::from(text.parse::<IpNet>().unwrap());
    let backend =
        || BackendDocument { ip: "10.1.0.2".parse().unwrap(), weight: Default::default(), drain: true, backup: true };
    let port = PublishedDocument { port: 8080, target: 80, protocol: Protocol::Udp };
    let service = ServiceDocument {
        name: "api".to_owned(),
        vip: addresses("10.1.0.200"),
        settings: Default::default(),
        published: vec![port],
        backends: vec![backend()],
    };
    let attachment =
        AttachmentDocument { name: "c1".to_owned(), netns: "/run/netns/c1".to_owned(), ip: addresses("10.1.0.2") };
    let network = NetworkDocument {
        name: "web".to_owned(),
        subnet: subnets("10.1.0.0/24"),
        vip_prefix: subnets("10.1.0.192/26"),
        attachments: vec![attachment.clone()],
        services: vec![service.clone()],
    };
    let state = DesiredState { version: 1, networks: vec![network.clone()] };
    let network_spec = NetworkSpec { subnet: network.subnet, vip_prefix: network.vip_prefix };
    let attachment_spec = AttachmentSpec { netns: attachment.netns.clone(), ip: attachment.ip };
    let service_spec = ServiceSpec {
        vip: service.vip,
        published: vec![port],
        backends: Some(vec![backend()]),
        ..ServiceSpec::default()
    };
    for (name, body) in [
        ("DesiredState", json!(state)),
        ("NetworkDocument", json!(network)),
        ("AttachmentDocument", json!(attachment)),
        ("ServiceDocument", json!(service)),
        ("BackendDocument", json!(backend())),
        ("NetworkSpec", json!(network_spec)),
        ("AttachmentSpec", json!(attachment_spec)),
        ("ServiceSpec", json!(service_spec)),
        ("BackendSpec", json!(BackendSpec::default())),
        ("PublishedPort", json!(port)),
    ] {
        let schema = description.resolve(&format!("#/components/schemas/{name}"));
        description.check(schema, &body, name).unwrap();
        let described: BTreeSet<_> = description.properties(schema).into_keys().collect();
        assert_eq!(described, body.as_object().unwrap().keys().map(String::as_str).collect(), "{name}");
    }
}

#[test]
fn answers_are_described() {
    let daemon = Daemon::start();
    let description = description(&daemon);
    let check = |method: &str, path: &str, body: Option<&str>, status: u16| {
        let response = daemon.http(method, path, body);
        assert_eq!(response.status, status, "{method} {path}: {response:?}");
        description.check_response(method, path, status, &response.body).unwrap_or_else(|error| {
            panic!("{method} {path}: {error}\n{:#}", response.body);
        });
    };
    ringlb_netns::Namespace::create("described").unwrap();
    let network = "/v1/networks/web";
    let attachment = "/v1/networks/web/attachments/c1";
    let service = "/v1/networks/web/services/api";
    let backend = "/v1/networks/web/services/api/backends/10.1.0.2";
    check("PUT", network, Some(r#"{"subnet": "10.1.0.0/24"}"#), 201);
    check("PUT", network, Some(r#"{"subnet": "10.1.0.0/24"}"#), 200);
    check("PUT", service, None, 201);
    for algorithm in ["p2c", "wrr", "maglev", "source-hash", "rr"] {
        check("PUT", service, Some(&format!(r#"{{"algorithm": "{algorithm}"}}"#)), 200);
        check("GET", service, None, 200);
        check("GET", "/v1/status", None, 200);
    }
    check("PUT", backend, None, 201);
    check("PUT", backend, Some(r#"{"weight": 2}"#), 200);
    check("GET", "/v1/status", None, 200);
    check("PUT", attachment, Some(r#"{"netns": "/run/netns/described"}"#), 201);
    check("POST", &format!("{backend}/drain"), None, 200);
    check("POST", "/v1/upgrade", None, 200);
    check("POST", "/v1/upgrade", Some(r#"{"network": "web", "drain_timeout": "1h"}"#), 200);
    check("POST", "/v1/upgrade", Some(r#"{"network": "other"}"#), 404);
    check("POST", "/v1/upgrade", Some(r#"{"drain_timeout": 5}"#), 422);
    for path in [
        "/v1/networks",
        network,
        "/v1/networks/web/attachments",
        attachment,
        "/v1/networks/web/services",
        service,
        backend,
        "/v1/export",
        "/v1/status",
        "/healthz",
        "/readyz",
        "/openapi.json",
    ] {
        check("GET", path, None, 200);
    }
    let state = r#"{"version": 1, "networks": [{"name": "web", "subnet": "10.1.0.0/24", "services": [{"name": "api"}]}, {"name": "new", "subnet": "10.2.0.0/24"}]}"#;
    check("POST", "/v1/apply", Some(state), 200);
    check("POST", "/v1/apply", Some(r#"{"version": 1, "networks": [{"name": "web", "subnet": "10.1.0.0/24"}]}"#), 200);
    check("PUT", attachment, Some(r#"{"netns": "/run/netns/described"}"#), 201);
    check("PUT", service, None, 201);
    check("PUT", backend, None, 201);
    check("DELETE", backend, None, 200);
    check("DELETE", service, None, 200);
    check("DELETE", attachment, None, 200);
    check("DELETE", network, None, 200);
    check("GET", network, None, 404);
}

/// On a dual-stack network addresses are lists, IPv4 first.
#[test]
fn answers_of_a_dual_stack_network_are_described() {
    let daemon = Daemon::start();
    let description = description(&daemon);
    let check = |method: &str, path: &str, body: Option<&str>, status: u16| {
        let response = daemon.http(method, path, body);
        assert_eq!(response.status, status, "{method} {path}: {response:?}");
        description.check_response(method, path, status, &response.body).unwrap_or_else(|error| {
            panic!("{method} {path}: {error}\n{:#}", response.body);
        });
        response.body
    };
    ringlb_netns::Namespace::create("dual").unwrap();
    let network = r#"{"subnet": ["fd00:1::/64", "10.1.0.0/24"], "vip_prefix": "fd00:1::ff00/120"}"#;
    let made = &check("PUT", "/v1/networks/web", Some(network), 201)["network"];
    assert_eq!(made["subnet"], json!(["10.1.0.0/24", "fd00:1::/64"]));
    assert_eq!(made["vip_prefix"], json!(["10.1.0.192/26", "fd00:1::ff00/120"]));
    assert_eq!(made["lb_address"], Value::Null);
    let attachment = r#"{"netns": "/run/netns/dual", "ip": "fd00:1::5"}"#;
    let made = check("PUT", "/v1/networks/web/attachments/c1", Some(attachment), 201);
    assert_eq!(made["attachment"]["ip"], json!(["10.1.0.1", "fd00:1::5"]));
    let service = "/v1/networks/web/services/api";
    assert_eq!(check("PUT", service, None, 201)["service"]["vip"], json!(["10.1.0.192", "fd00:1::ff00"]));
    let moved = check("PUT", service, Some(r#"{"vip": ["10.1.0.200"]}"#), 200);
    assert_eq!(moved["service"]["vip"], json!(["10.1.0.200", "fd00:1::ff00"]), "the other one stays");
    check("PUT", "/v1/networks/web/services/api/backends/fd00:1::5", None, 201);
    check("PUT", "/v1/networks/web/services/api/backends/10.1.0.1", None, 201);
    check("GET", service, None, 200);
    let status = check("GET", "/v1/status", None, 200);
    let lb_address = json!(["10.1.0.191", "fd00:1::ffff:ffff:ffff:ffff"]);
    assert_eq!(status["networks"][0]["sandbox"]["lb_address"], lb_address);
    assert_eq!(check("GET", "/v1/networks/web", None, 200)["lb_address"], lb_address);
    let state = r#"{"version": 1, "networks": [{"name": "web", "subnet": ["10.1.0.0/24", "fd00:1::/64"], "vip_prefix": ["fd00:1::ff00/120", "10.1.0.192/26"], "services": [{"name": "api", "vip": ["10.1.0.200", "fd00:1::ff01"]}]}]}"#;
    check("POST", "/v1/apply", Some(state), 200);
    check("GET", "/v1/export", None, 200);
    assert_eq!(check("GET", service, None, 200)["vip"], json!(["10.1.0.200", "fd00:1::ff01"]));
}

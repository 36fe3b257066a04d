//! A stream of changes of a network's services, and what must have come of it.

use super::site::Site;
use crate::node::Admin;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

const ALGORITHMS: [&str; 5] = ["rr", "wrr", "p2c", "maglev", "source-hash"];

/// What a service should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    algorithm: String,
    backends: BTreeMap<IpAddr, Backend>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Backend {
    weight: u64,
    drain: bool,
}

/// Changes services, and knows what they should be.
pub(super) struct Stream<'a> {
    site: &'a Site,
    chance: fastrand::Rng,
    /// By number.
    services: Vec<Option<Service>>,
    /// A change that was sent and not acknowledged: it may have been made or not.
    open: Option<(usize, Option<Service>)>,
    /// Which service was changed last.
    pub(super) last: usize,
    pub(super) acknowledged: u64,
}

impl<'a> Stream<'a> {
    /// For so many services, none of which is there.
    pub(super) fn new(site: &'a Site, services: usize, chance: fastrand::Rng) -> Self {
        Self { site, chance, services: vec![None; services], open: None, last: 0, acknowledged: 0 }
    }

    /// All services as they are to be at first, as in a whole desired state.
    pub(super) fn first_services(&mut self) -> Vec<Value> {
        for index in 0..self.services.len() {
            self.services[index] = Some(self.any_service());
        }
        let all = self.services.iter().enumerate();
        all.filter_map(|(index, service)| {
            let mut document = self.document(index, service.as_ref()?);
            document["name"] = json!(name(index));
            Some(document)
        })
        .collect()
    }

    /// Makes changes until the daemon is gone.
    pub(super) fn run(&mut self, admin: &mut Admin) {
        while self.step(admin).is_ok() {}
    }

    /// Makes one change and waits for the acknowledgement.
    pub(super) fn step(&mut self, admin: &mut Admin) -> io::Result<()> {
        let index = self.chance.usize(..self.services.len());
        let (method, rest, body, after) = self.any_change(index);
        let path = format!("/v1/networks/{}/services/{}{rest}", self.site.network, name(index));
        self.open = Some((index, after));
        let (status, answer) = admin.try_request(method, &path, &body.to_string())?;
        assert!((200..300).contains(&status), "{method} {path} {body}: {status} {answer}");
        if let Some((index, after)) = self.open.take() {
            self.services[index] = after;
            self.last = index;
        }
        self.acknowledged += 1;
        Ok(())
    }

    /// Compares what there is, as a desired state, with what was acknowledged.
    pub(super) fn settle(&mut self, exported: &Value) {
        let networks = exported["networks"].as_array().unwrap();
        let network = networks.iter().find(|network| network["name"] == self.site.network.as_str()).unwrap();
        let mut there = vec![None; self.services.len()];
        for service in network["services"].as_array().unwrap() {
            if let Some(index) = index(service["name"].as_str().unwrap()) {
                assert_eq!(service["vip"], json!(self.site.vip(vip_index(index))));
                there[index] = Some(Service::read(service));
            }
        }
        if let Some((index, after)) = self.open.take()
            && there[index] == after
        {
            self.services[index] = after;
        }
        for (index, (there, acknowledged)) in there.iter().zip(&self.services).enumerate() {
            assert_eq!(there, acknowledged, "service {} of {}", name(index), self.site.network);
        }
    }

    /// Which servers may serve a service now: those that have weight and do not drain.
    pub(super) fn eligible(&self, index: usize) -> Vec<String> {
        let backends = self.services[index].iter().flat_map(|service| &service.backends);
        backends.filter(|(_, backend)| backend.weight > 0 && !backend.drain).map(|(ip, _)| ip.to_string()).collect()
    }

    fn any_service(&mut self) -> Service {
        let algorithm = ALGORITHMS[self.chance.usize(..ALGORITHMS.len())].to_owned();
        let mut backends = BTreeMap::new();
        for server in 0..2 {
            if self.chance.u8(..4) > 0 {
                let (weight, drain) = (self.chance.u64(..4), self.chance.u8(..5) == 0);
                backends.insert(self.site.server(server), Backend { weight, drain });
            }
        }
        Service { algorithm, backends }
    }

    /// The method, the rest of the path, the body, and the service after it.
    fn any_change(&mut self, index: usize) -> (&'static str, String, Value, Option<Service>) {
        let server = self.site.server(self.chance.u8(..2));
        let Some(mut service) = self.services[index].clone() else {
            let service = self.any_service();
            return ("PUT", String::new(), self.document(index, &service), Some(service));
        };
        let path = format!("/backends/{server}");
        let listed = service.backends.contains_key(&server);
        match self.chance.u8(..10) {
            0 => ("DELETE", String::new(), Value::Null, None),
            1..=3 => {
                let service = self.any_service();
                ("PUT", String::new(), self.document(index, &service), Some(service))
            }
            4 if listed => {
                service.backends.remove(&server);
                ("DELETE", path, Value::Null, Some(service))
            }
            5 if listed => {
                service.backends.entry(server).and_modify(|backend| backend.drain = true);
                ("POST", path + "/drain", Value::Null, Some(service))
            }
            _ => {
                let weight = self.chance.u64(..4);
                service.backends.insert(server, Backend { weight, drain: false });
                ("PUT", path, json!({ "weight": weight }), Some(service))
            }
        }
    }

    fn document(&self, index: usize, service: &Service) -> Value {
        let backends = service.backends.iter();
        let backends =
            backends.map(|(ip, Backend { weight, drain })| json!({"ip": ip, "weight": weight, "drain": drain}));
        json!({
            "vip": self.site.vip(vip_index(index)),
            "algorithm": service.algorithm,
            "backends": backends.collect::<Vec<_>>(),
        })
    }
}

impl Service {
    fn read(document: &Value) -> Self {
        let backend = |backend: &Value| {
            let ip = backend["ip"].as_str().unwrap().parse().unwrap();
            let (weight, drain) = (backend["weight"].as_u64().unwrap(), backend["drain"].as_bool().unwrap());
            (ip, Backend { weight, drain })
        };
        let algorithm = document["algorithm"].as_str().unwrap().to_owned();
        Self { algorithm, backends: document["backends"].as_array().unwrap().iter().map(backend).collect() }
    }
}

fn name(index: usize) -> String {
    format!("changing-{index}")
}

fn index(name: &str) -> Option<usize> {
    name.strip_prefix("changing-")?.parse().ok()
}

/// Where the VIPs of these services begin; there is place for others before them.
pub(super) fn vip_index(index: usize) -> u16 {
    u16::try_from(256 + index).unwrap()
}

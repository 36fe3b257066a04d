//! `ringlb demo`: a network, three backends and load, and what happens when backends come and go.
//!
//! Everything happens in namespaces of the demo's own, which end with it. So it needs nothing beforehand, not even root
//! where the kernel lets users make namespaces, and leaves nothing behind.

mod stage;
mod summary;

use crate::client::{Client, ClientError};
use ringlb_load::{Load, LoadError, LoadHandle, LoadOptions, Progress, Workload};
use ringlb_netns::{Namespace, isolate};
use serde_json::{Value, json};
use stage::{Running, start_backend, start_daemon};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};
use summary::{Change, Summary, milliseconds};
use thiserror::Error;

const RUN_DIR: &str = "/run/ringlb";
const LOG: &str = "/run/ringlb-demo.log";
const BACKENDS: [&str; 4] = ["backend-1", "backend-2", "backend-3", "backend-4"];
const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 200);
/// New connections a second: enough to see every effect, few enough for any machine.
const RATE: f64 = 1_000.0;
const CONNECTIONS: usize = 64;
/// How long each act takes.
const ACT: Duration = Duration::from_millis(2_500);

/// Why the demo did not go as it should.
#[derive(Debug, Error)]
pub enum DemoError {
    /// Namespaces cannot be made.
    #[error(transparent)]
    Netns(#[from] ringlb_netns::Error),
    /// A program cannot be run.
    #[error("cannot {attempted} {name}: {source}; `make build` puts all programs into one directory")]
    Program {
        /// Which one.
        name: String,
        /// What was attempted.
        attempted: &'static str,
        /// What came of it.
        source: std::io::Error,
    },
    /// The daemon did not start.
    #[error("the daemon did not start; it said:\n{log}")]
    Daemon {
        /// Its log.
        log: String,
    },
    /// The daemon refused something.
    #[error("{what}: {source}")]
    Api {
        /// What was asked for.
        what: String,
        /// What it answered.
        source: ClientError,
    },
    /// The load could not be run.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A promise was broken.
    #[error("this should not have happened: {0}")]
    Broken(String),
}

/// Runs the demo. To be called while the process has one thread.
///
/// # Errors
/// Any [`DemoError`]; what was made is gone then too.
pub fn run(json: bool) -> Result<(), DemoError> {
    isolate::enter(isolate::Kind::of_this_process())?;
    // Few connections need few descriptors; a low limit is not worth failing for.
    let _ = ringlb_load::raise_descriptor_limit();
    let daemon = start_daemon(Path::new(RUN_DIR), Path::new(LOG))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| DemoError::Program { name: "the runtime".into(), attempted: "start", source })?;
    let mut demo = Demo {
        client: Client::new(Path::new(RUN_DIR).join("admin.sock")),
        started: Instant::now(),
        quiet: json,
        changes: Vec::new(),
        generation: 0,
    };
    let summary = runtime.block_on(demo.play())?;
    daemon.end()?;
    print(&summary, json);
    Ok(())
}

#[allow(clippy::print_stdout, reason = "this is what the command is for")]
fn print(summary: &Summary, json: bool) {
    if json {
        println!("{}", serde_json::to_string_pretty(summary).unwrap_or_default());
    } else {
        println!("\n{summary}");
    }
}

struct Demo {
    client: Client,
    started: Instant,
    quiet: bool,
    changes: Vec<Change>,
    generation: u64,
}

impl Demo {
    async fn play(&mut self) -> Result<Summary, DemoError> {
        let client = self.set_the_stage().await?;
        let mut backends: Vec<Option<Running>> = Vec::new();
        for name in &BACKENDS[..3] {
            let namespace = self.attach(name).await?;
            backends.push(Some(start_backend(&namespace, name)?));
            self.change(&format!("add {name}"), "PUT", &backend_path(name), Some(json!({}))).await?;
        }
        self.describe_proxy().await?;

        let load = client.run(start_load)??;
        self.say(&format!("load: {RATE} connections a second to {VIP}:80; each asks who answers"));
        let before = load.snapshot();
        let first = self.act(&load, &before).await;
        expect(BACKENDS[..3].iter().all(|name| first.of(name) > 0), "a backend got no request")?;

        let before = load.snapshot();
        self.change("drain backend-1", "POST", &format!("{}/drain", backend_path("backend-1")), None).await?;
        let after_drain = self.act(&load, &before).await;
        // Connections that were picked before the acknowledgement may still have been counted after it.
        expect(after_drain.of("backend-1") <= CONNECTIONS as u64, "a drained backend got new connections")?;

        let before = load.snapshot();
        self.say("kill -9 backend-2, which is still in the table");
        if let Some(victim) = backends[1].take() {
            victim.kill()?;
        }
        let after_kill = self.act(&load, &before).await;
        expect(after_kill.failed <= CONNECTIONS as u64, "more failed than was under way to the killed backend")?;

        let before = load.snapshot();
        self.change("remove backend-2", "DELETE", &backend_path("backend-2"), None).await?;
        let namespace = self.attach("backend-4").await?;
        backends.push(Some(start_backend(&namespace, "backend-4")?));
        self.change("add backend-4", "PUT", &backend_path("backend-4"), Some(json!({}))).await?;
        let last = self.act(&load, &before).await;
        expect(last.of("backend-4") > 0, "the new backend got no request")?;
        expect(last.failed == 0, "requests failed although only healthy backends were left")?;

        load.stop();
        let report = tokio::task::spawn_blocking(move || load.join())
            .await
            .map_err(|error| DemoError::Broken(format!("the load's thread: {error}")))??;
        Ok(Summary { report, changes: std::mem::take(&mut self.changes), generation: self.generation })
    }

    /// A network with a service; gives the client's namespace.
    async fn set_the_stage(&mut self) -> Result<Namespace, DemoError> {
        self.say("everything happens in namespaces of the demo's own; nothing of this machine is touched");
        self.call("PUT", "/v1/networks/demo", Some(json!({"subnet": "10.77.0.0/24"}))).await?;
        let client = self.attach("client").await?;
        self.call("PUT", "/v1/networks/demo/services/web", Some(json!({"vip": VIP}))).await?;
        self.say(&format!("network `demo` 10.77.0.0/24 with service `web`: VIP {VIP}, round robin"));
        Ok(client)
    }

    async fn describe_proxy(&mut self) -> Result<(), DemoError> {
        let status = self.call("GET", "/v1/status", None).await?;
        let network = &status["networks"][0];
        let proxy = &network["proxy"];
        let steering = network["sandbox"]["steering"].as_str().unwrap_or("a listener");
        let yes = |name: &str| proxy["features"][name].as_bool() == Some(true);
        self.say(&format!(
            "proxy on kernel {}: {steering}, multishot accept {}, multishot receive {}, splice {}",
            proxy["features"]["kernel"].as_str().unwrap_or("?"),
            if yes("multishot_accept") { "yes" } else { "no" },
            if yes("multishot_receive") { "yes" } else { "no" },
            if yes("splice") { "yes" } else { "no" },
        ));
        Ok(())
    }

    /// A container on the network.
    async fn attach(&mut self, name: &str) -> Result<Namespace, DemoError> {
        let namespace = Namespace::create(&format!("demo-{name}"))?;
        let body = json!({"netns": format!("/run/netns/demo-{name}"), "ip": address(name)});
        self.call("PUT", &format!("/v1/networks/demo/attachments/{name}"), Some(body)).await?;
        Ok(namespace)
    }

    /// Makes a change that the summary tells of.
    async fn change(&mut self, what: &str, method: &str, path: &str, body: Option<Value>) -> Result<(), DemoError> {
        let start = Instant::now();
        let answer = self.call(method, path, body).await?;
        let took_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let generation = answer["generation"].as_u64().unwrap_or_default();
        self.generation = self.generation.max(generation);
        self.say(&format!("{what}: acknowledged after {} as generation {generation}", milliseconds(took_us)));
        self.changes.push(Change { what: what.to_owned(), took_us, generation });
        Ok(())
    }

    async fn call(&mut self, method: &str, path: &str, body: Option<Value>) -> Result<Value, DemoError> {
        let what = format!("{method} {path}");
        self.client.request(method, path, body).await.map_err(|source| DemoError::Api { what, source })
    }

    /// Lets the load run for a while and says what it did meanwhile.
    async fn act(&self, load: &LoadHandle, before: &Progress) -> Since {
        tokio::time::sleep(ACT).await;
        let since = Since::new(before, &load.snapshot());
        let counts: Vec<_> = BACKENDS.iter().map(|name| format!("{name} {:>5}", since.of(name))).collect();
        self.say(&format!("   {}   failed {}", counts.join("   "), since.failed));
        since
    }

    #[allow(clippy::print_stdout, reason = "this is what the command is for")]
    fn say(&self, what: &str) {
        if !self.quiet {
            println!("[{:5.2} s] {what}", self.started.elapsed().as_secs_f64());
        }
    }
}

/// What a load did in an act.
struct Since {
    requests: Vec<(&'static str, u64)>,
    failed: u64,
}

impl Since {
    fn new(before: &Progress, now: &Progress) -> Self {
        let count = |progress: &Progress, name: &str| progress.requests_by_backend.get(name).copied().unwrap_or(0);
        let requests = BACKENDS.map(|name| (name, count(now, name).saturating_sub(count(before, name)))).to_vec();
        Self { requests, failed: now.failures.saturating_sub(before.failures) }
    }

    fn of(&self, name: &str) -> u64 {
        self.requests.iter().find(|(backend, _)| *backend == name).map_or(0, |(_, count)| *count)
    }
}

fn start_load() -> Result<LoadHandle, LoadError> {
    let mut options = LoadOptions::new(vec![SocketAddr::from((VIP, 80))], Workload::Connect);
    options.connections = CONNECTIONS;
    options.rate = Some(RATE);
    Load::start(options)
}

fn expect(kept: bool, promise: &str) -> Result<(), DemoError> {
    if kept { Ok(()) } else { Err(DemoError::Broken(promise.to_owned())) }
}

fn address(name: &str) -> IpAddr {
    let last = BACKENDS.iter().position(|backend| *backend == name).map_or(100, |index| 11 + index as u8);
    IpAddr::from([10, 77, 0, last])
}

fn backend_path(name: &str) -> String {
    format!("/v1/networks/demo/services/web/backends/{}", address(name))
}

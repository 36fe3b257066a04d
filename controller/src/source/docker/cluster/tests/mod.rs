//! Managers and workers on loopback, with certificates as swarmkit makes them.

mod crowd;

use super::{Certificates, FollowStatus, Following, ServeStatus, Serving, Timing, follow, serve};
use crate::source::docker::facts::ServiceFacts;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use ringlb_proxy::control::message::{Port, Protocol, PublishedPort};
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const SWARM: &str = "doh20vkc0axmhweq7asiob8u7";

/// A swarm's certificate authority.
struct Authority {
    /// Where the nodes' directories are, as long as this lives.
    nodes: TempDir,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, "swarm-ca");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap().pem();
        Self { nodes: TempDir::new().unwrap(), certificate, issuer: Issuer::new(parameters, key) }
    }

    /// Writes a node's files as the Engine does.
    fn write(&self, directory: &Path, swarm: &str, role: &str) {
        let mut parameters = CertificateParams::new([role.to_owned(), "9i8yzapu2isokapwxm1vt6bhd".to_owned()]).unwrap();
        parameters.distinguished_name.push(DnType::OrganizationName, swarm);
        parameters.distinguished_name.push(DnType::OrganizationalUnitName, role);
        parameters.distinguished_name.push(DnType::CommonName, "9i8yzapu2isokapwxm1vt6bhd");
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        parameters.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap().pem();
        let headers = "-----BEGIN PRIVATE KEY-----\nkek-version: 0\nraft-dek: EiA6YMII9dNy1GPZQ12nzj7CCAurUmHqjsVaFPvcETTuGA==\n\n";
        let key = key.serialize_pem().replace("-----BEGIN PRIVATE KEY-----\n", headers);
        write(directory, "swarm-node.crt", &certificate);
        write(directory, "swarm-node.key", &key);
        write(directory, "swarm-root-ca.crt", &self.certificate);
    }

    fn node(&self, swarm: &str, role: &str) -> Node {
        let directory = TempDir::new_in(self.nodes.path()).unwrap().keep();
        self.write(&directory, swarm, role);
        let certificates = Arc::new(Certificates::new(&directory));
        Node { directory, certificates }
    }

    fn manager(&self) -> Node {
        self.node(SWARM, "swarm-manager")
    }

    fn worker(&self) -> Node {
        self.node(SWARM, "swarm-worker")
    }
}

/// As the Engine does: a new file takes the old one's place.
fn write(directory: &Path, name: &str, content: &str) {
    let mut file = tempfile::NamedTempFile::new_in(directory).unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file.persist(directory.join(name)).unwrap();
}

struct Node {
    directory: PathBuf,
    certificates: Arc<Certificates>,
}

/// A manager that serves, and what it knows.
struct Manager {
    address: SocketAddr,
    facts: watch::Sender<Vec<ServiceFacts>>,
    serving: Serving,
}

impl Node {
    async fn serve(&self, services: Vec<ServiceFacts>) -> Manager {
        self.serve_at(LOOPBACK, services, quick()).await
    }

    async fn serve_at(&self, address: SocketAddr, services: Vec<ServiceFacts>, timing: Timing) -> Manager {
        let (facts, known) = watch::channel(services);
        let mut serving = serve(address, Arc::clone(&self.certificates), known, timing);
        let address = soon(&mut serving.status, |status: &ServeStatus| status.listening.is_some()).await.listening;
        Manager { address: address.unwrap(), facts, serving }
    }

    fn follow(&self, managers: &[SocketAddr]) -> Following {
        let (sender, managers) = watch::channel(managers.to_vec());
        tokio::spawn(async move { sender.closed().await });
        follow(managers, Arc::clone(&self.certificates), quick())
    }
}

/// Patient enough for a busy machine where a test waits for nothing to happen, and quick where it waits for a failure.
fn quick() -> Timing {
    Timing {
        heartbeat: Duration::from_millis(100),
        first_pause: Duration::from_millis(20),
        longest_pause: Duration::from_millis(100),
        ..Timing::default()
    }
}

fn service(name: &str, algorithm: &str) -> ServiceFacts {
    ServiceFacts {
        id: format!("id-of-{name}"),
        name: name.to_owned(),
        labels: [("ringlb.algorithm".to_owned(), algorithm.to_owned())].into(),
        ports: vec![PublishedPort { published: Port { protocol: Protocol::Udp, number: 5353 }, target: 53 }],
    }
}

/// Waits until what is watched is so.
async fn soon<T: Clone + std::fmt::Debug>(watched: &mut watch::Receiver<T>, is_so: impl FnMut(&T) -> bool) -> T {
    if let Ok(value) = timeout(Duration::from_secs(20), watched.wait_for(is_so)).await {
        return value.unwrap().clone();
    }
    panic!("still {:?}", watched.borrow());
}

/// Waits for an error; while it lasts nothing may be learned.
async fn refused(mut following: Following) -> String {
    let status = soon(&mut following.status, |status: &FollowStatus| status.error.is_some()).await;
    assert_eq!(*following.services.borrow(), None);
    assert_eq!(status.manager, None);
    status.error.unwrap()
}

#[tokio::test]
async fn a_worker_learns_the_services_and_each_change() {
    let swarm = Authority::new();
    let mut manager = swarm.manager().serve(vec![service("web", "rr")]).await;
    let mut following = swarm.worker().follow(&[manager.address]);
    soon(&mut following.services, |services| *services == Some(vec![service("web", "rr")])).await;
    soon(&mut following.status, |status| *status == FollowStatus { manager: Some(manager.address), error: None }).await;
    soon(&mut manager.serving.status, |status| status.workers == 1).await;
    for algorithm in ["p2c", "maglev"] {
        let services = vec![service("web", algorithm), service("dns", algorithm)];
        manager.facts.send_replace(services.clone());
        soon(&mut following.services, |learned| learned.as_ref() == Some(&services)).await;
    }
    manager.facts.send_replace(Vec::new());
    soon(&mut following.services, |learned| *learned == Some(Vec::new())).await;
    drop(following);
    soon(&mut manager.serving.status, |status| status.workers == 0).await;
}

#[tokio::test]
async fn a_manager_may_follow_another_one() {
    let swarm = Authority::new();
    let manager = swarm.manager().serve(vec![service("web", "rr")]).await;
    let mut following = swarm.manager().follow(&[manager.address]);
    soon(&mut following.services, Option::is_some).await;
}

#[tokio::test]
async fn when_a_manager_is_lost_the_worker_keeps_what_it_knows_and_asks_the_next() {
    let swarm = Authority::new();
    let first = swarm.manager().serve(vec![service("web", "rr")]).await;
    let second = swarm.manager().serve(vec![service("web", "p2c")]).await;
    let mut following = swarm.worker().follow(&[first.address, second.address]);
    soon(&mut following.services, |services| *services == Some(vec![service("web", "rr")])).await;
    drop(first);
    soon(&mut following.services, |services| *services == Some(vec![service("web", "p2c")])).await;
    drop(second);
    soon(&mut following.status, |status| status.manager.is_none() && status.error.is_some()).await;
    assert_eq!(*following.services.borrow(), Some(vec![service("web", "p2c")]));
}

#[tokio::test]
async fn a_manager_that_comes_late_is_found_and_one_that_comes_back_too() {
    let swarm = Authority::new();
    let port = StdListener::bind(LOOPBACK).unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let mut following = swarm.worker().follow(&[address]);
    let status = soon(&mut following.status, |status| status.error.is_some()).await;
    assert!(status.error.unwrap().contains("does `ringlb daemon --source docker` run there"));
    let node = swarm.manager();
    for algorithm in ["rr", "p2c"] {
        let manager = node.serve_at(address, vec![service("web", algorithm)], quick()).await;
        soon(&mut following.services, |services| *services == Some(vec![service("web", algorithm)])).await;
        drop(manager);
        soon(&mut following.status, |status| status.manager.is_none()).await;
    }
}

#[tokio::test]
async fn a_new_list_of_managers_is_tried_at_once() {
    let swarm = Authority::new();
    let manager = swarm.manager().serve(vec![service("web", "rr")]).await;
    let worker = swarm.worker();
    let (managers, listed) = watch::channel(Vec::new());
    // With such pauses it would come too late by itself.
    let timing = Timing { first_pause: Duration::from_secs(3600), longest_pause: Duration::from_secs(3600), ..quick() };
    let mut following = follow(listed, Arc::clone(&worker.certificates), timing);
    managers.send_replace(vec![manager.address]);
    soon(&mut following.services, Option::is_some).await;
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_believed() {
    let (other, swarm) = (Authority::new(), Authority::new());
    let stranger = other.manager().serve(vec![service("web", "rr")]).await;
    let error = refused(swarm.worker().follow(&[stranger.address])).await;
    assert!(error.contains("no secure connection"), "{error}");
}

#[tokio::test]
async fn a_worker_is_not_believed_to_be_a_manager() {
    let swarm = Authority::new();
    let impostor = swarm.worker().serve(vec![service("web", "rr")]).await;
    let error = refused(swarm.worker().follow(&[impostor.address])).await;
    assert!(error.contains("no secure connection") && error.contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn another_swarm_of_the_same_authority_is_refused_by_both_ends() {
    let authority = Authority::new();
    let mut other = authority.node("another-swarm", "swarm-manager").serve(vec![service("web", "rr")]).await;
    let error = refused(authority.worker().follow(&[other.address])).await;
    assert!(error.contains("belongs to swarm another-swarm"), "{error}");
    // By the manager too, which would not know that the worker has refused it.
    let status = soon(&mut other.serving.status, |status| status.error.is_some()).await;
    let error = status.error.unwrap();
    assert!(error.contains("is not trusted") && error.contains(SWARM), "{error}");
}

#[tokio::test]
async fn a_client_of_another_authority_and_one_without_a_certificate_learn_nothing() {
    let swarm = Authority::new();
    let mut manager = swarm.manager().serve(vec![service("web", "rr")]).await;
    // It believes the manager, but shows a certificate of its own authority.
    let other = Authority::new();
    let stranger = other.worker();
    write(&stranger.directory, "swarm-root-ca.crt", &swarm.certificate);
    refused(stranger.follow(&[manager.address])).await;
    let status = soon(&mut manager.serving.status, |status| status.error.is_some()).await;
    assert!(status.error.unwrap().contains("no secure connection"));

    manager = swarm.manager().serve(vec![service("web", "rr")]).await;
    let mut plain = TcpStream::connect(manager.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    soon(&mut manager.serving.status, |status| status.error.is_some()).await;

    manager = swarm.manager().serve(vec![service("web", "rr")]).await;
    let read = nameless_client(&swarm, manager.address).await;
    assert!(read.is_err(), "{read:?}");
    soon(&mut manager.serving.status, |status| status.error.is_some()).await;
}

/// What a client hears that believes the manager and shows no certificate.
async fn nameless_client(swarm: &Authority, manager: SocketAddr) -> std::io::Result<Vec<u8>> {
    use tokio::io::AsyncReadExt;
    use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(swarm.certificate.as_bytes()).unwrap()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(manager).await?;
    let name = "swarm-manager".try_into().unwrap();
    let mut tls = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, stream).await?;
    let mut read = vec![0; 1000];
    let length = tls.read(&mut read).await?;
    read.truncate(length);
    Ok(read)
}

#[tokio::test]
async fn new_certificates_are_used_as_soon_as_they_are_there() {
    let old = Authority::new();
    let (manager, worker) = (old.manager(), old.worker());
    // Connections end quickly, so that the worker comes again.
    let timing = Timing { connection: Duration::from_millis(50), ..quick() };
    let served = manager.serve_at(LOOPBACK, vec![service("web", "rr")], timing).await;
    let mut following = worker.follow(&[served.address]);
    soon(&mut following.services, Option::is_some).await;

    let new = Authority::new();
    new.write(&manager.directory, SWARM, "swarm-manager");
    soon(&mut following.status, |status| {
        status.error.as_ref().is_some_and(|error| error.contains("no secure connection"))
    })
    .await;
    new.write(&worker.directory, SWARM, "swarm-worker");
    served.facts.send_replace(vec![service("web", "p2c")]);
    soon(&mut following.services, |services| *services == Some(vec![service("web", "p2c")])).await;
}

#[tokio::test]
async fn missing_and_encrypted_keys_are_told_apart_and_serving_starts_once_they_are_there() {
    let swarm = Authority::new();
    let manager = swarm.manager();
    let key = manager.directory.join("swarm-node.key");
    let text = fs::read_to_string(&key).unwrap();
    fs::remove_file(&key).unwrap();
    let (_facts, known) = watch::channel(vec![service("web", "rr")]);
    let mut serving = serve(LOOPBACK, Arc::clone(&manager.certificates), known, quick());
    let status = soon(&mut serving.status, |status| status.error.is_some()).await;
    assert!(status.error.unwrap().contains("cannot read"));
    write(&manager.directory, "swarm-node.key", &text.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"));
    let encrypted = |status: &ServeStatus| status.error.as_ref().is_some_and(|error| error.contains("--autolock"));
    assert_eq!(soon(&mut serving.status, encrypted).await.listening, None);
    write(&manager.directory, "swarm-node.key", &text);
    let address = soon(&mut serving.status, |status| status.listening.is_some()).await.listening;
    let mut following = swarm.worker().follow(&[address.unwrap()]);
    soon(&mut following.services, Option::is_some).await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_reported_and_tried_again() {
    let swarm = Authority::new();
    let taken = StdListener::bind(LOOPBACK).unwrap();
    let (_facts, known) = watch::channel(Vec::new());
    let manager = swarm.manager();
    let mut serving = serve(taken.local_addr().unwrap(), Arc::clone(&manager.certificates), known, quick());
    let status = soon(&mut serving.status, |status| status.error.is_some()).await;
    assert!(status.error.unwrap().contains("--cluster-port"));
    drop(taken);
    let status = soon(&mut serving.status, |status| status.listening.is_some()).await;
    assert_eq!(status.error, None);
}

#[tokio::test]
async fn facts_that_are_too_many_are_not_sent_and_reported() {
    let swarm = Authority::new();
    let mut manager = swarm.manager().serve(vec![service("web", "rr")]).await;
    let mut following = swarm.worker().follow(&[manager.address]);
    soon(&mut following.services, Option::is_some).await;
    manager.facts.send_replace(vec![service("web", &"x".repeat(super::line::MAX_LINE))]);
    let status = soon(&mut manager.serving.status, |status| status.error.is_some()).await;
    assert!(status.error.unwrap().contains("bytes together"));
    assert_eq!(*following.services.borrow(), Some(vec![service("web", "rr")]));
    manager.facts.send_replace(vec![service("web", "p2c")]);
    soon(&mut following.services, |services| *services == Some(vec![service("web", "p2c")])).await;
    soon(&mut manager.serving.status, |status| status.error.is_none()).await;
}

/// A manager that says what the test wants, once, and then nothing.
async fn manager_that_says(node: &Node, text: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::clone(&node.certificates.identity().unwrap().server));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut tls = acceptor.accept(stream).await.unwrap();
            // The worker hangs up in the middle of what is too long.
            if tls.write_all(&text).await.is_ok() && tls.flush().await.is_ok() {
                sleep(Duration::from_secs(60)).await;
            }
        }
    });
    address
}

#[tokio::test]
async fn a_line_without_end_and_one_without_sense_are_refused() {
    let swarm = Authority::new();
    let manager = swarm.manager();
    let address = manager_that_says(&manager, vec![b' '; super::line::MAX_LINE + 1]).await;
    let error = refused(swarm.worker().follow(&[address])).await;
    assert!(error.contains("longer than"), "{error}");
    let address = manager_that_says(&manager, b"[1]\n".to_vec()).await;
    let error = refused(swarm.worker().follow(&[address])).await;
    assert!(error.contains("makes no sense"), "{error}");
}

#[tokio::test]
async fn a_silent_manager_is_taken_for_dead() {
    let swarm = Authority::new();
    let manager = swarm.manager();
    let address = manager_that_says(&manager, b"{\"services\":[]}\n".to_vec()).await;
    let worker = swarm.worker();
    let (_sender, managers) = watch::channel(vec![address]);
    let timing = Timing { silence: Duration::from_millis(300), ..quick() };
    let mut following = follow(managers, Arc::clone(&worker.certificates), timing);
    soon(&mut following.services, Option::is_some).await;
    let status = soon(&mut following.status, |status| status.error.is_some()).await;
    assert!(status.error.unwrap().contains("nothing came from"));
}

#[tokio::test]
async fn heartbeats_keep_a_quiet_connection() {
    let swarm = Authority::new();
    let manager = swarm.manager().serve(vec![service("web", "rr")]).await;
    let worker = swarm.worker();
    let (_sender, managers) = watch::channel(vec![manager.address]);
    let timing = Timing { silence: Duration::from_secs(2), ..quick() };
    let mut following = follow(managers, Arc::clone(&worker.certificates), timing);
    soon(&mut following.status, |status| status.manager.is_some()).await;
    following.status.mark_unchanged();
    let changed = timeout(Duration::from_secs(3), following.status.changed()).await;
    assert!(changed.is_err(), "{:?}", following.status.borrow());
}

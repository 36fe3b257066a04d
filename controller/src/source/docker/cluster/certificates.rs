//! The certificates by which the nodes of a swarm know each other.
//!
//! Each node has a certificate of the swarm's own authority (swarmkit, `ca/`): its subject's organisation (O) is the
//! swarm's id, the organisational unit (OU) its role, `swarm-manager` or `swarm-worker`, the common name the node's id.
//! Role and node id are DNS names of the certificate too, so that a client asks for the name `swarm-manager`. The
//! authority decides all of these, not the node that asks for the certificate. Certificates are for servers and clients,
//! and by default new every 90 days at most.

use super::ClusterError;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, CommonState, RootCertStore, ServerConfig, version};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_rustls::rustls;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::name::DirectoryString;

/// The role of managers, as their certificates have it: organisational unit and DNS name.
pub(super) const MANAGER: &str = "swarm-manager";

const CERTIFICATE: &str = "swarm-node.crt";
const KEY: &str = "swarm-node.key";
const AUTHORITY: &str = "swarm-root-ca.crt";

/// The files with a node's certificate. They are read anew when the Engine has written them anew.
#[derive(Debug)]
pub struct Certificates {
    directory: PathBuf,
    loaded: Mutex<Option<(Stamps, Arc<Identity>)>>,
}

/// What tells whether files have been written since: inode, time in nanoseconds and size of each.
type Stamps = [(u64, i64, i64, u64); 3];

/// Who this node is, and whom it believes.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
    /// The swarm's id.
    swarm: String,
}

impl Certificates {
    /// Those in a directory: `swarm/certificates` in the Engine's data directory, seen from here.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), loaded: Mutex::default() }
    }

    /// The identity that the files give now.
    ///
    /// # Errors
    /// If a file is missing or makes no sense, or the key is encrypted.
    pub(super) fn identity(&self) -> Result<Arc<Identity>, ClusterError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        // Before they are read: what is written meanwhile is seen the next time.
        let stamps = self.stamps()?;
        if let Some((then, identity)) = &*loaded
            && *then == stamps
        {
            return Ok(Arc::clone(identity));
        }
        let identity = Arc::new(self.load()?);
        *loaded = Some((stamps, Arc::clone(&identity)));
        Ok(identity)
    }

    fn stamps(&self) -> Result<Stamps, ClusterError> {
        let mut stamps = Stamps::default();
        for (stamp, name) in stamps.iter_mut().zip([CERTIFICATE, KEY, AUTHORITY]) {
            let path = self.directory.join(name);
            let metadata = fs::metadata(&path).map_err(|cause| ClusterError::Unreadable { path, cause })?;
            *stamp = (metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.size());
        }
        Ok(stamps)
    }

    fn load(&self) -> Result<Identity, ClusterError> {
        let certificate_path = self.directory.join(CERTIFICATE);
        let chain = read_certificates(&certificate_path)?;
        let unusable = |reason: String| ClusterError::Unusable { path: certificate_path.clone(), reason };
        let own = chain.first().ok_or_else(|| unusable("there is no certificate in it".to_owned()))?;
        let swarm = Subject::of(own).and_then(|subject| subject.swarm.ok_or_else(|| "it names no swarm".to_owned()));
        let swarm = swarm.map_err(unusable)?;
        let key = read_key(&self.directory.join(KEY))?;
        let authority_path = self.directory.join(AUTHORITY);
        let mut roots = RootCertStore::empty();
        for root in read_certificates(&authority_path)? {
            let path = authority_path.clone();
            roots.add(root).map_err(|error| ClusterError::Unusable { path, reason: error.to_string() })?;
        }
        let (server, client) = configurations(Arc::new(roots), chain, key).map_err(unusable)?;
        Ok(Identity { server: Arc::new(server), client: Arc::new(client), swarm })
    }
}

impl Identity {
    /// Checks what the swarm's authority alone does not say: that the other end is a node of the same swarm, for several
    /// may have one external authority, and, if it is to be one, a manager.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn check(&self, peer: SocketAddr, tls: &CommonState, manager: bool) -> Result<(), ClusterError> {
        let stranger = |reason| ClusterError::Stranger { peer, reason };
        let certificate = tls.peer_certificates().and_then(<[_]>::first);
        let certificate = certificate.ok_or_else(|| stranger("it shows no certificate".to_owned()))?;
        let subject = Subject::of(certificate).map_err(stranger)?;
        if subject.swarm.as_ref() != Some(&self.swarm) {
            let theirs = subject.swarm.as_deref().unwrap_or("none");
            return Err(stranger(format!("it belongs to swarm {theirs}, and this node to {}", self.swarm)));
        }
        if manager && subject.role.as_deref() != Some(MANAGER) {
            return Err(stranger(format!("it is no manager but a {}", subject.role.as_deref().unwrap_or("nobody"))));
        }
        Ok(())
    }
}

/// What a node's certificate says of it.
struct Subject {
    swarm: Option<String>,
    role: Option<String>,
}

impl Subject {
    fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let failed = |error| format!("its certificate cannot be read: {error}");
        let certificate = Certificate::from_der(certificate).map_err(failed)?;
        let subject = certificate.tbs_certificate().subject();
        let swarm = subject.organization().map_err(failed)?;
        let role = subject.organization_unit().map_err(failed)?;
        let text = |name: Option<DirectoryString>| name.map(|name| name.value().into_owned());
        Ok(Self { swarm: text(swarm), role: text(role) })
    }
}

fn configurations(
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<(ServerConfig, ClientConfig), String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build();
    let clients = clients.map_err(|error| error.to_string())?;
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&version::TLS13])
        .and_then(|builder| builder.with_client_cert_verifier(clients).with_single_cert(chain.clone(), key.clone_key()))
        .map_err(|error| error.to_string())?;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .and_then(|builder| builder.with_root_certificates(roots).with_client_auth_cert(chain, key))
        .map_err(|error| error.to_string())?;
    // Connections last, so that there is little to save; and a resumed one would be one with the certificate of then.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    client.resumption = Resumption::disabled();
    Ok((server, client))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClusterError> {
    let text = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    all.map_err(|error| ClusterError::Unusable { path: path.to_owned(), reason: error.to_string() })
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, ClusterError> {
    let text = String::from_utf8_lossy(&read(path)?).into_owned();
    // PKCS #8 (RFC 5958), and the older form of Engines before 18.09.
    if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(ClusterError::Locked { path: path.to_owned() });
    }
    let key = PrivateKeyDer::from_pem_slice(without_headers(&text).as_bytes());
    key.map_err(|error| ClusterError::Unusable { path: path.to_owned(), reason: error.to_string() })
}

/// The PEM text without the headers that swarmkit writes into the key's (`kek-version`, `raft-dek`; RFC 1421, section
/// 4.4): readers of RFC 7468 take them for a part of the key.
fn without_headers(text: &str) -> String {
    text.lines().filter(|line| !line.contains(':')).flat_map(|line| [line, "\n"]).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, ClusterError> {
    fs::read(path).map_err(|cause| ClusterError::Unreadable { path: path.to_owned(), cause })
}

//! The command line.

mod arguments;
mod cleanup;
mod daemon;
mod output;
mod publish;
mod settings;
mod status;
mod table;

pub use arguments::Arguments;

use crate::client::{Client, ClientError, segment};
use crate::daemon::Options;
use crate::demo::{self, DemoError};
use arguments::{BackendCommand, Command, NetworkCommand, ServiceCommand};
use axum::body::Bytes;
use output::Output;
use publish::Publish;
use serde_json::{Map, Value, json};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use thiserror::Error;

/// Why a command failed.
#[derive(Debug, Error)]
enum CommandError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Daemon(#[from] crate::daemon::DaemonError),
    #[error("cannot read {}: {cause}", path.display())]
    Read { path: PathBuf, cause: io::Error },
    #[error("{} is larger than {} bytes, which is more than a state document may have", path.display(), crate::model::limits::MAX_STATE)]
    TooLarge { path: PathBuf },
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
    #[error("cannot watch for signals: {0}")]
    Signals(io::Error),
    #[error("several Docker Engines are given as sources: a daemon observes one")]
    SeveralEngines,
    #[error("cannot write the output: {0}")]
    Write(io::Error),
    #[error("{}", .0.join("\n"))]
    NotClean(Vec<String>),
    #[error(transparent)]
    Demo(#[from] DemoError),
}

/// Does what the arguments say. Prints what came of it on standard output, or what went wrong on standard error.
#[must_use]
pub fn run(arguments: Arguments) -> ExitCode {
    let result = match arguments.command {
        // Before anything starts a thread: a process with several cannot enter a user namespace.
        Command::Demo => demo::run(arguments.json).map_err(CommandError::Demo),
        _ => match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(execute(arguments)),
            Err(error) => Err(CommandError::Runtime(error)),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has seen enough, as `head` has, is no failure.
        Err(CommandError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let text = error.to_string();
            let lines: String = text.lines().map(|line| format!("ringlb: {line}\n")).collect();
            // Nothing is left to do if standard error is closed.
            let _ = io::stderr().write_all(lines.as_bytes());
            ExitCode::FAILURE
        }
    }
}

async fn execute(arguments: Arguments) -> Result<(), CommandError> {
    let Arguments { run_dir, json, command } = arguments;
    match command {
        Command::Daemon(daemon) => daemon::run(run_dir, daemon).await,
        Command::Cleanup(engine) => {
            let (report, errors) = cleanup::run(&run_dir, engine).await?;
            show(&report, &Output::Cleaned, json)?;
            if errors.is_empty() { Ok(()) } else { Err(CommandError::NotClean(errors)) }
        }
        command => {
            let mut client = Client::new(Options::admin_socket(&run_dir));
            let (answer, output) = perform(&mut client, command).await?;
            show(&answer, &output, json)
        }
    }
}

fn show(answer: &Value, output: &Output, json: bool) -> Result<(), CommandError> {
    let mut stdout = io::stdout().lock();
    let written = if json {
        serde_json::to_writer_pretty(&mut stdout, answer).map_err(io::Error::from).and_then(|()| writeln!(stdout))
    } else {
        output.write(answer, &mut stdout)
    };
    written.and_then(|()| stdout.flush()).map_err(CommandError::Write)
}

/// Asks the daemon; gives its answer and the way to show it.
async fn perform(client: &mut Client, command: Command) -> Result<(Value, Output), CommandError> {
    match command {
        Command::Daemon(_) | Command::Cleanup(_) | Command::Demo => Ok((Value::Null, Output::Nothing)),
        Command::Network { command } => network(client, command).await,
        Command::Attach { network, name, netns, ip } => {
            let netns = std::path::absolute(&netns).unwrap_or(netns);
            let mut body = Map::from_iter([("netns".to_owned(), json!(netns))]);
            insert_all(&mut body, "ip", ip);
            let answer = client.request("PUT", &attachment_path(&network, &name), Some(body.into())).await?;
            Ok((answer, Output::Attached { network }))
        }
        Command::Detach { network, name } => {
            let answer = client.request("DELETE", &attachment_path(&network, &name), None).await?;
            Ok((answer, Output::Removed(format!("detached {name} from network {network}"))))
        }
        Command::Service { command } => service(client, command).await,
        Command::Backend { command } => backend(client, command).await,
        Command::Apply { file } => {
            let answer = client.apply(read_document(&file)?).await?;
            Ok((answer, Output::Applied))
        }
        Command::Export => Ok((client.get("/v1/export").await?, Output::Document)),
        Command::Upgrade { network, drain_timeout } => {
            let mut body = Map::new();
            insert(&mut body, "network", network);
            insert(&mut body, "drain_timeout", drain_timeout);
            Ok((client.request("POST", "/v1/upgrade", Some(body.into())).await?, Output::Upgraded))
        }
        Command::Status => Ok((client.get("/v1/status").await?, Output::Status)),
    }
}

async fn network(client: &mut Client, command: NetworkCommand) -> Result<(Value, Output), CommandError> {
    match command {
        NetworkCommand::Create { name, subnet, vip_prefix } => {
            let mut body = Map::new();
            insert_all(&mut body, "subnet", subnet);
            insert_all(&mut body, "vip_prefix", vip_prefix);
            let answer = client.request("PUT", &network_path(&name), Some(body.into())).await?;
            Ok((answer, Output::NetworkMade))
        }
        NetworkCommand::Ls => Ok((client.get("/v1/networks").await?, Output::Networks)),
        NetworkCommand::Rm { name, remove_lb } => {
            let query = if remove_lb { "?remove_lb=true" } else { "" };
            let answer = client.request("DELETE", &format!("{}{query}", network_path(&name)), None).await?;
            Ok((answer, Output::Removed(format!("removed network {name}"))))
        }
    }
}

async fn service(client: &mut Client, command: ServiceCommand) -> Result<(Value, Output), CommandError> {
    match command {
        ServiceCommand::Create { network, service, vip, publish, settings } => {
            let mut body = settings.fields();
            insert_all(&mut body, "vip", vip);
            let published: Vec<_> = publish.into_iter().map(|Publish(port)| json!(port)).collect();
            insert(&mut body, "published", (!published.is_empty()).then_some(published));
            let answer = client.request("PUT", &service_path(&network, &service), Some(body.into())).await?;
            Ok((answer, Output::ServiceMade { network }))
        }
        ServiceCommand::Ls { network } => {
            Ok((client.get(&format!("{}/services", network_path(&network))).await?, Output::Services))
        }
        ServiceCommand::Show { network, service } => {
            Ok((client.get(&service_path(&network, &service)).await?, Output::Service))
        }
        ServiceCommand::Rm { network, service } => {
            let answer = client.request("DELETE", &service_path(&network, &service), None).await?;
            Ok((answer, Output::Removed(format!("removed service {service} from network {network}"))))
        }
    }
}

async fn backend(client: &mut Client, command: BackendCommand) -> Result<(Value, Output), CommandError> {
    match command {
        BackendCommand::Add { network, service, ip, weight, backup } => {
            let mut body = Map::new();
            insert(&mut body, "weight", weight);
            insert(&mut body, "backup", backup.then_some(true));
            let answer = client.request("PUT", &backend_path(&network, &service, &ip), Some(body.into())).await?;
            Ok((answer, Output::BackendChanged { service, verb: "is a backend of" }))
        }
        BackendCommand::Drain { network, service, ip } => {
            let answer =
                client.request("POST", &format!("{}/drain", backend_path(&network, &service, &ip)), None).await?;
            Ok((answer, Output::BackendChanged { service, verb: "drains from" }))
        }
        BackendCommand::Rm { network, service, ip } => {
            let answer = client.request("DELETE", &backend_path(&network, &service, &ip), None).await?;
            Ok((answer, Output::Removed(format!("removed backend {ip} from service {service}"))))
        }
    }
}

/// Reads a state document, or standard input for `-`.
fn read_document(path: &Path) -> Result<Bytes, CommandError> {
    let read_error = |cause| CommandError::Read { path: path.to_owned(), cause };
    let limit = crate::model::limits::MAX_STATE as u64;
    let mut document = Vec::new();
    if path == Path::new("-") {
        io::stdin().lock().take(limit + 1).read_to_end(&mut document).map_err(read_error)?;
    } else {
        let file = std::fs::File::open(path).map_err(read_error)?;
        file.take(limit + 1).read_to_end(&mut document).map_err(read_error)?;
    }
    if document.len() as u64 > limit {
        return Err(CommandError::TooLarge { path: path.to_owned() });
    }
    Ok(document.into())
}

fn insert(body: &mut Map<String, Value>, field: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        body.insert(field.to_owned(), value.into());
    }
}

/// One value as itself, several as a list.
fn insert_all(body: &mut Map<String, Value>, field: &str, mut values: Vec<String>) {
    match values.len() {
        0 => {}
        1 => insert(body, field, values.pop()),
        _ => insert(body, field, Some(values)),
    }
}

fn network_path(network: &str) -> String {
    format!("/v1/networks/{}", segment(network))
}

fn attachment_path(network: &str, attachment: &str) -> String {
    format!("{}/attachments/{}", network_path(network), segment(attachment))
}

fn service_path(network: &str, service: &str) -> String {
    format!("{}/services/{}", network_path(network), segment(service))
}

fn backend_path(network: &str, service: &str, ip: &str) -> String {
    format!("{}/backends/{}", service_path(network, service), segment(ip))
}

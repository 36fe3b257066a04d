//! How soon a new backend is used.

use crate::bench::results::Run;
use crate::bench::stage::Stage;
use crate::bench::system::ringlb;
use crate::bench::topology::{BACKENDS, PORT};
use crate::bench::workload::Workload;
use crate::bench::{BenchError, Options};
use crate::instruments::api::Api;
use crate::instruments::statistics::Times;
use ringlb_load::protocol::Command;
use serde_json::json;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(5);
const SERVICE: &str = "fresh";

/// Gives a service without backends its first one, and connects: the time from the call's first byte to the last one of the
/// new backend's answer. Then takes the backend away again.
pub(in crate::bench) fn measure(stage: &Stage<'_>, options: &Options) -> Result<Run, BenchError> {
    let mut api = Api::connect(&stage.admin_socket())?;
    api.done("PUT", &ringlb::service_path(SERVICE), Some(&json!({"vip": ringlb::SECOND_VIP})))?;
    let path = ringlb::backend_path(SERVICE, BACKENDS[0].address);
    let target = SocketAddr::from((ringlb::SECOND_VIP, PORT));
    let mut once = || {
        let begun = Instant::now();
        api.done("PUT", &path, Some(&json!({})))?;
        let answer = ask(target).map_err(BenchError::machine(format!("connect to {target} after the change")))?;
        let took = begun.elapsed();
        if answer.trim_end() != BACKENDS[0].name {
            return Err(BenchError::Impossible(format!("{answer:?} answered instead of {}", BACKENDS[0].name)));
        }
        api.done("DELETE", &path, None)?;
        Ok(took)
    };
    stage.in_client(move || {
        let mut times = Times::default();
        let warm = Instant::now() + options.warm_up;
        while Instant::now() < warm {
            once()?;
        }
        let begun = Instant::now();
        while begun.elapsed() < options.duration {
            times.push(once()?);
        }
        let run = Run::new(Workload::Propagation, stage.system);
        Ok(Run { units: times.count(), seconds: begun.elapsed().as_secs_f64(), ..run }.with_times(&mut times))
    })
}

fn ask(target: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&Command::Identify.line())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

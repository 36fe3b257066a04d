//! `ringlb-load bench`: ringlb side by side with other balancers and with none, on the same work.
//!
//! Each run makes a network of its own (`topology.rs`), starts one system on it (`system/`) with servers behind it
//! (`stage.rs`), loads it and reads what the kernel says that it has cost (`measure.rs`). Everything happens in namespaces
//! of the benchmark's own, which end with it.

mod accounting;
mod error;
mod idle;
mod kernel_cpu;
mod machine;
mod measure;
mod order;
mod process;
mod processors;
mod ratios;
mod report;
mod results;
#[cfg(test)]
mod samples;
mod stage;
mod statistics;
mod system;
mod targets;
mod topology;
pub(crate) mod workload;

pub(crate) use error::BenchError;
pub(crate) use report::document;
pub(crate) use results::Results;
pub(crate) use system::System;
pub(crate) use workload::Workload;

use processors::Processors;
use results::{LeftOut, SCHEMA_VERSION, Settings};
use ringlb_netns::isolate;
use stage::House;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use system::Programs;

/// What is to be measured, and how.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// What the systems are made to do.
    pub(crate) workloads: Vec<Workload>,
    /// With what ringlb is compared.
    pub(crate) peers: Vec<System>,
    /// How often each system is run with each workload.
    pub(crate) rounds: u32,
    /// How long each run is measured.
    pub(crate) duration: Duration,
    /// How long it is loaded before that.
    pub(crate) warm_up: Duration,
    /// Where the results are written as JSON, after each run.
    pub(crate) json: Option<PathBuf>,
    /// The directory that a report and its plots are written to.
    pub(crate) report: Option<PathBuf>,
}

/// Runs a benchmark. To be called while the process has one thread, which becomes one of the load's processor. `tell` gets
/// a line about each run.
///
/// # Errors
/// Any [`BenchError`]. A system that fails in a run is no error; the results tell of it.
pub(crate) fn run(options: &Options, tell: &mut dyn FnMut(&str)) -> Result<Results, BenchError> {
    options.check()?;
    ringlb_load::raise_descriptor_limit()?;
    // Before the mounts are private, or the files would be, too.
    let outputs = Outputs::prepare(options)?;
    isolate::enter(isolate::Kind::of_this_process())?;
    let processors = Processors::choose()?;
    processors.enter_load()?;
    let systems = options.systems();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(BenchError::machine("start a runtime"))?;
    let programs = Programs::look_for(&systems);
    let house = House { runtime, directory: Directory::create()?, processors, programs };
    let mut results = Results {
        schema_version: SCHEMA_VERSION,
        complete: false,
        machine: machine::describe(processors, &house.programs),
        settings: Settings {
            rounds: options.rounds,
            duration_s: options.duration.as_secs_f64(),
            warm_up_s: options.warm_up.as_secs_f64(),
        },
        missing: house.programs.missing().to_vec(),
        left_out: Vec::new(),
        runs: Vec::new(),
        ratios: Vec::new(),
    };
    if house.programs.lacks(System::Ringlb) {
        let reason = results.missing.iter().find(|missing| missing.system == System::Ringlb);
        return Err(BenchError::Impossible(reason.map(|missing| missing.reason.clone()).unwrap_or_default()));
    }
    outputs.write(&results)?;
    for line in report::preamble(&results) {
        tell(&line);
    }
    let systems: Vec<_> = systems.into_iter().filter(|system| !house.programs.lacks(*system)).collect();
    for workload in &options.workloads {
        tell(&format!("{workload}: {}", workload.title()));
        for round in 1..=options.rounds {
            for system in order::of_round(&systems, round) {
                one_run(&house, options, *workload, system, round, &mut results, tell);
                kernel_cpu::fill_in(&mut results);
                results.ratios = ratios::of(&results);
                outputs.write(&results)?;
            }
        }
    }
    results.complete = true;
    outputs.write(&results)?;
    Ok(results)
}

fn one_run(
    house: &House,
    options: &Options,
    workload: Workload,
    system: System,
    round: u32,
    results: &mut Results,
    tell: &mut dyn FnMut(&str),
) {
    if let Err(reason) = workload.suits(system) {
        if round == 1 {
            results.left_out.push(LeftOut { workload, system, round: None, reason: reason.to_owned() });
        }
        return;
    }
    match measure::run(house, options, workload, system, round) {
        Ok(run) => {
            tell(&report::line(&run));
            results.runs.push(run);
        }
        Err(error) => {
            let reason = error.to_string();
            tell(&format!("  {system}, round {round}: FAILED: {reason}"));
            results.left_out.push(LeftOut { workload, system, round: Some(round), reason });
        }
    }
}

impl Options {
    /// All systems to measure, ringlb too, in their order.
    fn systems(&self) -> Vec<System> {
        let wanted = |system: &System| *system == System::Ringlb || self.peers.contains(system);
        System::ALL.into_iter().filter(wanted).collect()
    }

    fn check(&self) -> Result<(), BenchError> {
        let invalid = |option, reason: &str| Err(BenchError::Option { option, reason: reason.to_owned() });
        if self.rounds == 0 {
            return invalid("--rounds", "must be at least 1");
        }
        if self.duration.is_zero() {
            return invalid("--duration", "must be more than 0");
        }
        Ok(())
    }
}

/// The directory of configurations, logs and sockets, in a `/run` of the benchmark's own.
struct Directory(PathBuf);

impl Directory {
    fn create() -> Result<Self, BenchError> {
        let path = PathBuf::from("/run/ringlb-bench");
        fs::create_dir_all(&path).map_err(BenchError::file("create", &path))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

/// Where results go.
struct Outputs {
    json: Option<PathBuf>,
    report: Option<PathBuf>,
}

impl Outputs {
    /// So that it shows at once, not after an hour, if something cannot be written.
    fn prepare(options: &Options) -> Result<Self, BenchError> {
        let absolute = |path: &PathBuf| std::path::absolute(path).map_err(BenchError::file("find", path));
        let outputs = Self {
            json: options.json.as_ref().map(absolute).transpose()?,
            report: options.report.as_ref().map(absolute).transpose()?,
        };
        if let Some(parent) = outputs.json.as_deref().and_then(Path::parent) {
            fs::create_dir_all(parent).map_err(BenchError::file("create", parent))?;
        }
        if let Some(directory) = &outputs.report {
            fs::create_dir_all(directory).map_err(BenchError::file("create", directory))?;
        }
        Ok(outputs)
    }

    /// After each run, so that a benchmark that is interrupted has not been for nothing.
    fn write(&self, results: &Results) -> Result<(), BenchError> {
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(results)
                .map_err(|error| BenchError::file("write", path)(error.into()))?;
            replace(path, &(text + "\n"))?;
        }
        if let Some(directory) = &self.report {
            for (name, text) in report::files(results) {
                replace(&directory.join(name), &text)?;
            }
        }
        Ok(())
    }
}

/// Whoever reads meanwhile sees the old file or the new one.
fn replace(path: &Path, text: &str) -> Result<(), BenchError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    fs::write(&new, text).map_err(BenchError::file("write", &new))?;
    fs::rename(&new, path).map_err(BenchError::file("replace", path))
}

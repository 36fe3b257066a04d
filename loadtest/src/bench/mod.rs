//! `ringlb-load bench`: ringlb side by side with other balancers and with none, on the same work.
//!
//! Each run makes a network of its own (`topology.rs`), starts one system on it (`system/`) with servers behind it
//! (`stage.rs`), loads it (`work.rs`) and reads what the kernel says that it has cost (`measure.rs`). Everything happens in namespaces
//! of the benchmark's own, which end with it.

mod changes;
mod congestion;
mod idle;
mod kernel_cpu;
mod measure;
mod open_loop;
mod options;
mod order;
mod ratios;
mod report;
mod requests;
mod results;
#[cfg(test)]
mod samples;
mod stage;
mod system;
mod system_calls;
mod targets;
mod topology;
mod work;
pub(crate) mod workload;

pub(crate) use crate::instruments::BenchError;
pub(crate) use options::Options;
pub(crate) use report::document;
pub(crate) use results::Results;
pub(crate) use system::System;
pub(crate) use workload::Workload;

use crate::instruments::files::{Directory, Outputs};
use crate::instruments::host::Host;
use crate::instruments::processors::Processors;
use results::{LeftOut, Machine, Run, SCHEMA_VERSION, Settings};
use ringlb_netns::isolate;
use stage::House;
use system::Programs;

/// Runs a benchmark. To be called while the process has one thread, which becomes one of the load's processor. `tell` gets
/// a line about each run.
///
/// # Errors
/// Any [`BenchError`]. A system that fails in a run is no error; the results tell of it.
pub(crate) fn run(options: &Options, tell: &mut dyn FnMut(&str)) -> Result<Results, BenchError> {
    options.check()?;
    ringlb_load::raise_descriptor_limit()?;
    // Before the mounts are private, or the files would be, too.
    let outputs = Outputs::prepare(options.json.as_deref(), options.report.as_deref())?;
    isolate::enter(isolate::Kind::of_this_process())?;
    let processors = Processors::choose()?;
    processors.enter_load()?;
    let systems = options.systems();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(BenchError::machine("start a runtime"))?;
    let programs = Programs::look_for(&options.programs());
    let congestion_control = congestion::choose()?;
    let house =
        House { runtime, directory: Directory::create("ringlb-bench")?, processors, programs, congestion_control };
    let mut results = Results {
        schema_version: SCHEMA_VERSION,
        complete: false,
        machine: Machine {
            host: Host::describe(processors),
            congestion_control: house.congestion_control.clone(),
            versions: house.programs.versions(),
        },
        settings: Settings {
            workloads: options.workloads.clone(),
            rounds: options.rounds,
            duration_s: options.duration.as_secs_f64(),
            warm_up_s: options.warm_up.as_secs_f64(),
            open_loop_rate: None,
        },
        missing: house.programs.missing().to_vec(),
        left_out: Vec::new(),
        runs: Vec::new(),
        ratios: Vec::new(),
        system_calls: Vec::new(),
    };
    if house.programs.lacks(System::Ringlb) {
        let reason = results.missing.iter().find(|missing| missing.system == System::Ringlb);
        return Err(BenchError::Impossible(reason.map(|missing| missing.reason.clone()).unwrap_or_default()));
    }
    outputs.write(&results, || report::files(&results))?;
    for line in report::preamble(&results) {
        tell(&line);
    }
    let systems: Vec<_> = systems.into_iter().filter(|system| !house.programs.lacks(*system)).collect();
    for workload in &options.workloads {
        tell(&format!("{workload}: {}", workload.title()));
        if *workload == Workload::OpenLoop {
            open_loop::choose_rate(&house, options, &mut results, tell);
        }
        for round in 1..=options.rounds {
            for system in order::of_round(&workload.systems(&systems), round) {
                one_run(&house, options, *workload, system, round, &mut results, tell);
                kernel_cpu::fill_in(&mut results);
                results.ratios = ratios::of(&results);
                outputs.write(&results, || report::files(&results))?;
            }
        }
    }
    if options.count_system_calls {
        count_system_calls(&house, options, &systems, &mut results, tell);
    }
    results.complete = true;
    outputs.write(&results, || report::files(&results))?;
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
    if workload == Workload::OpenLoop && results.settings.open_loop_rate.is_none() {
        return;
    }
    match measure::run(house, options, workload, system, results.settings.open_loop_rate) {
        Ok(run) => {
            let run = Run { round, ..run };
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

fn count_system_calls(
    house: &House,
    options: &Options,
    systems: &[System],
    results: &mut Results,
    tell: &mut dyn FnMut(&str),
) {
    tell("system calls");
    for workload in &options.workloads {
        for system in systems.iter().copied().filter(|system| workload.suits(*system).is_ok()) {
            match system_calls::count(house, options, *workload, system) {
                Ok(None) => {}
                Ok(Some(calls)) => {
                    tell(&report::calls_line(&calls));
                    results.system_calls.push(calls);
                }
                Err(error) => {
                    let reason = format!("system calls cannot be counted: {error}");
                    tell(&format!("  {workload}, {system}: {reason}"));
                    results.left_out.push(LeftOut { workload: *workload, system, round: None, reason });
                }
            }
        }
    }
}

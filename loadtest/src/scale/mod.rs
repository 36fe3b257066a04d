//! `ringlb-load scale`: what ringlb costs by size: networks, services and backends.
//!
//! Each step starts a daemon of its own, builds all of it by its API (`stage.rs`, `plan.rs`), measures (`measure.rs`), and
//! takes it down. Everything happens in namespaces of the run's own, which end with it. Backends are addresses; behind
//! those of one service there is a server, for connections to be made.

mod changes;
mod fit;
mod kernel_balancer;
mod measure;
mod objects;
mod options;
mod picks;
mod plan;
mod report;
mod results;
#[cfg(test)]
mod samples;
mod size;
mod stage;

pub(crate) use options::Options;
pub(crate) use report::document;
pub(crate) use results::Results;
pub(crate) use size::{Size, Steps};

use crate::instruments::BenchError;
use crate::instruments::files::{Directory, Outputs};
use crate::instruments::host::Host;
use crate::instruments::processors::Processors;
use crate::instruments::programs::Found;
use results::{SCHEMA_VERSION, Settings};
use ringlb_netns::isolate;
use stage::House;

/// Measures all steps. To be called while the process has one thread, which becomes one of the load's processor. `tell`
/// gets lines about how far it has come.
///
/// # Errors
/// Any [`BenchError`]. The results of the steps before are written then.
pub(crate) fn run(options: &Options, tell: &mut dyn FnMut(&str)) -> Result<Results, BenchError> {
    let plans = options.plans()?;
    ringlb_load::raise_descriptor_limit()?;
    // Before the mounts are private, or the files would be, too.
    let outputs = Outputs::prepare(options.json.as_deref(), options.report.as_deref())?;
    isolate::enter(isolate::Kind::of_this_process())?;
    let processors = Processors::choose()?;
    processors.enter_load()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(BenchError::machine("start a runtime"))?;
    let ringlb = Found::ringlb().map_err(BenchError::Impossible)?;
    let house = House { runtime, directory: Directory::create("ringlb-scale")?, processors, ringlb };
    let mut results = Results {
        schema_version: SCHEMA_VERSION,
        complete: false,
        machine: Host::describe(processors),
        version: house.ringlb.version.clone(),
        settings: Settings {
            changes: options.changes,
            duration_s: options.duration.as_secs_f64(),
            containers: options.containers,
        },
        steps: Vec::new(),
        fits: Vec::new(),
        ratios: std::collections::BTreeMap::new(),
    };
    tell(&report::preamble(&results));
    for plan in plans {
        let step = measure::step(&house, options, plan, tell)?;
        tell(&report::line(&step));
        results.steps.push(step);
        results.derive();
        outputs.write(&results, || report::files(&results))?;
    }
    results.complete = true;
    outputs.write(&results, || report::files(&results))?;
    Ok(results)
}

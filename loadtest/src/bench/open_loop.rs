//! The rate of the open loop: what HAProxy does easily.

use super::Options;
use super::measure;
use super::results::{LeftOut, Metric, Results};
use super::stage::House;
use super::system::System;
use super::workload::Workload;
use crate::instruments::statistics::Spread;

/// What part of HAProxy's own rate is asked of all.
const SHARE: f64 = 0.5;

/// Sets the rate to half of what HAProxy reached with 64 connections, in this benchmark's rounds, or in a run that is made
/// for it. Without HAProxy the workload is left out.
pub(super) fn choose_rate(house: &House, options: &Options, results: &mut Results, tell: &mut dyn FnMut(&str)) {
    match maximum(house, options, results) {
        Ok(maximum) => {
            let rate = (maximum * SHARE).round();
            tell(&format!("  at {rate} requests a second"));
            results.settings.open_loop_rate = Some(rate);
        }
        Err(reason) => {
            tell(&format!("  left out: {reason}"));
            let workload = Workload::OpenLoop;
            results.left_out.push(LeftOut { workload, system: System::Haproxy, round: None, reason });
        }
    }
}

fn maximum(house: &House, options: &Options, results: &Results) -> Result<f64, String> {
    let measured = results.values(Workload::Pingpong64, System::Haproxy, Metric::Rate);
    if let Some(spread) = Spread::of(&measured) {
        return Ok(spread.median);
    }
    let run = measure::run(house, options, Workload::Pingpong64, System::Haproxy, None);
    let run = run.map_err(|error| format!("its rate depends on HAProxy's, and that is unknown: {error}"))?;
    run.rate.filter(|rate| *rate > 2.0).ok_or_else(|| "no request got through HAProxy".to_owned())
}

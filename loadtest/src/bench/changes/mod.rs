//! Changes of ringlb's tables: how soon they are in force, how many a second, and what traffic notices of them.

mod churn;
mod propagation;
mod sustained;

pub(super) use churn::{Churn, Churned};
pub(super) use propagation::measure as propagation;
pub(super) use sustained::{measure_batches as batches, measure_single as single};

//! When health and place decide who gets new connections.

use super::number::number_setting;

number_setting! {
    /// The share of backends, in percent, below which health is not looked at any more: 0 (it always is) to 100.
    PanicThreshold(u16), 0 to 100, default 50
}

number_setting! {
    /// The share of the local backends, in percent, that must be healthy for them to be preferred: 0 (one is enough) to 100.
    LocalThreshold(u16), 0 to 100, default 50
}

//! Times that can be set, each with its bounds: written as `500ms`, `30s`, `5m` or `24h`.

use super::text::parsed;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A time that is always there.
macro_rules! duration_setting {
    ($(#[$documentation:meta])* $name:ident, $what:literal, $min:expr, $max:expr, default $default:expr) => {
        $(#[$documentation])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name(pub Duration);

        impl Default for $name {
            fn default() -> Self {
                Self($default)
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let (min, max): (Duration, Duration) = ($min, $max);
                parse(text, min, max).map(Self).ok_or_else(|| {
                    let (min, max) = (format(min), format(max));
                    format!(concat!("{:?} is not ", $what, ": write such as `500ms` or `2s`, from `{}` to `{}`"), text, min, max)
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(&format(self.0))
            }
        }

        as_text_or_milliseconds!($name, u64, milliseconds, |value| Duration::from_millis(value));
    };
}

/// A time that can be `never`.
macro_rules! optional_duration_setting {
    ($(#[$documentation:meta])* $name:ident, $what:literal, $min:expr, $max:expr, default $default:expr) => {
        $(#[$documentation])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name(pub Option<Duration>);

        impl Default for $name {
            fn default() -> Self {
                Self($default)
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                if text == "never" {
                    return Ok(Self(None));
                }
                let (min, max): (Duration, Duration) = ($min, $max);
                parse(text, min, max).map(|duration| Self(Some(duration))).ok_or_else(|| {
                    let least = if min.is_zero() { String::new() } else { format!(", at least `{}`", format(min)) };
                    let most = format(max);
                    format!(concat!("{:?} is not ", $what, ": write such as `500ms`, `30s`, `5m`{}, at most `{}`, or `never`"), text, least, most)
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    None => formatter.pad("never"),
                    Some(duration) => formatter.pad(&format(duration)),
                }
            }
        }

        as_text_or_milliseconds!(
            $name,
            Option<u64>,
            |time: Option<Duration>| time.map(milliseconds),
            |value: Option<u64>| value.map(Duration::from_millis)
        );
    };
}

macro_rules! as_text_or_milliseconds {
    ($name:ident, $number:ty, $into:expr, $from:expr) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    ($into)(self.0).serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    parsed(deserializer, "a duration such as `30s`")
                } else {
                    <$number>::deserialize(deserializer).map($from).map(Self)
                }
            }
        }
    };
}

const HOUR: Duration = Duration::from_secs(3600);

optional_duration_setting! {
    /// How long a draining backend keeps its connections: 0 to 24 hours, or for ever (`never`). By default 30 seconds: three
    /// times the time that Docker gives a stopping task.
    DrainTimeout, "a drain timeout", Duration::ZERO, 24 * HOUR, default Some(Duration::from_secs(30))
}

duration_setting! {
    /// How long one attempt to connect to a backend may take: 1 ms to 60 s. By default 2 seconds: a lost SYN is sent again
    /// after 1 second (RFC 6298, section 2), so that one loss is forgiven.
    ConnectTimeout, "a connect timeout", Duration::from_millis(1), Duration::from_secs(60), default Duration::from_secs(2)
}

duration_setting! {
    /// How long a connection may wait for a place at a backend: 10 ms to 60 s, by default 5 seconds.
    QueueTimeout, "a queue timeout", Duration::from_millis(10), Duration::from_secs(60), default Duration::from_secs(5)
}

duration_setting! {
    /// How long a trusted peer may take to send its PROXY protocol header: 100 ms to 60 s, by default 5 seconds. It is sent
    /// first, but one packet may have to be sent again, and again.
    ProxyProtocolTimeout, "a PROXY protocol timeout", Duration::from_millis(100), Duration::from_secs(60),
    default Duration::from_secs(5)
}

optional_duration_setting! {
    /// How long a connection may be without any data before it is reset: 1 s to 30 days. Seen once a second. By default
    /// `never`: an idle connection costs a few hundred bytes, and a cut one its application an error.
    IdleTimeout, "an idle timeout", Duration::from_secs(1), 720 * HOUR, default None
}

optional_duration_setting! {
    /// How long a connection may last: 1 s to 30 days, by default `never`. It ends somewhere in the last tenth of this time,
    /// at a random moment so that connections made together do not end together, as soon as it has been silent for a
    /// second; at the end of this time in any case.
    MaxLifetime, "a maximum lifetime", Duration::from_secs(1), 720 * HOUR, default None
}

optional_duration_setting! {
    /// The silence before the first keepalive probe (`TCP_KEEPIDLE`): 1 s to 9 h; the kernel's limit is 32,767 s. `never`
    /// sends none.
    KeepaliveIdle, "a keepalive time", Duration::from_secs(1), 9 * HOUR, default Some(Duration::from_secs(120))
}

duration_setting! {
    /// The time between keepalive probes (`TCP_KEEPINTVL`): 1 s to 1 h.
    KeepaliveInterval, "a keepalive interval", Duration::from_secs(1), HOUR, default Duration::from_secs(15)
}

optional_duration_setting! {
    /// How long data that was sent to a peer may be without an acknowledgement before the connection is reset
    /// (`TCP_USER_TIMEOUT`, tcp(7)): 1 s to 24 h. By default `never`, which leaves it to the kernel: about 15 minutes. A
    /// peer that acknowledges but reads nothing for so long is cut off too, so a short time is not for everybody.
    UserTimeout, "a user timeout", Duration::from_secs(1), 24 * HOUR, default None
}

duration_setting! {
    /// Over which time a new backend's share rises: 0 (at once, the default) to 1 hour.
    SlowStart, "a slow start time", Duration::ZERO, HOUR, default Duration::ZERO
}

duration_setting! {
    /// How long the first ejection of a backend lasts: 100 ms to 1 hour. By default 10 seconds, the order of a container's
    /// restart.
    EjectionBase, "an ejection time", Duration::from_millis(100), HOUR, default Duration::from_secs(10)
}

duration_setting! {
    /// How long an ejection lasts at most: 100 ms to 24 hours. By default 5 minutes.
    EjectionLongest, "a longest ejection time", Duration::from_millis(100), 24 * HOUR, default Duration::from_secs(300)
}

duration_setting! {
    /// The time between two checks of a backend: 100 ms to 1 hour, by default 5 seconds.
    CheckInterval, "a check interval", Duration::from_millis(100), HOUR, default Duration::from_secs(5)
}

duration_setting! {
    /// How long a check may take: 1 ms to 60 s, by default 2 seconds.
    CheckTimeout, "a check timeout", Duration::from_millis(1), Duration::from_secs(60), default Duration::from_secs(2)
}

duration_setting! {
    /// How long a UDP session may be idle before it ends: 100 ms to 24 hours. By default 60 seconds: longer than anything that
    /// talks regularly is silent, and short enough that clients which never come back do not hold descriptors and ports for
    /// long. (IPVS keeps a session for 300 seconds, which costs it a few hundred bytes; here it costs a socket.) A client
    /// that comes back later is served all the same, perhaps by another backend.
    UdpIdleTimeout, "an idle timeout", Duration::from_millis(100), 24 * HOUR, default Duration::from_secs(60)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn parse(text: &str, min: Duration, max: Duration) -> Option<Duration> {
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let duration = Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(milliseconds)?);
    (min..=max).contains(&duration).then_some(duration)
}

/// The shortest exact form.
fn format(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    match milliseconds {
        0 => "0s".to_owned(),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, milliseconds) in
            [("0s", 0), ("1ms", 1), ("1500ms", 1500), ("30s", 30_000), ("5m", 300_000), ("24h", 86_400_000)]
        {
            let timeout: DrainTimeout = text.parse().unwrap();
            assert_eq!(timeout.0, Some(Duration::from_millis(milliseconds)), "{text}");
            assert_eq!(timeout.to_string(), text);
        }
        assert_eq!("never".parse(), Ok(DrainTimeout(None)));
        assert_eq!("90s".parse::<DrainTimeout>().unwrap().to_string(), "90s");
        assert_eq!("120s".parse::<DrainTimeout>().unwrap().to_string(), "2m");
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "30",
            "s",
            "-1s",
            "1.5s",
            "30 s",
            "30S",
            "1d",
            "25h",
            "99999999999999999999s",
            "18446744073709551615h",
            "never ",
        ] {
            let reason = text.parse::<DrainTimeout>().unwrap_err();
            assert!(reason.contains("is not a drain timeout"), "{reason}");
        }
        for text in ["0s", "61s", "never", "1h"] {
            let reason = text.parse::<ConnectTimeout>().unwrap_err();
            assert!(reason.contains("is not a connect timeout") && reason.contains("from `1ms` to `1m`"), "{reason}");
        }
    }

    #[test]
    fn messages_hold_milliseconds() {
        for timeout in [DrainTimeout(None), DrainTimeout(Some(Duration::from_millis(1500)))] {
            let message = postcard::to_stdvec(&timeout).unwrap();
            assert!(message.len() <= 3);
            assert_eq!(postcard::from_bytes::<DrainTimeout>(&message).unwrap(), timeout);
        }
        let message = postcard::to_stdvec(&ConnectTimeout::default()).unwrap();
        assert_eq!(postcard::from_bytes::<u64>(&message).unwrap(), 2000);
    }
}

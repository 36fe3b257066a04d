//! What clients and servers of this crate say to each other.
//!
//! # TCP
//!
//! A client's first bytes decide what a connection is for. If they are a command line, the server obeys; if not, it
//! is a plain echo server from the first byte on. A line ends with a line feed (a carriage return before it is
//! tolerated); commands are in capitals; between a command and its numbers there is one space.
//!
//! | the client sends | the server answers |
//! |---|---|
//! | `ID` | its name and a line feed, then it closes: first, so that `TIME_WAIT` is the server's side's |
//! | `ECHO` | its name and a line feed, then every byte that follows, until the client ends its direction; then it closes |
//! | `DISCARD [POSITION]` | its name and a line feed. The client sends the [`pattern`](crate::pattern) from POSITION (0) on and ends its direction; the server answers with a [`Verdict`] line and closes |
//! | `SOURCE BYTES [POSITION]` | its name and a line feed, then BYTES bytes (0: without end) of the pattern from POSITION (0) on, then it closes. If the client ends its direction, the server stops early |
//! | anything else | the same bytes |
//!
//! A name is 1 to [`MAX_NAME`] printable ASCII characters without spaces. While the first bytes can still become a
//! command, an echo server by this protocol waits for more of them: an echo client that sends `I` alone gets it back
//! only with its next byte, or when it ends its direction.

use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// The longest command line, line feed included.
pub const MAX_LINE: usize = 64;
/// The longest name.
pub const MAX_NAME: usize = 63;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Say your name and close.
    Identify,
    /// Say your name and echo.
    Echo,
    /// Say your name, take a stream and judge it.
    Discard {
        /// Where in the pattern the stream starts.
        position: u64,
    },
    /// Say your name and give a stream.
    Source {
        /// How many bytes; 0 is without end.
        bytes: u64,
        /// Where in the pattern the stream starts.
        position: u64,
    },
}

impl Command {
    /// The command as a line, line feed included.
    #[must_use]
    pub fn line(self) -> Vec<u8> {
        match self {
            Self::Identify => b"ID\n".to_vec(),
            Self::Echo => b"ECHO\n".to_vec(),
            Self::Discard { position } => format!("DISCARD {position}\n").into_bytes(),
            Self::Source { bytes, position } => format!("SOURCE {bytes} {position}\n").into_bytes(),
        }
    }
}

/// What a connection's first bytes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// More bytes are needed to tell.
    Undecided,
    /// No command: all bytes are to be echoed.
    Plain,
    /// A command.
    Command {
        /// The command.
        command: Command,
        /// The length of its line; what follows it is data.
        length: usize,
    },
}

/// Tells what a connection's first bytes mean.
#[must_use]
pub fn parse_opening(bytes: &[u8]) -> Opening {
    let window = &bytes[..bytes.len().min(MAX_LINE)];
    match window.iter().position(|byte| *byte == b'\n') {
        Some(end) => match parse_command(window[..end].strip_suffix(b"\r").unwrap_or(&window[..end])) {
            Some(command) => Opening::Command { command, length: end + 1 },
            None => Opening::Plain,
        },
        None if window.len() < MAX_LINE && can_become_command(window) => Opening::Undecided,
        None => Opening::Plain,
    }
}

fn parse_command(line: &[u8]) -> Option<Command> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let command = match words.next()? {
        "ID" => Command::Identify,
        "ECHO" => Command::Echo,
        "DISCARD" => Command::Discard { position: words.next().map_or(Some(0), parse_number)? },
        "SOURCE" => Command::Source {
            bytes: parse_number(words.next()?)?,
            position: words.next().map_or(Some(0), parse_number)?,
        },
        _ => return None,
    };
    words.next().is_none().then_some(command)
}

/// Decimal digits only: `u64::from_str` would also take a plus sign.
fn parse_number(word: &str) -> Option<u64> {
    if word.bytes().all(|byte| byte.is_ascii_digit()) { word.parse().ok() } else { None }
}

fn can_become_command(bytes: &[u8]) -> bool {
    const COMMANDS: [(&[u8], usize); 4] = [(b"ID", 0), (b"ECHO", 0), (b"DISCARD", 1), (b"SOURCE", 2)];
    COMMANDS.iter().any(|(word, numbers)| match bytes.strip_prefix(*word) {
        Some(rest) => {
            let rest = rest.strip_suffix(b"\r").unwrap_or(rest);
            let shape = rest.first().is_none_or(|byte| *byte == b' ');
            let spaces = rest.iter().filter(|byte| **byte == b' ').count();
            shape && spaces <= *numbers && rest.iter().all(|byte| *byte == b' ' || byte.is_ascii_digit())
        }
        None => word.starts_with(bytes),
    })
}

/// Turns a datagram into its answer, in place. Returns the answer's length, which is at most the datagram's.
pub fn answer_datagram(datagram: &mut [u8], name_line: &[u8]) -> usize {
    let length = datagram.len();
    match parse_opening(datagram) {
        Opening::Command { command: Command::Identify, .. } => {
            let told = name_line.len().min(length);
            datagram[..told].copy_from_slice(&name_line[..told]);
            told
        }
        Opening::Command { command: Command::Echo, .. } if name_line.len() <= length => {
            datagram[..name_line.len()].copy_from_slice(name_line);
            length
        }
        Opening::Command { .. } | Opening::Plain | Opening::Undecided => length,
    }
}

/// What a server says of a stream that it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was what the pattern says, and this many bytes.
    Received(u64),
    /// The byte at this offset of the stream was the first that was not what the pattern says.
    Mismatch(u64),
}

impl Verdict {
    /// Reads a verdict's line, line feed included.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let (word, number) = std::str::from_utf8(line).ok()?.strip_suffix('\n')?.split_once(' ')?;
        let number = parse_number(number)?;
        match word {
            "received" => Some(Self::Received(number)),
            "mismatch" => Some(Self::Mismatch(number)),
            _ => None,
        }
    }
}

/// The line, without its line feed.
impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Received(bytes) => write!(formatter, "received {bytes}"),
            Self::Mismatch(offset) => write!(formatter, "mismatch {offset}"),
        }
    }
}

/// A server's name: 1 to [`MAX_NAME`] printable ASCII characters without spaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerName(String);

impl ServerName {
    /// This machine's host name, which is the container's in a container.
    #[must_use]
    pub fn of_host() -> Self {
        std::fs::read_to_string("/proc/sys/kernel/hostname")
            .ok()
            .and_then(|name| name.trim_end().parse().ok())
            .unwrap_or_else(|| Self("server".to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as a line, line feed included.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        format!("{}\n", self.0).into_bytes()
    }
}

/// A name that is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a server's name is 1 to {MAX_NAME} printable ASCII characters without spaces")]
pub struct InvalidName;

impl FromStr for ServerName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        if is_name(name.as_bytes()) { Ok(Self(name.to_owned())) } else { Err(InvalidName) }
    }
}

fn is_name(bytes: &[u8]) -> bool {
    (1..=MAX_NAME).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

/// What the first bytes of an answer mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameLine<'a> {
    /// More bytes are needed to tell.
    Undecided,
    /// Not a line with a name; the byte at this offset is the first that cannot be.
    Invalid(usize),
    /// A name.
    Name {
        /// The name.
        name: &'a str,
        /// The length of its line; what follows it is data.
        length: usize,
    },
}

/// Reads the line with a server's name at the start of its answer.
#[must_use]
pub fn parse_name_line(bytes: &[u8]) -> NameLine<'_> {
    let window = &bytes[..bytes.len().min(MAX_NAME + 1)];
    let length = window.iter().take_while(|byte| byte.is_ascii_graphic()).count();
    match (window.get(length), std::str::from_utf8(&window[..length])) {
        (Some(b'\n'), Ok(name)) if length > 0 => NameLine::Name { name, length: length + 1 },
        (None, _) if length <= MAX_NAME => NameLine::Undecided,
        _ => NameLine::Invalid(length.min(MAX_NAME)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagrams_answer_names_the_server_where_asked_to_and_is_never_longer() {
        for (datagram, answer) in [
            (&b"ID\n                "[..], &b"backend-1\n"[..]),
            (b"ID\n", b"bac"),
            (b"ID\r\n 123456", b"backend-1\n"),
            (b"ECHO\n1234567890", b"backend-1\n67890"),
            (b"ECHO\n12345", b"backend-1\n"),
            (b"ECHO\n1234", b"ECHO\n1234"),
            (b"SOURCE 1000000\n", b"SOURCE 1000000\n"),
            (b"DISCARD\nabc", b"DISCARD\nabc"),
            (b"ID", b"ID"),
            (b"hello", b"hello"),
            (b"", b""),
        ] {
            let mut bytes = datagram.to_vec();
            let length = answer_datagram(&mut bytes, b"backend-1\n");
            assert_eq!(&bytes[..length], answer, "{:?}", String::from_utf8_lossy(datagram));
        }
    }

    #[test]
    fn commands_survive_their_line() {
        for command in [
            Command::Identify,
            Command::Echo,
            Command::Discard { position: 0 },
            Command::Discard { position: u64::MAX },
            Command::Source { bytes: 0, position: 17 },
            Command::Source { bytes: u64::MAX, position: u64::MAX },
        ] {
            let mut line = command.line();
            let length = line.len();
            assert!(length <= MAX_LINE);
            line.extend_from_slice(b"data\nID\n");
            assert_eq!(parse_opening(&line), Opening::Command { command, length });
            for end in 0..length {
                assert_eq!(parse_opening(&line[..end]), Opening::Undecided, "{:?}", &line[..end]);
            }
        }
    }

    #[test]
    fn numbers_may_be_left_out_and_carriage_returns_are_tolerated() {
        let discard = Command::Discard { position: 0 };
        assert_eq!(parse_opening(b"DISCARD\n"), Opening::Command { command: discard, length: 8 });
        let source = Command::Source { bytes: 9, position: 0 };
        assert_eq!(parse_opening(b"SOURCE 9\r\n"), Opening::Command { command: source, length: 10 });
        assert_eq!(parse_opening(b"ID\r"), Opening::Undecided);
        assert_eq!(parse_opening(b"ID\r\n"), Opening::Command { command: Command::Identify, length: 4 });
    }

    #[test]
    fn everything_else_is_echoed() {
        for bytes in [
            &b"\n"[..],
            b"hello",
            b"\0",
            b"id\n",
            b"IDX",
            b"ID \n",
            b"ID x",
            b"ID\rx",
            b"ECHO 1\n",
            b"ECHO hello",
            b"DISCARD x",
            b"DISCARD 1 2\n",
            b"DISCARD  1\n",
            b"DISCARD +1\n",
            b"DISCARD -1\n",
            b"SOURCE\n",
            b"SOURCE 1 2 3",
            b"SOURCE 18446744073709551616\n",
            b"SOURCEX",
            &[b'I'; 64],
            &[0xff; 200],
        ] {
            assert_eq!(parse_opening(bytes), Opening::Plain, "{:?}", bytes.escape_ascii().to_string());
        }
        let endless = [b"SOURCE ".as_slice(), &[b'1'; 100]].concat();
        assert_eq!(parse_opening(&endless), Opening::Plain);
    }

    #[test]
    fn names_survive_their_line() {
        let name: ServerName = "backend-1.example:8080".parse().unwrap();
        let mut line = name.line();
        let length = line.len();
        for end in 0..length {
            assert_eq!(parse_name_line(&line[..end]), NameLine::Undecided);
        }
        line.extend_from_slice(b"more");
        assert_eq!(parse_name_line(&line), NameLine::Name { name: name.as_str(), length });
        let longest = "n".repeat(MAX_NAME);
        assert!(longest.parse::<ServerName>().is_ok());
        assert!(matches!(parse_name_line(format!("{longest}\n").as_bytes()), NameLine::Name { .. }));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for name in ["", "a b", "a\n", "ä", "\u{7f}", &"n".repeat(MAX_NAME + 1)] {
            assert_eq!(name.parse::<ServerName>(), Err(InvalidName), "{name:?}");
        }
        assert_eq!(parse_name_line(b"\n"), NameLine::Invalid(0));
        assert_eq!(parse_name_line(b"ab\0c\n"), NameLine::Invalid(2));
        assert_eq!(parse_name_line("n".repeat(MAX_NAME + 1).as_bytes()), NameLine::Invalid(MAX_NAME));
    }

    #[test]
    fn verdicts_survive_their_line() {
        for verdict in [Verdict::Received(0), Verdict::Received(u64::MAX), Verdict::Mismatch(12)] {
            assert_eq!(Verdict::parse(format!("{verdict}\n").as_bytes()), Some(verdict));
        }
        for line in ["received 1", "received\n", "received x\n", "received +1\n", "lost 1\n", "\n", ""] {
            assert_eq!(Verdict::parse(line.as_bytes()), None, "{line:?}");
        }
    }

    #[test]
    fn the_host_has_a_name() {
        assert!(is_name(ServerName::of_host().as_str().as_bytes()));
    }
}

//! OpenSSH: commands, a pipe and a session.

use super::{Server, Stage, VIP, pattern, text};
use crate::node::{Process, finish};
use nix::sys::signal::Signal;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

const SSHD: &str = "/usr/sbin/sshd";

/// Two servers with one host key, as behind one name, and the keys.
pub(super) struct Ssh {
    _servers: [Server; 2],
    directory: tempfile::TempDir,
}

impl Ssh {
    pub(super) fn start(stage: &Stage) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_str().unwrap();
        for key in ["host", "user"] {
            let path = format!("{root}/{key}");
            finish(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", key, "-f", &path]));
        }
        let host_key = fs::read_to_string(directory.path().join("host.pub")).unwrap();
        fs::write(directory.path().join("known_hosts"), format!("{VIP} {host_key}")).unwrap();
        // Strict modes refuse keys below a directory that others may write to, such as /tmp. PAM would do to the test's
        // login what the machine does to people's.
        let configuration = format!(
            "Port 22\nHostKey {root}/host\nAuthorizedKeysFile {root}/user.pub\nPidFile none\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nPermitRootLogin prohibit-password\nLogLevel ERROR\nMaxStartups 100\n"
        );
        fs::write(directory.path().join("sshd_config"), configuration).unwrap();
        // Where the unprivileged part of the server lives; the package makes it at each boot. /run is the test's own.
        fs::create_dir_all("/run/sshd").unwrap();
        let arguments = ["-D", "-e", "-f", &format!("{root}/sshd_config")];
        let servers = stage.backends.each_ref().map(|backend| {
            let server = Server { process: backend.spawn(SSHD, &arguments), end: Signal::SIGTERM };
            backend.wait_for_port(22);
            server
        });
        Self { _servers: servers, directory }
    }

    /// ssh through the VIP, with none of the user's own settings.
    fn command(&self, stage: &Stage, remote: &str) -> Command {
        let root = self.directory.path().to_str().unwrap();
        let options = [
            "-F",
            "none",
            "-i",
            &format!("{root}/user"),
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            &format!("UserKnownHostsFile={root}/known_hosts"),
            "-l",
            "root",
            VIP,
            remote,
        ];
        stage.client.command("ssh", &options)
    }

    /// Commands reach both backends, and their status comes back.
    pub(super) fn run_commands(&self, stage: &Stage) {
        // SSH_CONNECTION is the client's address and port, then the server's: ssh(1).
        let servers: HashSet<_> = (0..4)
            .map(|_| {
                let said = text(finish(&mut self.command(stage, "echo $SSH_CONNECTION")));
                said.split(' ').nth(2).unwrap_or_else(|| panic!("{said}")).to_owned()
            })
            .collect();
        assert_eq!(servers, stage.backends.each_ref().map(|backend| backend.address.to_string()).into());
        assert_eq!(self.command(stage, "exit 42").status().unwrap().code(), Some(42));
    }

    /// 50 MB to the other side and back again over one connection, while the other side says the checksum of what it got.
    pub(super) fn pipe(&self, stage: &Stage) {
        let path = self.directory.path().join("large");
        let content = pattern(50_000_000);
        fs::write(&path, &content).unwrap();
        let back = finish(self.command(stage, "cat").stdin(File::open(&path).unwrap()));
        assert!(back == content, "{} of {} bytes came back, or others", back.len(), content.len());
        let there = text(finish(self.command(stage, "sha256sum").stdin(File::open(&path).unwrap())));
        let here = text(finish(Command::new("sha256sum").stdin(File::open(&path).unwrap())));
        assert_eq!(there, here);
    }
}

/// A session that echoes what it is told.
pub(super) struct Session {
    process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    /// Open when this returns.
    pub(super) fn open(ssh: &Ssh, stage: &Stage) -> Self {
        let mut command = ssh.command(stage, "cat");
        let mut process = Process::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let (input, output) = (process.0.stdin.take().unwrap(), process.0.stdout.take().unwrap());
        let mut session = Self { process, input, output: BufReader::new(output) };
        session.assert_echoes("first");
        session
    }

    /// The other side answers. The test's own time limit ends a wait in vain.
    pub(super) fn assert_echoes(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
        let mut said = String::new();
        self.output.read_line(&mut said).unwrap();
        assert_eq!(said.trim_end(), line);
    }

    /// Ends as a user ends it, with the status of the remote command.
    pub(super) fn close(mut self) {
        drop(self.input);
        assert_eq!(self.process.wait(), Some(0));
    }
}

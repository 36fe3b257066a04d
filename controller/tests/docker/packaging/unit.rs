//! ringlb as the service of systemd that `packaging/ringlb.service` makes it.

use super::{copy_programs, repository};
use crate::admin::Admin;
use crate::engine::Engine;
use crate::machine::Machine;
use crate::wait::{finish, wait_until};
use std::path::{Path, PathBuf};

/// The service on a machine. What was started ends with the machine.
pub(super) struct Unit<'a> {
    machine: &'a Machine,
    pub(super) admin: Admin,
}

impl<'a> Unit<'a> {
    /// Installs it as README says, without starting it.
    pub(super) fn install(engine: &'a Engine) -> Self {
        let machine = &engine.machine;
        copy_programs(&machine.path(Path::new("/usr/local/bin")));
        let file = Path::new("/etc/systemd/system/ringlb.service");
        std::fs::copy(repository("packaging/ringlb.service"), machine.path(file)).unwrap();
        let verified = machine.command("systemd-analyze").arg("verify").arg(file).output().unwrap();
        let remarks = String::from_utf8_lossy(&verified.stderr);
        assert!(verified.status.success() && !remarks.contains("ringlb.service"), "{remarks}");
        machine.systemctl(&["daemon-reload"]);
        machine.systemctl(&["enable", "--quiet", "ringlb"]);
        Self { machine, admin: Admin::of(&machine.path(Path::new("/run/ringlb"))) }
    }

    /// The same, started; it answers.
    pub(super) fn start(engine: &'a Engine) -> Self {
        let unit = Self::install(engine);
        unit.systemctl("start");
        unit.wait_until_it_answers();
        unit
    }

    /// Changes the settings of the unit by those in a file of this content, instead of earlier changes.
    pub(super) fn change(&self, content: &str) {
        let directory = self.machine.path(Path::new("/etc/systemd/system/ringlb.service.d"));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("test.conf"), content).unwrap();
        self.machine.systemctl(&["daemon-reload"]);
    }

    /// Tells systemd to do that with it.
    pub(super) fn systemctl(&self, verb: &str) {
        self.machine.systemctl(&[verb, "ringlb"]);
    }

    pub(super) fn wait_until_it_answers(&self) {
        wait_until("the daemon answers", || self.admin.answers());
    }

    pub(super) fn property(&self, property: &str) -> String {
        self.machine.property("ringlb", property)
    }

    /// The daemon's process as the machine numbers it; 0 if there is none.
    pub(super) fn main_pid(&self) -> u32 {
        self.property("MainPID").parse().unwrap()
    }

    /// Where what the daemon and its proxies say is found from here.
    pub(super) fn log(&self) -> PathBuf {
        self.machine.service_log("ringlb")
    }

    /// Runs `ringlb` on the machine, which must succeed; gives what it printed.
    pub(super) fn ringlb(&self, arguments: &[&str]) -> String {
        finish(self.machine.command("ringlb").args(arguments))
    }

    /// The processes of proxies on the machine, whether or not there is a daemon that knows them.
    pub(super) fn running_proxies(&self) -> Vec<i64> {
        running_proxies(self.machine)
    }
}

/// The processes of proxies on a machine, as it numbers them, sorted.
pub(super) fn running_proxies(machine: &Machine) -> Vec<i64> {
    let entries = std::fs::read_dir(machine.path(Path::new("/proc"))).unwrap().filter_map(Result::ok);
    let is_proxy = |entry: &std::fs::DirEntry| {
        std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.trim_end() == "ringlb-proxy")
    };
    let pids = entries.filter(is_proxy).filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut pids: Vec<i64> = pids.collect();
    pids.sort_unstable();
    pids
}

impl Drop for Unit<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            println!("log of the service on {}:\n{log}", self.machine.name);
            if self.admin.answers() {
                println!("its status:\n{:#}", self.admin.status());
            }
        }
    }
}

use super::*;
use crate::model::{BackendChange, BackendSpec, Families, NetworkSpec, ServiceChange};
use std::os::unix::fs::PermissionsExt;

fn put_network() -> Change {
    let subnet: ipnet::IpNet = "10.1.0.0/16".parse().unwrap();
    Change::PutNetwork(NetworkSpec { subnet: subnet.into(), vip_prefix: Families::default() })
}

fn service(change: ServiceChange) -> Change {
    Change::Service { service: "api".to_owned(), change }
}

fn backend(last: u8, change: BackendChange) -> Change {
    service(ServiceChange::Backend { address: [10, 1, 0, last].into(), change })
}

fn all_changes() -> Vec<Change> {
    vec![
        put_network(),
        service(ServiceChange::Put(Box::default())),
        backend(1, BackendChange::Put(BackendSpec::default())),
        backend(2, BackendChange::Put(BackendSpec::default())),
        backend(2, BackendChange::Drain),
        backend(1, BackendChange::Remove),
    ]
}

/// Takes changes as [`super::super::Desired`] does.
fn take(journal: &mut Journal, model: &mut Model, changes: &[Change]) {
    for change in changes {
        let next = model.change("web", change).unwrap();
        journal.change("web", change).unwrap();
        *model = next;
        journal.shorten(model);
    }
}

/// Waits until all that was taken is on the disk.
fn settle(journal: &Journal) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(journal.durable().reached()).unwrap();
}

fn state_of(model: &Model) -> DesiredState {
    model.keep().state
}

#[test]
fn what_was_taken_is_there_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let (mut journal, mut model) = Journal::open(&path).unwrap();
    assert!(model.networks().is_empty());
    take(&mut journal, &mut model, &all_changes());
    assert!(matches!(Journal::open(&path), Err(JournalError::InUse { .. })));
    drop(journal);

    let (mut journal, restored) = Journal::open(&path).unwrap();
    assert_eq!(state_of(&restored), state_of(&model));
    let generation = |model: &Model| model.network("web").unwrap().generation();
    assert!(generation(&restored) >= generation(&model));
    let state = DesiredState { version: 1, networks: Vec::new() };
    journal.state(&state).unwrap();
    drop(journal);
    let (_, emptied) = Journal::open(&path).unwrap();
    assert!(emptied.networks().is_empty());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&model_file::path(&path))), (0o700, 0o600));
}

/// Whatever the moment at which a daemon is killed: what is read is what was there after some number of whole wishes.
#[test]
fn a_journal_that_was_cut_anywhere_is_read_up_to_there() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, mut model) = Journal::open(directory.path()).unwrap();
    let mut states = vec![state_of(&model)];
    let mut ends = vec![0];
    for change in all_changes() {
        take(&mut journal, &mut model, &[change]);
        states.push(state_of(&model));
        ends.push(journal.length);
    }
    let name = journal_name(journal.number);
    let path = directory.path().join(&name);
    let text = fs::read(&path).unwrap();
    drop(journal);
    for length in 0..=text.len() {
        fs::write(&path, &text[..length]).unwrap();
        let restored = replay(&path, 2, Model::default()).unwrap();
        let whole = ends.iter().filter(|end| **end <= length as u64).count();
        assert_eq!(state_of(&restored), states[whole - 1], "{length}");
    }
}

#[test]
fn a_long_journal_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, mut model) = Journal::open(directory.path()).unwrap();
    take(&mut journal, &mut model, &all_changes());
    journal.limit = 2_000;
    let first = journal.number;
    for _ in 0..50 {
        take(
            &mut journal,
            &mut model,
            &[backend(9, BackendChange::Put(BackendSpec::default())), backend(9, BackendChange::Remove)],
        );
        journal.limit = journal.limit.min(2_000);
    }
    assert!(journal.number > first + 2);
    assert!(journal.length <= 2_200);
    let files = |directory: &Path| {
        let mut names: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(files(directory.path()), [journal_name(journal.number).as_str(), "lock", model_file::NAME]);
    drop(journal);
    // One that a killed daemon had just begun goes.
    fs::write(directory.path().join(journal_name(999)), "rubbish").unwrap();
    let (journal, restored) = Journal::open(directory.path()).unwrap();
    assert_eq!(state_of(&restored), state_of(&model));
    assert_eq!(files(directory.path()), [journal_name(journal.number).as_str(), "lock", model_file::NAME]);
}

/// What was written when a network had one IPv4 subnet, and nothing else.
#[test]
fn a_state_directory_of_one_family_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let state = r#"{"version":1,"journal":3,"model":{"state":{"version":1,"networks":[{"name":"web",
        "subnet":"10.1.0.0/24","vip_prefix":"10.1.0.192/26",
        "attachments":[{"name":"c1","netns":"/run/netns/c1","ip":"10.1.0.1"}],
        "services":[{"name":"api","vip":"10.1.0.192","backends":[{"ip":"10.1.0.1","weight":1,"drain":false}]}]}]},
        "networks":{"web":{"generation":7,"lb_address":"10.1.0.180"}}}}"#;
    let journal = [
        r#"{"change":{"network":"web","change":{"service":{"service":"api","change":{"backend":{"address":"10.1.0.2","change":{"put":{"weight":3,"drain":false}}}}}}}}"#,
        r#"{"change":{"network":"web","change":{"put_attachment":{"attachment":"c2","spec":{"netns":"/run/netns/c2","ip":"10.1.0.9"}}}}}"#,
        r#"{"change":{"network":"web","change":{"service":{"service":"db","change":{"put":{"vip":"10.1.0.200"}}}}}}"#,
        r#"{"change":{"network":"other","change":{"put_network":{"subnet":"10.2.0.0/24","vip_prefix":"10.2.0.128/25"}}}}"#,
        r#"{"change":{"network":"empty","change":{"put_network":{"subnet":"10.3.0.0/24"}}}}"#,
    ];
    fs::write(model_file::path(directory.path()), state).unwrap();
    fs::write(directory.path().join("journal.3"), journal.map(|line| format!("{line}\n")).concat()).unwrap();
    let (_, model) = Journal::open(directory.path()).unwrap();
    let web = model.network("web").unwrap();
    // One for the restart, and one for each change of the table.
    assert_eq!(web.generation(), 10);
    assert_eq!(web.lb_address().unwrap().to_string(), "10.1.0.180");
    assert_eq!(web.attachments()["c2"].ip.to_string(), "10.1.0.9");
    assert_eq!(web.services()["db"].vip.to_string(), "10.1.0.200");
    assert_eq!(web.services()["api"].backends.len(), 2);
    let other = model.network("other").unwrap();
    assert_eq!(
        (other.subnet().to_string(), other.vip_prefix().to_string()),
        ("10.2.0.0/24".into(), "10.2.0.128/25".into())
    );
    // And it is written as it was.
    let text = fs::read_to_string(model_file::path(directory.path())).unwrap();
    assert!(text.contains(r#""subnet":"10.1.0.0/24","vip_prefix":"10.1.0.192/26""#), "{text}");
    assert!(text.contains(r#""lb_address":"10.1.0.180""#), "{text}");
}

#[test]
fn damage_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, mut model) = Journal::open(directory.path()).unwrap();
    for change in all_changes() {
        take(&mut journal, &mut model, &[change]);
        settle(&journal);
    }
    let path = directory.path().join(journal_name(journal.number));
    drop(journal);
    let text = fs::read_to_string(&path).unwrap();
    let first = text.split_inclusive('\n').next().unwrap();
    for (damaged, expected) in [
        (text.replacen("change", "chance", 1), "line 1: "),
        (text.replacen("10.1.0.2", "10.9.0.2", 1), "line 4: "),
        (text.replacen(first, "", 1), "line 1: "),
        (format!("{text}{first}"), "line 7: "),
    ] {
        fs::write(&path, damaged).unwrap();
        let error = Journal::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("is damaged") && error.contains(expected), "{error}");
    }
    fs::write(&path, text).unwrap();
    let state = model_file::path(directory.path());
    let good = fs::read_to_string(&state).unwrap();
    let later = good.replace("\"version\":2,\"journal\"", "\"version\":9,\"journal\"");
    for bad in ["{", "{}", &later, &good.replace(":[]", ":[ ]")] {
        fs::write(&state, bad).unwrap();
        assert!(matches!(Journal::open(directory.path()), Err(JournalError::Damaged { .. })), "{bad}");
    }
    fs::write(&state, good).unwrap();
    assert_eq!(state_of(&Journal::open(directory.path()).unwrap().1), state_of(&model));
}

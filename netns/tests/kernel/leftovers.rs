use crate::support::{LB, Network, ip, ping, plan, until};
use ringlb_netns::{Fabric, Namespace, Sandbox, isolate, leftovers, remove_leftovers};
use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

const PREFIX: &str = "ringlb-test-killed";

/// The namespaces outlive the process that made them, because it shares this process's mount namespace.
#[tokio::test]
async fn of_a_killed_run_are_found_and_removed_by_name() {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "leftovers::a_run_to_be_killed", "--ignored", "--nocapture"])
        .env(isolate::INHERIT, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("made everything")));
    child.kill().unwrap();
    child.wait().unwrap();

    let names = [format!("{PREFIX}-bridge"), format!("{PREFIX}-client"), format!("{PREFIX}-lb")];
    assert_eq!(leftovers(PREFIX).unwrap(), names);
    let client = Namespace::open(&names[1]).unwrap();
    assert!(ping(&client, LB));

    assert_eq!(remove_leftovers(PREFIX).await.unwrap(), names);
    assert_eq!(remove_leftovers(PREFIX).await.unwrap(), [""; 0]);
    assert_eq!(leftovers(PREFIX).unwrap(), [""; 0]);
    // At once, so that the container can be attached again.
    let links = client.links().await.unwrap();
    assert!(!links.link_exists("eth0").await.unwrap(), "the leg is still there");

    let plan = plan("killed");
    let fabric = Fabric::ensure(&plan).await.unwrap();
    Sandbox::ensure(&plan, &fabric, ip(LB)).await.unwrap();
    plan.remove().unwrap();
}

#[tokio::test]
#[ignore = "started and killed by another test"]
async fn a_run_to_be_killed() {
    if env::var_os(isolate::INHERIT).is_none() {
        return;
    }
    let _network = Network::new("killed").await;
    println!("made everything");
    // The parent keeps this open until it has killed us; should it die first, we end as well.
    let _ = std::io::stdin().lines().next();
}

#[tokio::test]
async fn removing_reports_every_error_and_does_the_rest() {
    let prefix = "ringlb-test-part-";
    for name in ["a", "c"] {
        Namespace::create(&format!("{prefix}{name}")).unwrap();
    }
    let directories = ["b", "d"].map(|name| Path::new("/run/netns").join(format!("{prefix}{name}")));
    for directory in &directories {
        fs::create_dir(directory).unwrap();
    }
    let errors = remove_leftovers(prefix).await.unwrap_err();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert_eq!(leftovers(prefix).unwrap(), [format!("{prefix}b"), format!("{prefix}d")]);
    for directory in &directories {
        fs::remove_dir(directory).unwrap();
    }
    remove_leftovers(prefix).await.unwrap();
}

#[tokio::test]
async fn an_empty_prefix_is_refused() {
    Namespace::create("ringlb-test-bystander").unwrap();
    leftovers("").unwrap_err();
    assert_eq!(remove_leftovers("").await.unwrap_err().len(), 1);
    until("the bystander is listed", || {
        Namespace::list().unwrap().contains(&"ringlb-test-bystander".to_owned()).then_some(())
    });
    Namespace::remove("ringlb-test-bystander").unwrap();
}

//! What is accepted, and that every mistake is named.

use super::policy::parse_bytes;
use super::*;

const GOOD: &str = r#"
host = "host-a"
[token]
kind = "federation"
audience = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/agents/providers/host-a"
issuer = "https://enforcer.example.com/host-a"
[[agent]]
name = "finance-bot"
cgroup = "agents/finance-bot"
uid = 2001
"#;

const GOOD_POLICY: &str = r#"
[[rule]]
agents = ["finance-bot"]
datasets = ["demo-project.finance"]
approvers = { users = [5001] }
"#;

fn load(text: &str) -> Result<Config, String> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("enforcer.toml");
    std::fs::write(&path, text).expect("writes");
    Config::load(&path).map_err(|error| error.to_string())
}

fn policy(text: &str) -> Result<Policy, String> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("policy.toml");
    std::fs::write(&path, text).expect("writes");
    load_policy(&path, &["finance-bot".parse().expect("a name")].into())
        .map_err(|error| error.to_string())
}

#[test]
fn a_short_configuration_gets_the_documented_defaults() {
    let config = load(GOOD).expect("loads");
    assert_eq!(config.proxy_port, 841);
    assert_eq!(config.socket(), Path::new("/run/enforcer/control.sock"));
    assert_eq!(config.agents[0].closed, WhenClosed::Explain);
}

#[test]
fn the_commented_examples_are_accepted() {
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("example/enforcer.toml");
    let config = crate::config::Config::load(&example).expect("loads");
    config.load_policy().expect("loads, from beside it");
}

/// As [`load`], with a file of shared prefixes beside the configuration.
fn load_with_prefixes(prefixes: &str) -> Result<Config, String> {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("google.txt"), prefixes).expect("writes");
    let text = GOOD.replace(
        "[token]",
        "[names]\nshared_prefixes_file = \"google.txt\"\n[token]",
    );
    let path = dir.path().join("enforcer.toml");
    std::fs::write(&path, text).expect("writes");
    Config::load(&path).map_err(|error| error.to_string())
}

#[test]
fn a_file_of_shared_prefixes_is_found_beside_the_configuration_and_a_broken_one_is_named_by_its_line()
 {
    let config = load_with_prefixes("142.250.0.0/15\n").expect("loads");
    assert_eq!(
        config.prefixes,
        [(
            "142.250.0.0/15".parse().expect("a network"),
            AddressClass::Shared
        )]
    );
    let why = load_with_prefixes("142.250.0.0/15\nnonsense\n").expect_err("is refused");
    assert!(
        why.contains("google.txt cannot be used: line 2: `nonsense`"),
        "{why}"
    );
}

#[test]
fn the_dated_list_of_googles_prefixes_is_read() {
    let list = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("example/google-prefixes.txt");
    let text = std::fs::read_to_string(list).expect("reads");
    let config = load_with_prefixes(&text).expect("loads");
    let holds = |address: &str| {
        let address: std::net::IpAddr = address.parse().expect("an address");
        config
            .prefixes
            .iter()
            .any(|(net, _)| net.contains(&address))
    };
    assert!(holds("142.250.1.1") && holds("2a00:1450:4001::1") && holds("2001:4860:4802:32::1"));
    assert!(
        !holds("8.8.8.8") && !holds("2001:4860:4860::8888"),
        "a host that asks Google's public resolvers still can"
    );
}

#[test]
fn allowed_names_are_exact_and_never_protected_ones() {
    let with =
        |list: &str| load(&GOOD.replace("uid = 2001", &format!("uid = 2001\nallow = [{list}]")));
    let config = with("\"Storage.googleapis.com.\"").expect("loads");
    assert!(config.agents[0].allow.contains("storage.googleapis.com"));
    for (list, said) in [
        ("\"*.googleapis.com\"", "wildcards"),
        ("\"localhost\"", "not a DNS name"),
        ("\"bigquery.googleapis.com\"", "takes a window"),
        ("\"www.googleapis.com\"", "takes a window"),
        (
            "\"bigquery.mars-north1.rep.googleapis.com\"",
            "takes a window",
        ),
    ] {
        let why = with(list).expect_err("is refused");
        assert!(why.contains(said), "{why}");
    }
}

#[test]
fn enforcing_on_agents_only_is_asked_for_by_name() {
    assert_eq!(load(GOOD).expect("loads").enforce, Enforce::Host);
    let weaker = GOOD.replace("[token]", "[kernel]\nenforce = \"agents\"\n[token]");
    assert_eq!(load(&weaker).expect("loads").enforce, Enforce::Agents);
    let unknown = GOOD.replace("[token]", "[kernel]\nenforce = \"nobody\"\n[token]");
    assert!(load(&unknown).expect_err("is refused").contains("nobody"));
}

#[test]
fn every_mistake_is_named() {
    let with = |from: &str, to: &str| load(&GOOD.replace(from, to)).expect_err("is refused");
    assert!(with("uid = 2001", "uidd = 2001").contains("uidd"));
    assert!(with("host = \"host-a\"", "host = \"\"").contains("`host`"));
    assert!(with("agents/finance-bot", "/").contains("below the cgroup root"));
    assert!(with("agents/finance-bot", "agents/../enforcer").contains("below the cgroup root"));
    assert!(with("agents/finance-bot", "enforcer/x").contains("daemon"));
    assert!(with("https://enforcer", "http://enforcer").contains("https"));
    assert!(with("[token]", "[proxy]\nport = 8443\n[token]").contains("1023"));
    assert!(
        with(
            "[token]",
            "[names]\nprotected = [\"*.googleapis.com\"]\n[token]"
        )
        .contains("wildcards")
    );
    assert!(load("").expect_err("is refused").contains("host"));
}

#[test]
fn a_mistake_in_the_toml_is_named_in_one_line_by_its_place() {
    for (from, to, place) in [
        (
            "uid = 2001",
            "uidd = 2001",
            "column 1: unknown field `uidd`",
        ),
        ("host = \"host-a\"", "host = \"host-a", "line 2, column "),
    ] {
        let why = load(&GOOD.replace(from, to)).expect_err("is refused");
        assert!(why.contains(place) && !why.contains('\n'), "{why}");
    }
}

#[test]
fn every_mistake_in_a_policy_is_named() {
    assert!(policy(GOOD_POLICY).is_ok());
    let with =
        |from: &str, to: &str| policy(&GOOD_POLICY.replace(from, to)).expect_err("is refused");
    assert!(with("finance-bot", "other-bot").contains("not configured"));
    assert!(with("demo-project.finance", "*").contains("bare *"));
    assert!(with("demo-project.finance", "demo-project.*").contains("bare *"));
    assert!(with("approvers = { users = [5001] }", "").contains("nobody could ever approve"));
    assert!(with("[5001]", "[\"no-such-user-here\"]").contains("does not exist"));
    assert!(with("approvers", "ttl_max = \"13h\"\napprovers").contains("12h"));
    assert!(with("approvers", "bytes_max = \"many\"\napprovers").contains("bytes"));
    assert!(with("approvers", "auto-approve = true\napprovers").contains("auto-approve"));
}

#[test]
fn bytes_are_read_with_decimal_units() {
    assert_eq!(parse_bytes("10GB"), Ok(10_000_000_000));
    assert_eq!(parse_bytes("7"), Ok(7));
    for text in ["", "GB", "0", "-1", "1GiB", "99999999999TB", "1.5GB"] {
        assert!(parse_bytes(text).is_err(), "{text:?}");
    }
}

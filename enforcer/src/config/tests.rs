//! What is accepted, and that every mistake is named.

use enforcer_proto::policy::{Alone, Limits, Quorum};

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

/// What a configuration says of a signer.
fn with_signer(signer: &str) -> Result<Config, String> {
    let issuer = "issuer = \"https://enforcer.example.com/host-a\"\n";
    load(&GOOD.replace(issuer, &format!("{issuer}signer = {{ {signer} }}\n")))
}

fn hsm(config: &Config) -> &Hsm {
    match config.token.keys() {
        KeyStore::Hsm(hsm) => hsm,
        KeyStore::File | KeyStore::Credential(_) => panic!("{config:?}"),
    }
}

#[test]
fn the_issuers_key_is_in_a_file_or_in_one_token_by_one_module() {
    assert_eq!(load(GOOD).expect("loads").token.keys(), &KeyStore::File);
    let signer =
        r#"module = "/usr/lib/m.so", token = "a token", key = "issuer", pin_file = "/etc/pin""#;
    let config = with_signer(signer).expect("loads");
    let hsm = hsm(&config);
    assert_eq!(
        (hsm.token.as_str(), hsm.key.as_str()),
        ("a token", "issuer")
    );
    assert_eq!(hsm.pin, KeyPlace::File("/etc/pin".into()));
    let by_credential = signer.replace(r#"pin_file = "/etc/pin""#, r#"pin_credential = "pin""#);
    let config = with_signer(&by_credential).expect("loads");
    let pin = &self::hsm(&config).pin;
    assert_eq!(pin, &KeyPlace::Credential("pin".to_owned()));

    for (from, to, said) in [
        (
            "/usr/lib/m.so",
            "m.so",
            "`token.signer.module` must be an absolute path",
        ),
        ("a token", "", "1 to 32 bytes"),
        ("a token", &"x".repeat(33), "1 to 32 bytes"),
        ("a token", " a", "1 to 32 bytes"),
        ("\"issuer\"", "\"an issuer\"", "`token.signer.key`"),
        ("\"issuer\"", "\"issuer-next\"", "a rotation's"),
        ("\"issuer\"", "\"issuer-last\"", "a rotation's"),
        ("/etc/pin", "pin", "must be an absolute path"),
        (", pin_file = \"/etc/pin\"", "", "name one of"),
        ("pin_file", "pin_credential", "is the name of a credential"),
        ("pin_file", "pin", "unknown field `pin`"),
        ("key =", "pin_credential = \"a\", key =", "name one of"),
    ] {
        let why = with_signer(&signer.replace(from, to)).expect_err("is refused");
        assert!(why.contains(said), "{from} -> {to}: {why}");
    }
}

#[test]
fn the_signer_of_the_example_is_accepted_when_it_is_no_comment() {
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("example/enforcer.toml");
    let text = std::fs::read_to_string(example).expect("reads");
    let signer = text.replace("# signer = {", "signer = {");
    assert_ne!(signer, text);
    hsm(&load(&signer).expect("loads"));
}

#[test]
fn the_issuers_key_may_be_a_credential_and_then_it_is_nowhere_else() {
    let issuer = "issuer = \"https://enforcer.example.com/host-a\"\n";
    let with = |line: &str| load(&GOOD.replace(issuer, &format!("{issuer}{line}\n")));
    let config = with(r#"key_credential = "issuer-key""#).expect("loads");
    let name = "issuer-key".to_owned();
    assert_eq!(config.token.keys(), &KeyStore::Credential(name));
    for name in ["", "../a", ".a"] {
        let why = with(&format!("key_credential = \"{name}\"")).expect_err("is refused");
        assert!(why.contains("is the name of a credential"), "{name}: {why}");
    }
    let both = r#"key_credential = "issuer-key"
signer = { module = "/m.so", token = "t", key = "k", pin_file = "/p" }"#;
    let why = with(both).expect_err("is refused");
    assert!(why.contains("name one of `token.signer`"), "{why}");
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("example/enforcer.toml");
    let text = std::fs::read_to_string(example).expect("reads");
    let named = text.replace("# key_credential =", "key_credential =");
    assert_ne!(named, text);
    let config = load(&named).expect("loads");
    assert!(matches!(config.token.keys(), KeyStore::Credential(_)));
}

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
    let known = [("finance-bot".parse().expect("a name"), [2001].into())].into();
    load_policy(&path, Some(&known)).map_err(|error| error.to_string())
}

#[test]
fn a_short_configuration_gets_the_documented_defaults() {
    let config = load(GOOD).expect("loads");
    assert_eq!(config.proxy_port, 841);
    assert_eq!(config.socket(), Path::new("/run/enforcer/control.sock"));
    assert_eq!(config.agents[0].closed, WhenClosed::Explain);
}

#[test]
fn the_estimator_is_off_unless_it_is_turned_on_and_is_no_agents_identity() {
    assert_eq!(load(GOOD).expect("loads").estimator, None);
    let with = |section: &str, agents: &str| {
        let text = GOOD.replace("[token]", &format!("[estimator]\n{section}\n[token]"));
        load(&format!("{text}{agents}")).map(|config| config.estimator.expect("is on"))
    };
    let on = with("", "").expect("loads");
    assert_eq!((on.name.as_str(), on.service_account), ("estimator", None));
    let account = "estimator@demo-project.iam.gserviceaccount.com";
    let own = format!("service_account = \"{account}\"");
    let named = with(&format!("name = \"looker\"\n{own}"), "").expect("loads");
    assert_eq!(
        (named.name.as_str(), named.service_account.as_deref()),
        ("looker", Some(account))
    );
    for (section, agents, why) in [
        ("name = \"finance-bot\"", String::new(), "which is an agent"),
        (
            own.as_str(),
            own.to_uppercase()
                .replace("SERVICE_ACCOUNT", "service_account"),
            "that of agent finance-bot",
        ),
        ("nmae = \"x\"", String::new(), "unknown field"),
    ] {
        let refused = with(section, &agents).expect_err(why);
        assert!(refused.contains(why), "{refused}");
    }
    let impersonation = "host = \"host-a\"\n[estimator]\n[token]\nkind = \"impersonation\"\n[[agent]]\nname = \"finance-bot\"\ncgroup = \"agents/finance-bot\"\nservice_account = \"bot@p.iam.gserviceaccount.com\"\n";
    let refused = load(impersonation).expect_err("it needs an account");
    assert!(
        refused.contains("[estimator]: `service_account` is needed"),
        "{refused}"
    );
    let on = load(&impersonation.replace("[estimator]", &format!("[estimator]\n{own}")));
    assert!(on.is_ok_and(|config| config.estimator.is_some()));
}

#[test]
fn by_what_an_agents_tokens_are_made_and_what_project_is_charged_is_its_own_or_everybodys() {
    let with = |more: &str| load(&format!("{GOOD}{more}\n"));
    let account = "service_account = \"bot@p.iam.gserviceaccount.com\"";
    let minter = |more: &str| with(more).map(|config| config.agents[0].minter);
    assert_eq!(minter(""), Ok(MinterKind::Federation));
    assert_eq!(minter(account), Ok(MinterKind::Federation));
    let impersonates = format!("token = \"impersonation\"\n{account}");
    assert_eq!(minter(&impersonates), Ok(MinterKind::Impersonation));
    let refused = minter("token = \"impersonation\"").expect_err("it needs an account");
    assert!(
        refused.contains("agent finance-bot: `service_account` is needed"),
        "{refused}"
    );
    let federates = GOOD
        .replace("kind = \"federation\"", "kind = \"impersonation\"")
        .replace("audience", "#")
        .replace("issuer", "#");
    let refused = load(&format!("{federates}token = \"federation\"\n{account}\n"));
    let refused = refused.expect_err("as whom this host is known is not said");
    assert!(
        refused.contains("needs token.kind = \"federation\""),
        "{refused}"
    );

    let quota = |upstream: &str, own: &str| {
        let text = GOOD.replace("[token]", &format!("[upstream]\n{upstream}\n[token]"));
        load(&format!("{text}{own}\n")).map(|config| config.agents[0].quota_project.clone())
    };
    let named = |project: &str| Ok(Some(project.to_owned()));
    assert_eq!(quota("", ""), Ok(None));
    assert_eq!(quota("quota_project = \"all\"", ""), named("all"));
    assert_eq!(
        quota("quota_project = \"all\"", "quota_project = \"own\""),
        named("own")
    );
    for (upstream, own, key) in [
        (
            "quota_project = \"a b\"",
            "",
            "`upstream.quota_project` is `a b`",
        ),
        (
            "",
            "quota_project = \"\"",
            "agent finance-bot: `quota_project` is ``",
        ),
    ] {
        let refused = quota(upstream, own).expect_err("no project");
        assert!(refused.contains(key), "{refused}");
    }
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
    assert!(with("approvers", "query_bytes_max = \"1MB\"\napprovers").contains("none could run"));
    assert!(with("approvers", "returned_bytes_max = \"0\"\napprovers").contains("bytes"));
    assert!(with("approvers", "jobs_at_once_max = 201\napprovers").contains("between 1 and 200"));
    assert!(with("approvers", "queries_max = 0\napprovers").contains("between 1 and 10000"));
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

#[test]
fn a_cgroup_or_unit_may_be_named_by_what_it_is_like_and_no_other_pattern_is_taken_for_a_name() {
    let workload = |named: &str| {
        let text = GOOD.replace("cgroup = \"agents/finance-bot\"", named);
        assert_ne!(text, GOOD);
        load(&text).map(|config| config.agents[0].workload.clone())
    };
    let like = |path: &str| Workload::CgroupLike(path.into());
    let of = |named| workload(named).expect("loads");
    assert_eq!(of("cgroup = \"a/*bot*\""), like("a/*bot*"));
    assert_eq!(of("cgroup = \"b*/x/b-*\""), like("b*/x/b-*"));
    let unit = Workload::UnitLike("bot@*.service".to_owned());
    assert_eq!(of("unit = \"bot@*.service\""), unit);
    for (named, why) in [
        ("cgroup = \"a/bot?\"", "only `*` is a pattern"),
        ("cgroup = \"a/[ab]\"", "only `*` is a pattern"),
        ("cgroup = \"a/**/b\"", "only `*` is a pattern"),
        ("cgroup = \"a/*\"", "the last name in `cgroup` would be any"),
        ("cgroup = \"/a/*b\"", "must be a path below the cgroup root"),
        ("cgroup = \"*nforcer\"", "may lie inside one another"),
        ("cgroup = \"*/x/b-*\"", "may lie inside one another"),
        (
            "cgroup = \"*-helpers/a\"",
            "the programs that the daemon runs",
        ),
        ("unit = \"bot@?.service\"", "only `*` is a pattern"),
        ("unit = \"*.service\"", "`unit` would be any"),
        ("unit = \"bot@*\"", "is the whole name of a .service"),
        ("unit = \"user@*.service\"", "belongs to the user"),
    ] {
        let refused = workload(named).expect_err(named);
        assert!(refused.contains(why), "{named}: {refused}");
    }
}

#[test]
fn a_pattern_that_means_another_agents_workload_is_refused() {
    let both = |one: &str, other: &str| {
        let (before, _) = GOOD.split_once("[[agent]]").expect("an agent");
        let section =
            |name, workload| format!("[[agent]]\nname = \"{name}\"\n{workload}\nuid = 2001\n");
        load(&format!(
            "{before}{}{}",
            section("finance-bot", one),
            section("ops-bot", other)
        ))
    };
    for (one, other) in [
        ("cgroup = \"a/*bot\"", "cgroup = \"a/my-bot\""),
        ("cgroup = \"a/*bot\"", "cgroup = \"a/my-bot/inner\""),
        ("cgroup = \"a/*bot\"", "cgroup = \"a/*bot\""),
        ("unit = \"bot@*.service\"", "unit = \"bot@1.service\""),
    ] {
        for (one, other) in [(one, other), (other, one)] {
            let refused = both(one, other).expect_err("is refused");
            assert!(refused.contains("the same name or workload"), "{refused}");
        }
    }
    both("cgroup = \"a/*bot\"", "cgroup = \"a/other\"").expect("loads");
    both("unit = \"bot@*.service\"", "unit = \"bots@1.service\"").expect("loads");
}

/// A host with so many agents, each with a workload of another kind than its neighbour's.
fn host_of(agents: usize) -> String {
    let (before, _) = GOOD.split_once("[[agent]]").expect("an agent");
    let agents = (0..agents).map(|at| {
        let workload = match at % 5 {
            0 => format!("cgroup = \"agents/bot-{at}\""),
            1 => format!("unit = \"bot-{at}.service\""),
            2 => format!("user = {}", at + 1),
            3 => format!("container = \"{at:012x}\""),
            _ => format!("pod = \"8dbc0b14-47a8-4b23-9f0e-{at:012x}\""),
        };
        format!("[[agent]]\nname = \"bot-{at}\"\n{workload}\nuid = 2001\n")
    });
    before.to_owned() + &agents.collect::<String>()
}

#[test]
fn a_host_has_as_many_agents_as_the_kernel_has_room_for_and_one_more_is_refused_in_words() {
    let config = load(&host_of(AGENTS_MAX)).expect("loads");
    assert_eq!(config.agents.len(), AGENTS_MAX);
    let names: Vec<String> = config
        .agents
        .iter()
        .map(|agent| format!("\"{}\"", agent.name))
        .collect();
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("policy.toml");
    let one = format!("agents = [{}]", names.join(", "));
    let text = GOOD_POLICY.replace("agents = [\"finance-bot\"]", &one);
    std::fs::write(&path, text).expect("writes");
    let policy = load_policy(&path, Some(&config.known_agents())).expect("loads");
    assert_eq!(policy.rules[0].agents.len(), AGENTS_MAX);

    let refused = load(&host_of(AGENTS_MAX + 1)).expect_err("is refused");
    let said = format!(
        "between 1 and {AGENTS_MAX} [[agent]] sections, not {}",
        AGENTS_MAX + 1
    );
    assert!(refused.contains(&said), "{refused}");
}

fn rule(more: &str) -> Result<enforcer_proto::policy::Rule, String> {
    let text = GOOD_POLICY.replace("approvers = { users = [5001] }\n", more);
    policy(&text).map(|policy| policy.rules[0].clone())
}

#[test]
fn a_rule_that_says_nothing_is_tight() {
    let rule = rule("approvers = { users = [5001] }\n").expect("loads");
    assert_eq!((rule.limits, rule.quorum), (Limits::TIGHT, Quorum::one()));
    assert_eq!(rule.ttl_max.to_string(), "15m");
    assert!(!rule.must_sign && rule.break_glass.is_none() && rule.alone == Alone::Never);
}

#[test]
fn a_rule_names_how_many_decide_when_it_opens_alone_and_who_breaks_glass() {
    let rule = rule(
        "approvers = { users = [5001, 5002], groups = [70], count = 3, each_group = [70, 80] }\nbreak_glass = { users = [5001], ttl_max = \"5m\" }\n\
         auto_approve = { days = [\"mon\", \"fri\"], hours = \"09:00-18:00\", zone = \"UTC\" }\ncooldown = \"5m\"\nduty_cycle_percent = 10\n",
    )
    .expect("loads");
    assert_eq!(
        rule.who_decides(),
        "opens without a person mon fri 09:00-18:00 UTC; else 3, one for each of gids 70, 80, of uids 5001, 5002, members of gids 70, 80"
    );
    assert_eq!(
        (rule.limits.cooldown_s, rule.limits.duty_percent_max),
        (300, 10)
    );
}

#[test]
fn one_key_does_not_sign_for_two_people() {
    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDpf9sFBJd6eN87RPfYSJR4gks/ETWkkmY6KJzeZPjmp";
    let signed = |others: u32| {
        rule(&format!(
            "approvers = {{ users = [5001, 5002] }}\nsigned = true\n[[signer]]\nuser = 5001\nkeys = [\"{KEY}\"]\n[[signer]]\nuser = {others}\nkeys = [\"{KEY}\"]\n"
        ))
    };
    let refused = signed(5002).expect_err("one key for two");
    assert!(
        refused.contains("for uid 5001 and for uid 5002: whoever holds it would count as both"),
        "{refused}"
    );
    signed(5001).expect("named twice for one");
}

#[test]
fn a_rule_cannot_exceed_what_the_code_allows_or_ask_for_what_nobody_can_give() {
    let people = "approvers = { users = [5001] }\n";
    for (more, said) in [
        ("ttl_max = \"13h\"\n", "between 1s and 12h"),
        ("duty_cycle_percent = 51\n", "between 1 and 50"),
        ("requests_per_hour = 1001\n", "between 1 and 1000"),
        ("datasets_max = 17\n", "between 1 and 16"),
        (
            "pending_ttl = \"25h\"\n",
            "`pending_ttl` must be a duration",
        ),
        ("cooldown = \"soon\"\n", "`cooldown` must be a duration"),
        ("signed = true\n", "no [[signer]] may sign"),
        (
            "auto_approve = { hours = \"09:00-09:00\" }\n",
            "names no time at all",
        ),
        (
            "auto_approve = { hours = \"9-17\" }\n",
            "write them as 09:00-18:00",
        ),
        (
            "auto_approve = { days = [\"someday\"], hours = \"09:00-17:00\" }\n",
            "is no day",
        ),
        (
            "auto_approve = { hours = \"09:00-17:00\", zone = \"Mars/Olympus\" }\n",
            "time zone is not known",
        ),
        ("break_glass = {}\n", "names nobody"),
        (
            "break_glass = { users = [5001], ttl_max = \"61m\" }\n",
            "must not be longer than 60 min",
        ),
    ] {
        let refused = rule(&format!("{people}{more}")).expect_err(more);
        assert!(refused.contains(said), "{more}: {refused}");
    }
    for (people, said) in [
        (
            "approvers = { users = [5001], count = 2 }\n",
            "2 people must agree, and only 1 may",
        ),
        (
            "approvers = { each_group = [70, 80], count = 1 }\n",
            "must lie between 2",
        ),
        (
            "approvers = { users = [5001], count = 9 }\n",
            "between 1 and 8",
        ),
    ] {
        let refused = rule(people).expect_err(people);
        assert!(refused.contains(said), "{people}: {refused}");
    }
}

#[test]
fn a_policy_that_others_can_change_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("policy.toml");
    std::fs::write(&path, GOOD_POLICY).expect("writes");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("changes");
    let refused = load_policy(&path, None)
        .expect_err("is refused")
        .to_string();
    assert!(
        refused.contains("others than root can change it"),
        "{refused}"
    );
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("changes");
    std::os::unix::fs::chown(&path, Some(2001), None).expect("changes");
    assert!(load_policy(&path, None).is_err());
}

#[test]
fn a_hook_is_a_command_or_a_webhook_and_never_tells_bigquery_anything() {
    let with = |lines: &str| {
        load(&format!(
            "{GOOD}[[notify]]\nname = \"pager\"\nevents = [\"request\", \"refusal_burst\"]\n{lines}"
        ))
    };
    let config = with(
        "webhook = \"https://hooks.example.com/T0/secret\"\nkey_file = \"/etc/enforcer/pager.key\"",
    )
    .expect("loads");
    assert_eq!(config.helpers_cgroup(), Path::new("enforcer-helpers"));
    let shown = serde_json::to_string(&config).expect("JSON");
    assert!(shown.contains("https://hooks.example.com/…") && !shown.contains("secret"));
    let config = with("command = [\"/usr/bin/page\", \"--now\"]").expect("loads");
    assert!(matches!(&config.hooks[0].send, Send::Command(command) if command.user == 65534));
    for (lines, said) in [
        ("", "one of `command` and `webhook`"),
        (
            "command = [\"/bin/true\"]\nwebhook = \"https://a.example.com\"",
            "one of `command` and `webhook`",
        ),
        ("webhook = \"http://a.example.com\"", "https URL"),
        ("webhook = \"https://10.0.0.1/x\"", "https URL"),
        ("webhook = \"https://me@a.example.com/\"", "https URL"),
        (
            "webhook = \"https://BigQuery.googleapis.com/x\"",
            "BigQuery is reached",
        ),
        (
            "webhook = \"https://www.googleapis.com./x\"",
            "BigQuery is reached",
        ),
        ("command = [\"page\"]", "whole path"),
        ("command = [\"/bin/true\"]\nuser = 0", "must not be root"),
        (
            "command = [\"/bin/true\"]\nuser = 2001",
            "uid of agent finance-bot",
        ),
        ("command = [\"/bin/true\"]\nkey_file = \"/k\"", "has none"),
        (
            "command = [\"/bin/true\"]\ntime_limit = \"61s\"",
            "`time_limit`",
        ),
        (
            "command = [\"/bin/true\"]\nburst = { refusals = 0 }",
            "`burst.refusals`",
        ),
        (
            "command = [\"/bin/true\"]\nagents = [\"ops-bot\"]",
            "no [[agent]] section",
        ),
        (
            "webhook = \"https://a.example.com\"\nkey_file = \"k\"",
            "absolute",
        ),
    ] {
        let why = with(lines).expect_err("is refused");
        assert!(why.contains(said), "{lines}: {why}");
    }
    let lost = GOOD.to_owned()
        + "[[notify]]\nname = \"a\"\nevents = [\"lost\"]\ncommand = [\"/bin/true\"]";
    assert!(load(&lost).is_err(), "every hook is told that");
}

#[test]
fn the_hooks_of_the_example_are_accepted_when_they_are_no_comments() {
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("example/enforcer.toml");
    let text = std::fs::read_to_string(example).expect("reads");
    let (_, hooks) = text.split_once("# Who is told").expect("is there");
    let is_key = |line: &&str| line.starts_with("[[") || line.contains(" = ");
    let lines = hooks.lines().filter_map(|line| line.strip_prefix("# "));
    let lines: Vec<&str> = lines
        .filter(is_key)
        .filter(|line| !line.contains("key_credential"))
        .collect();
    let config = load(&format!("{GOOD}{}", lines.join("\n"))).expect("loads");
    assert_eq!(config.hooks.len(), 3);
}

/// The good configuration, its agent's workload and its runtimes being these.
fn with_container(workload: &str, sockets: &str) -> Result<Config, String> {
    let agent = GOOD.replace("cgroup = \"agents/finance-bot\"", workload);
    load(&agent.replace(
        "[token]",
        &format!("[runtimes]\nsockets = [{sockets}]\n[token]"),
    ))
}

#[test]
fn an_agents_container_is_named_by_its_name_or_a_label_where_a_runtime_can_be_asked() {
    let sockets = "\"/run/podman/podman.sock\", \"/run/docker.sock\"";
    let config = with_container("container_name = \"agentbox\"", sockets).expect("loads");
    assert_eq!(
        config.agents[0].workload,
        Workload::ContainerName("agentbox".to_owned())
    );
    let both = ["/run/podman/podman.sock", "/run/docker.sock"].map(PathBuf::from);
    assert_eq!(config.runtimes, both);
    let config = with_container("container_label = \"role=finance-bot\"", sockets).expect("loads");
    assert_eq!(
        config.agents[0].workload,
        Workload::ContainerLabel("role=finance-bot".to_owned())
    );
    assert_eq!(load(GOOD).expect("loads").runtimes, Vec::<PathBuf>::new());

    let name = "container_name = \"agentbox\"";
    let many = (0..9)
        .map(|at| format!("\"/run/{at}.sock\""))
        .collect::<Vec<_>>()
        .join(", ");
    for (workload, sockets, said) in [
        (name, "", "name their sockets"),
        ("container_label = \"role=bot\"", "", "name their sockets"),
        (name, "\"run/docker.sock\"", "must hold absolute paths"),
        (name, "\"/run/docker.sock\", \"/run/docker.sock\"", "twice"),
        (name, &many, "may name 8 sockets, not 9"),
        (
            "container_name = \"\"",
            sockets,
            "is the name of a container",
        ),
        (
            "container_name = \"a/b\"",
            sockets,
            "is the name of a container",
        ),
        (
            "container_name = \"-a\"",
            sockets,
            "is the name of a container",
        ),
        (
            "container_label = \"role\"",
            sockets,
            "a label and its value",
        ),
        (
            "container_label = \"=bot\"",
            sockets,
            "a label and its value",
        ),
        (
            "container_name = \"a\"\ncontainer_label = \"b=c\"",
            sockets,
            "by one of",
        ),
        (
            "container_name = \"a\"\ncgroup = \"b\"",
            sockets,
            "by one of",
        ),
    ] {
        let why = with_container(workload, sockets).expect_err("is refused");
        assert!(why.contains(said), "{workload} {sockets}: {why}");
    }
}

#[test]
fn the_runtimes_of_the_example_are_accepted_when_they_are_no_comment() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("example/enforcer.toml");
    let text = std::fs::read_to_string(example).expect("reads");
    let with = text.replace("# [runtimes]\n# sockets", "[runtimes]\nsockets");
    assert_ne!(with, text);
    assert_eq!(load(&with).expect("loads").runtimes.len(), 1);
}

use std::collections::BTreeSet;

use enforcer_proto::event::KINDS;

use super::*;

/// What version 1.2.0 requires of every event, and of each class besides; of an object, which of its fields one must be there.
const ALWAYS: &[&str] = &[
    "activity_id",
    "category_uid",
    "class_uid",
    "type_uid",
    "time",
    "severity_id",
    "metadata",
    "metadata.version",
    "metadata.product",
    "metadata.product.vendor_name",
    "metadata.product.name|metadata.product.uid",
];
const OF_CLASS: &[(u32, &[&str])] = &[
    (2004, &["finding_info.title", "finding_info.uid"]),
    (3004, &["entity.name|entity.uid"]),
    (3005, &["user.name|user.uid|user.account", "privileges"]),
    (
        4001,
        &[
            "src_endpoint.ip|src_endpoint.hostname|src_endpoint.name|src_endpoint.svc_name",
            "dst_endpoint.ip|dst_endpoint.hostname|dst_endpoint.name|dst_endpoint.svc_name",
            "action_id",
        ],
    ),
    (6002, &["app.vendor_name", "app.name|app.uid"]),
    (
        6003,
        &[
            "api.operation",
            "actor.process|actor.user|actor.app_name|actor.session",
            "src_endpoint.ip|src_endpoint.hostname|src_endpoint.name|src_endpoint.svc_name",
        ],
    ),
];
/// The activities that each class knows besides 0 and 99.
const ACTIVITIES: &[(u32, std::ops::RangeInclusive<u32>)] = &[
    (2004, 1..=3),
    (3004, 1..=4),
    (3005, 1..=2),
    (4001, 1..=6),
    (6002, 1..=4),
    (6003, 1..=4),
];

const PROCESS: &str = r#"{"pid":7,"start_boot_ns":9,"uid":2001,"comm":"python"}"#;

/// An event of every kind.
fn samples() -> Vec<Event> {
    let caller = format!(r#"{{"process":{PROCESS},"gids":[1],"agent":"bot"}}"#);
    let refusal =
        r#"{"code":"scope.outside","what":"table p-one.hr.salaries is outside window g-1"}"#;
    let job = r#"{"project":"p-one","job":"j","location":"US"}"#;
    let ask = r#"{"scope":"p-one.finance:read","ttl":"15m","reason":"why","bytes_max":null,"queries_max":null}"#;
    let texts = [
        r#""kind":"daemon_started","host":"h","version":"1","policy_digest":"d""#.to_owned(),
        r#""kind":"daemon_stopped""#.to_owned(),
        r#""kind":"tail_repaired","bytes":1"#.to_owned(),
        format!(r#""kind":"requested","request":"r-1","agent":"bot","process":{PROCESS},"ask":{ask},"rule":1,"digest":"d","expires_boot_ns":1"#),
        format!(r#""kind":"request_refused","caller":{caller},"ask":null,"refusal":{refusal}"#),
        r#""kind":"approved","request":"r-1","grant":"g-1","agent":"bot","approver":{"Person":{"uid":1}},"digest":"d","scope":"p-one.finance:read,gs://bucket:write","ttl":"15m","bytes_max":1,"queries_max":1,"opens_boot_ns":1,"closes_boot_ns":2,"closes_unix_ns":2"#.to_owned(),
        r#""kind":"approval_given","request":"r-1","agent":"bot","approver":{"Person":{"uid":1}},"gids":[1],"digest":"d","scope":"p-one.finance:read","ttl":"15m","next_digest":"e""#.to_owned(),
        r#""kind":"reviewed","grant":"g-1","agent":"bot","reviewer":{"Person":{"uid":1}},"note":"well""#.to_owned(),
        r#""kind":"agent_locked","agent":"bot","by":{"Person":{"uid":1}},"reason":"odd""#.to_owned(),
        r#""kind":"agent_unlocked","agent":"bot","by":{"Person":{"uid":1}}"#.to_owned(),
        r#""kind":"policy_loaded","digest":"d","rules":1"#.to_owned(),
        r#""kind":"policy_rejected","digest":null,"why":"no""#.to_owned(),
        r#""kind":"notification_failed","hook":"h","count":2,"why":"no""#.to_owned(),
        r#""kind":"segments_removed","first_seq":1,"last_seq":2,"head":"h""#.to_owned(),
        r#""kind":"snapshot_taken","records":1,"sha256":"h""#.to_owned(),
        r#""kind":"snapshot_set_aside","why":"no""#.to_owned(),
        r#""kind":"opened","grant":"g-1","agent":"bot""#.to_owned(),
        r#""kind":"denied","request":"r-1","agent":"bot","approver":{"Person":{"uid":1}},"reason":"no""#.to_owned(),
        r#""kind":"request_withdrawn","request":"r-1","agent":"bot","by":null"#.to_owned(),
        r#""kind":"request_expired","request":"r-1","agent":"bot""#.to_owned(),
        format!(r#""kind":"request_joined","request":"r-1","agent":"bot","process":{PROCESS}"#),
        r#""kind":"request_withdrawn","request":"r-1","agent":"bot","by":null"#.to_owned(),
        format!(r#""kind":"decision_refused","caller":{caller},"action":"approve r-1","refusal":{refusal}"#),
        r#""kind":"closed","grant":"g-1","agent":"bot","reason":"expired","by":null,"queries":1,"bytes":1"#.to_owned(),
        r#""kind":"health_changed","faults":["a program is gone"]"#.to_owned(),
        format!(r#""kind":"query_asked","grant":"g-1","agent":"bot","session":"s-1","process":{PROCESS},"method":"jobs.query","sql":"SELECT 1""#),
        format!(r#""kind":"estimate_asked","agent":"bot","session":"s-1","process":{PROCESS},"method":"jobs.query","project":"p-one","sql":"SELECT 1""#),
        format!(r#""kind":"query_admitted","query":"q-1","grant":"g-1","agent":"bot","session":"s-1","process":{PROCESS},"method":"jobs.query","sql":"SELECT 1","tables":["p-one.finance.daily"],"bytes":1"#),
        format!(r#""kind":"job_seen","query":"q-1","grant":"g-1","job":{job},"destination":null,"is_done":true,"billed":1,"processed":1"#),
        format!(r#""kind":"query_finished","query":"q-1","grant":"g-1","status":200,"job":{job},"destination":null,"bytes":1,"body_bytes":1,"duration_us":1,"trouble":null"#),
        format!(r#""kind":"query_refused","grant":"g-1","agent":"bot","session":"s-1","process":{PROCESS},"request":"POST /queries","sql":"SELECT 1","refusal":{refusal}"#),
        format!(r#""kind":"connection_refused","agent":null,"process":null,"refusal":{refusal},"count":3"#),
        format!(r#""kind":"job_cancelled","grant":"g-1","job":{job},"outcome":"cancelled""#),
        format!(r#""kind":"kernel_refused","agent":null,"process":{PROCESS},"verdict":"connect4 refused: no window is open","destination":"10.1.2.3:443","count":2"#),
        r#""kind":"further_refused","by":"kernel","count":9"#.to_owned(),
        r#""kind":"too_long","event":"query_asked","bytes":1"#.to_owned(),
        r#""kind":"events_lost","kinds":{"health_changed":1}"#.to_owned(),
        format!(r#""kind":"process_joined","agent":"bot","process":{PROCESS}"#),
        r#""kind":"detached","uid":0,"reason":"why""#.to_owned(),
        format!(r#""kind":"forwarded","agent":"bot","process":{PROCESS},"request":"GET pypi.org/simple","count":1"#),
        format!(r#""kind":"credential_presented","agent":"bot","process":{PROCESS},"what":"an API key","fingerprint":"00","count":1"#),
        format!(r#""kind":"namespace_served","agent":"bot","process":{PROCESS},"netns":4026532000"#),
        r#""kind":"namespace_left","agent":"bot","netns":4026532000"#.to_owned(),
        r#""kind":"container_changed","agent":"bot","container":{"name":"job","image":"bq:1"},"cgroup":"/libpod-1""#.to_owned(),
        format!(r#""kind":"namespace_refused","agent":"bot","process":{PROCESS},"netns":4026532000,"why":"lo is down""#),
        r#""kind":"issuer_key_signs","kid":"k""#.to_owned(),
        format!(r#""kind":"way_examined","process":{PROCESS}"#),
    ];
    let read = |text: &String| {
        serde_json::from_str(&format!("{{{text}}}"))
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    };
    texts.iter().map(read).collect()
}

fn made(event: Event) -> Value {
    let record = Record {
        seq: 5,
        boot_id: "b".into(),
        boot_ns: 1,
        unix_ns: 1_700_000_000_123_456_789,
        event,
        prev: String::new(),
        hash: Some("h".into()),
    };
    super::event(&record, "host-1")
}

/// Whether one of these paths, separated by `|`, leads to something.
fn has(event: &Value, paths: &str) -> bool {
    paths.split('|').any(|path| {
        let found = path.split('.').try_fold(event, |at, name| at.get(name));
        found.is_some_and(|found| !found.is_null())
    })
}

#[test]
fn every_kind_of_event_has_what_its_class_requires() {
    let mut kinds = BTreeSet::new();
    for event in samples() {
        kinds.insert(event.kind());
        let kind = event.kind();
        let made = made(event);
        let class = made["class_uid"]
            .as_u64()
            .and_then(|uid| u32::try_from(uid).ok())
            .expect("a class");
        let (_, of_class) = OF_CLASS
            .iter()
            .find(|(uid, _)| *uid == class)
            .expect("a class that is described here");
        for path in ALWAYS.iter().chain(*of_class) {
            assert!(has(&made, path), "{kind}: {path} in {made}");
        }
        let activity = made["activity_id"]
            .as_u64()
            .and_then(|id| u32::try_from(id).ok())
            .expect("an activity");
        let (_, known) = ACTIVITIES
            .iter()
            .find(|(uid, _)| *uid == class)
            .expect("a class that is described here");
        assert!(
            activity == 99 || known.contains(&activity),
            "{kind}: {activity}"
        );
        assert_eq!(made["type_uid"], class * 100 + activity, "{kind}");
        assert_eq!(made["category_uid"], class / 1000, "{kind}");
        assert_eq!(made["metadata"]["version"], "1.2.0");
        assert_eq!(made["time"], 1_700_000_000_123_u64);
        assert_eq!(made["unmapped"]["event"]["kind"], kind);
    }
    let all: BTreeSet<&str> = KINDS.iter().copied().collect();
    assert_eq!(kinds, all, "there is a sample of every kind");
}

#[test]
fn a_refusal_of_the_kernel_is_network_activity_that_was_blocked() {
    let kernel = samples()
        .into_iter()
        .find(|event| event.kind() == "kernel_refused")
        .expect("a sample");
    let made = made(kernel);
    assert_eq!(
        (&made["class_uid"], &made["activity_id"]),
        (&json!(4001), &json!(5))
    );
    assert_eq!(
        (&made["action_id"], &made["disposition_id"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(made["dst_endpoint"], json!({"ip": "10.1.2.3", "port": 443}));
    assert_eq!(made["metadata"]["profiles"], json!(["security_control"]));
    assert_eq!((&made["count"], &made["status_id"]), (&json!(2), &json!(2)));
}

#[test]
fn a_host_is_that_of_the_last_start() {
    let hosts = Hosts(vec![(1, "a".into()), (9, "b".into())]);
    assert_eq!(
        [0, 1, 8, 9, 50].map(|seq| hosts.at(seq)),
        ["unknown", "a", "a", "b", "b"]
    );
}

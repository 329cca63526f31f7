//! Path and query as the product reads them, and as the test world's BigQuery does: where both take a request, it is the same one. Bodies
//! likewise. What is sent on is read alike by readers of every kind.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};

use enforcer::bigquery::json;
use enforcer::bigquery::route::{Route, Target, route};
use enforcer_proto::scope::{DatasetRef, TableRef};
use harness::world::{script, venv_python};
use serde::Deserialize;
use serde_json::Value;

use crate::chance::{Chance, number};

/// How many requests are made up; `ROUTING_ROUNDS` says otherwise, for a longer search, and `ROUTING_SEED` for another one.
const ROUNDS: u64 = 20_000;
const SEED: u64 = 0x2545_f491_4f6c_dd1d;
/// The share of them that the product must take, one in so many: else nothing is shown.
const TAKEN_MIN: usize = 20;

/// What one reader makes of a request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Said {
    method: String,
    names: BTreeMap<String, String>,
    parameters: BTreeMap<String, Vec<String>>,
}

/// What readers of several kinds make of it, by name; see `router.py`.
type Readings = BTreeMap<String, Option<Said>>;

/// Asks the far side's router for its readings of each request.
fn readings(requests: &[(String, String)]) -> Vec<Readings> {
    let mut router = Command::new(venv_python())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(script("far/router.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python runs");
    let mut input = router.stdin.take().expect("piped");
    let lines: Vec<String> = requests
        .iter()
        .map(|request| serde_json::to_string(request).expect("JSON"))
        .collect();
    let asking = std::thread::spawn(move || {
        for line in lines {
            writeln!(input, "{line}").expect("the router reads");
        }
    });
    let answers = BufReader::new(router.stdout.take().expect("piped")).lines();
    let answers: Vec<Readings> = answers
        .map(|line| serde_json::from_str(&line.expect("reads")).expect("JSON"))
        .collect();
    asking.join().expect("asks");
    assert!(router.wait().expect("ends").success());
    assert_eq!(answers.len(), requests.len(), "an answer to each");
    answers
}

/// What the product takes a request for: read as its HTTP library reads the target.
fn ours(verb: &str, target: &str) -> Option<Route> {
    let target: http::Uri = target.parse().ok()?;
    route(verb, target.path(), target.query()).ok()
}

fn named(target: &Target) -> BTreeMap<String, String> {
    let of_dataset = |dataset: &DatasetRef| {
        vec![
            ("project", dataset.project().to_owned()),
            ("dataset", dataset.dataset().to_owned()),
        ]
    };
    let of_table = |table: &TableRef| {
        let mut names = of_dataset(table.dataset());
        names.push(("table", table.table().to_owned()));
        names
    };
    let names = match target {
        Target::Discovery | Target::Projects | Target::Upload(_) => Vec::new(),
        Target::Datasets { project } | Target::Jobs { project } | Target::NewJob { project } => {
            vec![("project", project.clone())]
        }
        Target::Dataset(dataset) | Target::Tables(dataset) | Target::Within(dataset) => {
            of_dataset(dataset)
        }
        Target::Table(table) | Target::Rows(table) => of_table(table),
        Target::Job(job) => vec![("project", job.project.clone()), ("job", job.job.clone())],
    };
    let names = names
        .into_iter()
        .map(|(name, text)| (name.to_owned(), text));
    names.collect()
}

/// What the product asks for of itself, whatever was asked: of a dataset no more than what it holds.
const PUT_IN: (&str, &str) = ("datasetView", "METADATA");
/// Parameters that the product leaves out of what it sends on: a choice of parts, and credentials.
const LEFT_OUT: [&str; 9] = [
    "fields",
    "projection",
    "key",
    "access_token",
    "oauth_token",
    "quotaUser",
    "userIp",
    "bearer_token",
    "$.xgafv",
];

/// In what a reader differs from the product.
fn difference(route: &Route, said: &Said) -> Option<String> {
    let named = named(&route.target);
    let differs = |name: &String, text: &String| said.names.get(name) != Some(text);
    if said.method != route.method.as_str() {
        return Some(format!("it is {} and not {}", said.method, route.method));
    }
    if let Some((name, text)) = named.iter().find(|(name, text)| differs(name, text)) {
        return Some(format!(
            "the {name} is {:?} and not {text:?}",
            said.names.get(name)
        ));
    }
    // A project or dataset that only the reader sees; where parts of an upload go is judged by the upload's own name.
    let judged = ["project", "dataset", "table", "job"];
    let mut more = said
        .names
        .keys()
        .filter(|name| judged.contains(&name.as_str()));
    if !matches!(route.target, Target::Upload(_))
        && let Some(name) = more.find(|name| !named.contains_key(*name))
    {
        return Some(format!("it names a {name}"));
    }
    // A parameter without a value is none.
    let given = route
        .parameters
        .iter()
        .filter(|(_, value)| !value.is_empty());
    let given: BTreeMap<String, Vec<String>> = given
        .map(|(name, value)| (name.clone(), vec![value.clone()]))
        .collect();
    let mut seen = said.parameters.clone();
    seen.retain(|name, _| !LEFT_OUT.contains(&name.as_str()) || given.contains_key(name));
    let (name, value) = PUT_IN;
    if given.contains_key(name) {
        let put_in = || vec![value.to_owned()];
        seen.entry(name.to_owned()).or_insert_with(put_in);
    }
    (seen != given).then(|| format!("the parameters are {seen:?} and not {given:?}"))
}

/// What does not hold of these requests, and how many of them the product takes.
fn compared(requests: &[(String, String)]) -> (Vec<String>, usize) {
    let mut failures = Vec::new();
    let mut sent = Vec::new();
    for ((verb, target), readings) in requests.iter().zip(readings(requests)) {
        let Some(route) = ours(verb, target) else {
            continue;
        };
        for (kind, said) in &readings {
            let difference = said.as_ref().and_then(|said| difference(&route, said));
            failures.extend(difference.map(|why| format!("{verb} {target:?}, {kind}: {why}")));
        }
        sent.push((target, (verb.clone(), route.path_and_query()), route));
    }
    let passed: Vec<(String, String)> = sent.iter().map(|(_, passed, _)| passed.clone()).collect();
    for ((target, (verb, passed), route), readings) in sent.iter().zip(readings(&passed)) {
        for (kind, said) in &readings {
            let why = match said {
                Some(said) => difference(route, said),
                None => Some("it is nothing".to_owned()),
            };
            failures.extend(
                why.map(|why| format!("{verb} {target:?} is sent on as {passed:?}, {kind}: {why}")),
            );
        }
    }
    (failures, sent.len())
}

const BATTERY: &[(&str, &str, bool)] = &[
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/finance/tables/daily/data?maxResults=10",
        true,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/finance/tables/da%69ly",
        true,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/fin%61nce",
        true,
    ),
    ("GET", "/bigquery/v2/projects/example.com:p/datasets", true),
    (
        "GET",
        "/bigquery/v2/projects/example.com%3Ap/datasets",
        true,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/finance/tables/daily$20260101",
        true,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/finance/tables/daily%2420260101",
        true,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/finance/tables/two%20words",
        true,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/finance/tables/two+words",
        true,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/finance/tables/caf%C3%A9",
        true,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/jobs/j?location=US",
        true,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/jobs/j?location=%55S",
        true,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/jobs/j?l%6Fcation=US",
        true,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/jobs/j?location=",
        true,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/jobs/j?location=&alt=json",
        true,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/jobs?pageToken=a+b%2Bc%20d",
        true,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/jobs?pageToken=a;maxResults=5",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/jobs?pageToken=a%26maxResults%3D5",
        true,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/jobs?pageToken=%FF%FE",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/jobs?pageToken=%zz%",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/jobs?fields=jobs&projection=full&&",
        true,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/queries/j?timeoutMs=0&location=EU&maxResults=1#location=US",
        true,
    ),
    (
        "POST",
        "/bigquery/v2/projects/demo-project/jobs/j/cancel?location=US",
        true,
    ),
    (
        "DELETE",
        "/bigquery/v2/projects/demo-project/jobs/j/delete?location=US",
        true,
    ),
    (
        "POST",
        "/upload/bigquery/v2/projects/demo-project/jobs?uploadType=multipart",
        true,
    ),
    (
        "PUT",
        "/upload/bigquery/v2/projects/demo-project/jobs?uploadType=resumable&upload_id=a%2Fb",
        true,
    ),
    ("GET", "/$discovery/rest?version=v2", true),
    // What one of them takes for another request than the other might.
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/finance/../hr",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/finance/%2E%2E/hr",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/finance/.%2e/hr",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/./hr",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/..",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/finance%2F..%2Fhr",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/finance%2ftables%2fdaily",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/finance%252Ftables",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/finance%5C..%5Chr",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/finance;v=1",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/finance%3Bv=1",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/finance%3Falt=json",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/finance%23x",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/finance%00",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/finance%0d%0aHost:x",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/finance/",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project//datasets/finance",
        false,
    ),
    (
        "GET",
        "//bigquery/v2/projects/demo-project/datasets/finance",
        false,
    ),
    (
        "GET",
        "//evil/bigquery/v2/projects/demo-project/datasets/finance",
        false,
    ),
    (
        "GET",
        "/BigQuery/v2/projects/demo-project/datasets/finance",
        false,
    ),
    (
        "GET",
        "/bigquery%2Fv2/projects/demo-project/datasets/finance",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/caf%C3",
        false,
    ),
    (
        "get",
        "/bigquery/v2/projects/demo-project/datasets/finance",
        false,
    ),
    (
        "POST",
        "/bigquery/v2/projects/demo-project/datasets/finance/tables/t:getIamPolicy",
        false,
    ),
    (
        "POST",
        "/bigquery/v2/projects/demo-project/datasets/finance/tables/t%3AgetIamPolicy",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/datasets/finance/tables/t:getIamPolicy",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/jobs/j?location=US&location=EU",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/jobs/j?location=US&l%6Fcation=EU",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/jobs/j?location=&location=EU",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/jobs/j?location=US;maxResults=1",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/jobs/j?location=US%26location=EU",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/jobs/j?Location=US",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/jobs/j?location[]=US",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/jobs?allUsers=true",
        false,
    ),
    (
        "GET",
        "/bigquery/v2/projects/demo-project/jobs?alt=media",
        false,
    ),
    (
        "POST",
        "/upload/bigquery/v2/projects/demo-project/jobs?uploadType=multipart&uploadType=resumable",
        false,
    ),
    (
        "POST",
        "/upload/bigquery/v2/projects/demo-project/jobs?uploadType=multipart&upload_id=a",
        false,
    ),
    (
        "PUT",
        "/upload/bigquery/v2/projects/demo-project/jobs?uploadType=resumable&upload_id=a&upload_id=b",
        false,
    ),
    (
        "PUT",
        "/upload/bigquery/v2/projects/demo-project/jobs?uploadType=resumable;upload_id=a",
        false,
    ),
];

#[test]
fn a_request_that_both_take_is_the_same_one_by_path_and_query() {
    for (verb, target, is_taken) in BATTERY {
        assert_eq!(ours(verb, target).is_some(), *is_taken, "{verb} {target}");
    }
    let requests = BATTERY
        .iter()
        .map(|(verb, target, _)| ((*verb).to_owned(), (*target).to_owned()));
    let (failures, taken) = compared(&requests.collect::<Vec<_>>());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(
        taken,
        BATTERY.iter().filter(|(_, _, is_taken)| *is_taken).count()
    );
}

const VERBS: &[&str] = &["GET", "GET", "GET", "POST", "PUT", "PATCH", "DELETE"];
/// Paths, `?` standing for a name.
const PATHS: &[&str] = &[
    "/bigquery/v2/projects",
    "/bigquery/v2/projects/?/datasets",
    "/bigquery/v2/projects/?/datasets/?",
    "/bigquery/v2/projects/?/datasets/?/tables",
    "/bigquery/v2/projects/?/datasets/?/tables/?",
    "/bigquery/v2/projects/?/datasets/?/tables/?/data",
    "/bigquery/v2/projects/?/datasets/?/tables/?/insertAll",
    "/bigquery/v2/projects/?/datasets/?/models/?",
    "/bigquery/v2/projects/?/datasets/?/routines/?",
    "/bigquery/v2/projects/?/jobs",
    "/bigquery/v2/projects/?/jobs/?",
    "/bigquery/v2/projects/?/jobs/?/cancel",
    "/bigquery/v2/projects/?/jobs/?/delete",
    "/bigquery/v2/projects/?/queries",
    "/bigquery/v2/projects/?/queries/?",
    "/upload/bigquery/v2/projects/?/jobs",
    "/$discovery/rest",
];
const PARTS: &[&str] = &[
    "p",
    "example.com:p",
    "finance",
    "hr",
    "daily",
    "j",
    "a",
    "b-1",
    "_",
    "jobs",
    "datasets",
];
const ODD: &[&str] = &[
    "/", "//", ".", "..", "%2E", "%2e%2e", "%2F", "%252F", "%5C", "\\", ";", "%3B", ":", "%3A",
    "$", "%24", "%20", "+", "%2B", "%C3%A9", "%FF", "%00", "%61", "%6a", "%", "%4", "%zz", "~",
    "*", "'", "!", "@", "=", "%3D", "&", "%26", "?", "%3F", "#", "%23", "|", "%7F", "é", "cancel",
];
const PARAMETERS: &[&str] = &[
    "location",
    "maxResults",
    "pageToken",
    "timeoutMs",
    "uploadType",
    "upload_id",
    "alt",
    "prettyPrint",
    "fields",
    "projection",
    "view",
    "selectedFields",
    "version",
    "key",
    "allUsers",
    "Location",
    "l%6Fcation",
    "location%00",
];
const VALUES: &[&str] = &[
    "",
    "US",
    "eu",
    "10",
    "json",
    "multipart",
    "resumable",
    "a+b",
    "a%20b",
    "a%2Bb",
    "a;b=c",
    "a%26b=c",
    "%FF",
    "%F0%9F",
    "%zz",
    "a=b",
    "%",
    "v2",
    "US%00",
    "é",
];

/// A request, of parts that clients send and of some that nobody should.
fn made_up(chance: &mut Chance) -> (String, String) {
    let mut target = String::new();
    for part in chance.of(PATHS).split_inclusive('?') {
        match part.strip_suffix('?') {
            Some(part) => {
                target += part;
                target += chance.of(PARTS);
                if chance.below(12) == 0 {
                    target += chance.of(ODD);
                    target += chance.of(PARTS);
                }
            }
            None => target += part,
        }
    }
    if chance.below(8) == 0 {
        let places: Vec<usize> = target.char_indices().map(|(at, _)| at).collect();
        let at = places[chance.below(places.len())];
        target.insert_str(at, chance.of(ODD));
    }
    for at in 0..chance.below(4) {
        target += match (at, chance.below(20)) {
            (0, _) => "?",
            (_, 0) => ";",
            (_, 1) => "&&",
            _ => "&",
        };
        target += chance.of(PARAMETERS);
        target += if chance.below(20) == 0 { "" } else { "=" };
        target += chance.of(VALUES);
    }
    (chance.of(VERBS).to_owned(), target)
}

#[test]
fn made_up_requests_that_both_take_are_the_same_ones() {
    let mut chance = Chance::new("ROUTING_SEED", SEED);
    let rounds = number("ROUTING_ROUNDS", ROUNDS);
    let requests: Vec<(String, String)> = (0..rounds).map(|_| made_up(&mut chance)).collect();
    let (failures, taken) = compared(&requests);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(
        taken * TAKEN_MIN >= requests.len(),
        "{taken} of {} are taken",
        requests.len()
    );
}

/// Reads bodies strictly by Python, whose parser shares no code with the product's, and prints each anew, or nothing of what it refuses.
const BODIES: &str = r#"
import decimal, json, sys
def once(pairs):
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("twice")
    return dict(pairs)
def refuse(text):
    raise ValueError(text)
def shown(value):
    if isinstance(value, decimal.Decimal):
        return {"number": repr(float(value))}
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return {"number": repr(float(value)) if abs(value) >= 1 << 64 else str(value)}
    if isinstance(value, list):
        return [shown(item) for item in value]
    return {"object": [[name, shown(item)] for name, item in value.items()]}
for line in sys.stdin:
    try:
        value = json.loads(bytes.fromhex(line).decode("utf-8", "strict"), object_pairs_hook=once, parse_constant=refuse, parse_float=decimal.Decimal)
        print(json.dumps(shown(value)))
    except (ValueError, ArithmeticError):
        print("null")
"#;

fn shown(value: &Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => value.clone(),
        // Python writes a double as its own text.
        Value::Number(number) => serde_json::json!({"number": number.to_string()}),
        Value::Array(items) => items.iter().map(shown).collect(),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, item)| serde_json::json!([name, shown(item)]));
            serde_json::json!({"object": fields.collect::<Vec<_>>()})
        }
    }
}

/// Makes numbers comparable: as the double that is nearest, where one of both is written as such.
fn doubles(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(text) = fields
                .get("number")
                .and_then(Value::as_str)
                .map(str::to_owned)
            {
                let is_whole = text
                    .parse::<i128>()
                    .is_ok_and(|whole| whole.unsigned_abs() < 1 << 64);
                if !is_whole {
                    let value: f64 = text.parse().expect("a double");
                    // Less than nothing is nothing.
                    let said = match value.to_bits() << 1 {
                        0 => serde_json::json!("0"),
                        _ => serde_json::json!(value.to_bits()),
                    };
                    fields["number"] = said;
                }
            }
            fields.values_mut().for_each(doubles);
        }
        Value::Array(items) => items.iter_mut().for_each(doubles),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

const SIGNS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\"a\"",
    "\"b\"",
    "\"\\u0061\"",
    "\"\\ud800\"",
    "\"\\ud83d\\ude00\"",
    "\"é\"",
    "\"\\/\"",
    "\"\\x\"",
    " ",
    "\n",
    "\u{a0}",
    "1",
    "-0",
    "0.1",
    "1e5",
    "1E+2",
    "01",
    "1.",
    ".5",
    "+1",
    "0x1",
    "1e400",
    "1e-400",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "123456789012345678901234567890",
    "4245191891425139.5",
    "0.1234567890123456789",
    "null",
    "true",
    "false",
    "NaN",
    "Infinity",
    "//",
    "/**/",
    "\u{feff}",
    "\u{0}",
    "'a'",
];

/// A body: pairs of keys and values, and now and then something else.
fn body(chance: &mut Chance) -> String {
    let mut text = "{".to_owned();
    for at in 0..chance.below(5) {
        text += if at == 0 { "" } else { "," };
        text += chance.of(&["\"a\"", "\"b\"", "\"c\"", "\"d\"", "\"\\u0061\"", "\"é\""]);
        text += ":";
        match chance.below(6) {
            0 => text += &body(chance),
            1 => {
                text += "[";
                text += chance.of(SIGNS);
                text += "]";
            }
            _ => text += chance.of(SIGNS),
        }
        if chance.below(30) == 0 {
            text += chance.of(SIGNS);
        }
    }
    text + "}"
}

#[test]
fn made_up_bodies_that_the_product_takes_python_reads_alike() {
    let mut chance = Chance::new("ROUTING_SEED", SEED);
    let rounds = number("ROUTING_ROUNDS", ROUNDS);
    let bodies: Vec<String> = (0..rounds).map(|_| body(&mut chance)).collect();
    let hex = |body: &String| {
        body.bytes()
            .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
    };
    let input: Vec<String> = bodies.iter().map(hex).collect();
    let output = {
        let mut python = Command::new(venv_python())
            .args(["-c", BODIES])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python runs");
        let mut pipe = python.stdin.take().expect("piped");
        let writing = std::thread::spawn(move || {
            pipe.write_all((input.join("\n") + "\n").as_bytes())
                .expect("python reads");
        });
        let output = python.wait_with_output().expect("python ends");
        writing.join().expect("writes");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let (mut taken, mut lines) = (0, 0);
    for (body, line) in bodies.iter().zip(output.lines()) {
        lines += 1;
        // What is no text to Python, as half a pair, it prints all the same.
        let mut theirs: Value = serde_json::from_str(line).unwrap_or_default();
        for read in [json::object, json::object_with_any_numbers] {
            let Ok(read) = read(body.as_bytes()) else {
                continue;
            };
            taken += 1;
            let mut ours = shown(&Value::Object(read));
            doubles(&mut ours);
            doubles(&mut theirs);
            assert_eq!(ours, theirs, "{body}");
        }
    }
    assert_eq!(lines, bodies.len(), "an answer to each");
    assert!(
        taken * TAKEN_MIN >= bodies.len(),
        "{taken} of {} are taken",
        bodies.len()
    );
}

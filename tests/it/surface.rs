//! The API's methods one by one, by a client that knows nothing of BigQuery's libraries: what is served in a window, and only there.

use enforcer::bigquery::methods::{Judged, METHODS};
use harness::world::{Family, Who, World, wait_for};
use serde_json::{Value, json};

/// Sends requests given as `[[method, path, body, headers], …]`, the last optional, and prints `[[status, body, place], …]`.
const RAW: &str = r#"
import http.client, json, ssl, sys
connection = http.client.HTTPSConnection("bigquery.googleapis.com", context=ssl.create_default_context(cafile=sys.argv[1]))
answers = []
for method, path, body, *headers in json.loads(sys.argv[2]):
    headers = dict(headers[0] if headers else {})
    if body:
        headers["content-type"] = "application/json"
    connection.request(method, path, json.dumps(body) if body else None, headers)
    answer = connection.getresponse()
    answers.append([answer.status, json.loads(answer.read() or "null"), answer.getheader("location")])
print(json.dumps(answers))
"#;

pub(crate) const PROJECT: &str = "/bigquery/v2/projects/demo-project";
const DISCOVERY: [&str; 2] = [
    "/$discovery/rest?version=v2",
    "/discovery/v1/apis/bigquery/v2/rest",
];

/// An answer: its status and body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u64,
    pub(crate) body: Value,
    /// Its `Location`.
    pub(crate) place: Option<String>,
}

impl Answer {
    #[track_caller]
    pub(crate) fn served(&self) -> &Value {
        assert_eq!(self.status, 200, "{}", self.body);
        &self.body
    }

    /// The code stands at the end of the message, as every client shows it.
    #[track_caller]
    pub(crate) fn refused(&self, code: &str) {
        let message = self.body["error"]["message"].as_str().unwrap_or_default();
        assert!(
            self.status == 403 && message.ends_with(&format!("[{code}]")),
            "{code}: {self:?}"
        );
    }
}

pub(crate) fn send(world: &World, requests: &Value) -> Vec<Answer> {
    let output = world
        .run_as(Who::Agent, "/usr/bin/python3")
        .args(["-c", RAW])
        .arg(world.stage.dir().join("run/ca.pem"))
        .arg(requests.to_string())
        .output()
        .expect("python runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    type Said = (u64, Value, Option<String>);
    let answers: Vec<Said> = serde_json::from_slice(&output.stdout).expect("prints JSON");
    let answer = |(status, body, place)| Answer {
        status,
        body,
        place,
    };
    answers.into_iter().map(answer).collect()
}

fn get(world: &World, path: &str) -> Answer {
    send(world, &json!([["GET", path, null]])).remove(0)
}

fn post(world: &World, path: &str, body: &Value) -> Answer {
    send(world, &json!([["POST", path, body]])).remove(0)
}

/// A started job: its id, and the table that BigQuery keeps its result in.
struct Job {
    id: String,
    result: String,
}

fn start_job(world: &World) -> Job {
    let query =
        json!({"query": "SELECT id FROM finance.accounts ORDER BY id", "useLegacySql": false});
    let body = json!({"configuration": {"query": query}});
    let answer = post(world, &format!("{PROJECT}/jobs"), &body);
    let job = answer.served();
    let text = |value: &Value| value.as_str().expect("a name").to_owned();
    let table = &job["configuration"]["query"]["destinationTable"];
    let (dataset, table) = (text(&table["datasetId"]), text(&table["tableId"]));
    assert!(dataset.starts_with('_'), "the result is anonymous: {job}");
    Job {
        id: text(&job["jobReference"]["jobId"]),
        result: format!("{PROJECT}/datasets/{dataset}/tables/{table}/data"),
    }
}

#[test]
fn the_apis_description_is_served_in_a_window_and_refused_without_one() {
    let world = World::start(Family::V4);
    for path in DISCOVERY {
        get(&world, path).refused("window.none");
    }
    let _ = world.open_window("demo-project.finance:read", "1m");
    for path in DISCOVERY {
        let answer = get(&world, path);
        assert_eq!(answer.served()["id"], "bigquery:v2", "{path}");
    }
    post(&world, DISCOVERY[0], &json!({"x": 1})).refused("api.method");
}

#[test]
fn a_dataset_and_a_view_are_described_without_who_may_see_them_and_what_they_name_elsewhere() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "1m");
    let dataset = format!("{PROJECT}/datasets/finance");
    for faults in [json!({}), json!({"tells_access": true})] {
        world.set_faults(&faults);
        for query in ["", "?datasetView=METADATA", "?fields=access,id"] {
            let said = get(&world, &format!("{dataset}{query}"));
            assert_eq!(
                said.served()["access"],
                Value::Null,
                "{query}: {}",
                said.body
            );
            assert_eq!(said.body["id"], "demo-project:finance", "{}", said.body);
        }
    }
    for view in ["ACL", "FULL"] {
        get(&world, &format!("{dataset}?datasetView={view}")).refused("api.field");
    }
    let asked = world.far_requests();
    let mut asked = asked.iter().filter(|request| {
        let path = request["path"].as_str().unwrap_or_default();
        path.starts_with(&format!("{dataset}?"))
    });
    assert!(asked.all(|request| request["path"].to_string().contains("datasetView=METADATA")));
    let view = |name: &str| {
        get(&world, &format!("{dataset}/tables/{name}"))
            .served()
            .clone()
    };
    let own = view("daily_view");
    assert!(
        own["view"]["query"].to_string().contains("finance.daily"),
        "{own}"
    );
    let of_others = view("hr_view");
    assert!(
        !of_others["view"].to_string().contains("salaries"),
        "{of_others}"
    );
    assert_eq!(of_others["type"], "VIEW", "{of_others}");
}

#[test]
fn a_query_at_once_is_judged_like_a_job_and_always_becomes_one() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "1m");
    let query = |sql: &str, mode: &str| {
        let body = json!({"query": sql, "useLegacySql": false, "jobCreationMode": mode});
        post(&world, &format!("{PROJECT}/queries"), &body)
    };
    for mode in ["JOB_CREATION_REQUIRED", "JOB_CREATION_OPTIONAL"] {
        let answer = query("SELECT COUNT(*) FROM finance.daily", mode);
        assert_eq!(answer.served()["rows"], json!([{"f": [{"v": "1000"}]}]));
        for outside in ["SELECT * FROM hr.salaries", "SELECT * FROM finance.hr_view"] {
            query(outside, mode).refused("scope.outside");
        }
    }
    let sent = world.far_requests();
    let modes: Vec<Value> = sent
        .iter()
        .filter(|request| request["path"] == format!("{PROJECT}/queries"))
        .map(|request| {
            let body = request["body"].as_str().expect("text");
            serde_json::from_str::<Value>(body).expect("JSON")["jobCreationMode"].clone()
        })
        .collect();
    // A query without a job could be neither cancelled at the close nor read back.
    assert_eq!(modes, ["JOB_CREATION_REQUIRED"; 2]);
}

#[test]
fn metadata_and_rows_are_served_in_scope_and_refused_out_of_it() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "1m");
    let projects = get(&world, "/bigquery/v2/projects");
    let projects = projects.served()["projects"].as_array().expect("a list");
    let ids: Vec<&Value> = projects.iter().map(|project| &project["id"]).collect();
    assert_eq!(ids, ["demo-project"]);
    let datasets = get(&world, &format!("{PROJECT}/datasets"));
    let datasets = datasets.served()["datasets"].as_array().expect("a list");
    assert_eq!(datasets.len(), 1, "{datasets:?}");
    let rows = get(
        &world,
        &format!("{PROJECT}/datasets/finance/tables/accounts/data?maxResults=5"),
    );
    assert_eq!(rows.served()["rows"].as_array().map(Vec::len), Some(5));
    for (inside, outside) in [
        ("finance", "hr"),
        ("finance/tables", "hr/tables"),
        ("finance/tables/daily", "hr/tables/salaries"),
        ("finance/tables/daily/data", "hr/tables/salaries/data"),
    ] {
        get(&world, &format!("{PROJECT}/datasets/{inside}")).served();
        get(&world, &format!("{PROJECT}/datasets/{outside}")).refused("scope.outside");
    }
    get(&world, "/bigquery/v2/projects/other-project/datasets").refused("scope.project");
}

#[test]
fn a_job_and_its_result_are_the_windows_own_and_no_later_ones() {
    let world = World::start(Family::V4);
    let grant = world.open_window("demo-project.finance:read", "1m");
    let job = start_job(&world);
    let requests = json!([
        ["GET", format!("{PROJECT}/jobs/{}", job.id), null],
        ["GET", format!("{PROJECT}/queries/{}", job.id), null],
        ["POST", format!("{PROJECT}/jobs/{}/cancel", job.id), null],
        ["GET", job.result, null],
    ]);
    let answers = send(&world, &requests);
    for answer in &answers {
        answer.served();
    }
    for read in [&answers[1], &answers[3]] {
        assert_eq!(read.body["rows"].as_array().map(Vec::len), Some(20));
    }

    let closed = world.cli(Who::Agent, &["close", &grant]);
    assert!(closed.status.success(), "{closed:?}");
    let _ = world.open_window("demo-project.finance:read", "1m");
    let answers = send(&world, &requests);
    for (answer, code) in
        answers
            .iter()
            .zip(["job.foreign", "job.foreign", "job.foreign", "scope.outside"])
    {
        answer.refused(code);
    }
    let own = start_job(&world);
    assert_ne!(own.result, job.result);
    get(&world, &own.result).served();
    get(&world, &job.result).refused("scope.outside");
}

#[test]
fn a_job_of_an_earlier_window_cannot_be_read_by_its_id_at_another_location() {
    let world = World::start(Family::V4);
    let job = |sql: &str, location: &str| {
        json!({
            "jobReference": {"projectId": "demo-project", "jobId": "known", "location": location},
            "configuration": {"query": {"query": sql, "useLegacySql": false}},
        })
    };
    let grant = world.open_window("demo-project.finance:read", "1m");
    let secret = job("SELECT 'of the first window'", "US");
    post(&world, &format!("{PROJECT}/jobs"), &secret).served();
    assert!(world.cli(Who::Agent, &["close", &grant]).status.success());

    let _ = world.open_window("demo-project.finance:read", "1m");
    let results = format!("{PROJECT}/queries/known");
    get(&world, &results).refused("job.foreign");
    // The same id elsewhere, which BigQuery allows, and an answer that does not say where.
    let mine = job("SELECT 'of this window'", "asia-northeast1");
    post(
        &world,
        &format!("{PROJECT}/jobs?fields=jobReference(projectId,jobId)"),
        &mine,
    )
    .served();
    let answer = get(&world, &results);
    assert_eq!(
        answer.served()["rows"],
        json!([{"f": [{"v": "of this window"}]}])
    );
    get(&world, &format!("{results}?location=US")).refused("job.foreign");
}

#[test]
fn what_reaches_past_tables_is_refused_before_bigquery_is_asked_anything() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "1m");
    let query = |sql: &str| {
        let body = json!({"query": sql, "useLegacySql": false});
        post(&world, &format!("{PROJECT}/queries"), &body)
    };
    for (sql, code) in [
        (
            "SELECT * FROM finance.daily, EXTERNAL_QUERY('demo-project.us.c', 'SELECT 1')",
            "query.not_vouched",
        ),
        ("SELECT hr.secret(day) FROM finance.daily", "scope.outside"),
        (
            "SELECT * FROM ML.PREDICT(MODEL hr.m, TABLE finance.daily)",
            "query.not_vouched",
        ),
        (
            "SELECT * FROM finance.daily, `region-us`.INFORMATION_SCHEMA.TABLES",
            "scope.outside",
        ),
    ] {
        query(sql).refused(code);
    }
    let elsewhere = json!({"query": "SELECT 1", "useLegacySql": false});
    post(
        &world,
        "/bigquery/v2/projects/other-project/queries",
        &elsewhere,
    )
    .refused("scope.project");
    let asked = world.far_requests();
    assert!(
        asked
            .iter()
            .all(|request| request["host"] != "bigquery.googleapis.com"),
        "{asked:?}"
    );
    assert_eq!(world.events("query_refused").len(), 5);
}

#[test]
fn functions_that_reach_elsewhere_are_refused_where_a_dataset_has_their_name() {
    let mut world = World::without_daemon(Family::V4);
    let policy = harness::world::policy("15m", false);
    let finance = "datasets = [\"demo-project.finance\"]";
    assert!(policy.contains(finance), "{policy}");
    let all = "datasets = [\"demo-project.finance\", \"demo-project.ai\", \"demo-project.obj\"]";
    world.set_policy(&policy.replace(finance, all));
    world.start_daemon();
    let _ = world.open_window("demo-project.ai:read,demo-project.obj:read", "1m");
    for sql in [
        "SELECT ai.generate('all of it', connection_id => 'us.conn').result",
        "SELECT obj.get_access_url(obj.make_ref('gs://elsewhere/secret', 'us.conn'), 'rw')",
        "SELECT `ai`.`generate`('all of it')",
        "SELECT SAFE.ai.generate('all of it')",
    ] {
        let body = json!({"query": sql, "useLegacySql": false});
        post(&world, &format!("{PROJECT}/queries"), &body).refused("query.not_vouched");
    }
    let asked = world.far_requests();
    let mut hosts = asked.iter().map(|request| &request["host"]);
    assert!(
        hosts.all(|host| host != "bigquery.googleapis.com"),
        "{asked:?}"
    );
}

#[test]
fn a_table_outside_is_refused_in_the_same_words_whether_it_exists_or_not() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "1m");
    let refusal = |table: &str, columns: &str| {
        let sql = format!("SELECT {columns} FROM hr.{table}");
        let body = json!({"query": sql, "useLegacySql": false});
        let answer = post(&world, &format!("{PROJECT}/queries"), &body);
        answer.refused("scope.outside");
        answer.body["error"]["message"]
            .as_str()
            .expect("text")
            .replace(table, "T")
    };
    let there = refusal("salaries", "*");
    assert_eq!(refusal("nosuch", "*"), there);
    assert_eq!(refusal("salaries", "nosuch"), there);
}

#[test]
fn a_list_of_jobs_holds_the_windows_own_and_one_can_be_removed() {
    let world = World::start(Family::V4);
    let grant = world.open_window("demo-project.finance:read", "1m");
    let earlier = start_job(&world);
    assert!(world.cli(Who::Agent, &["close", &grant]).status.success());
    let _ = world.open_window("demo-project.finance:read", "1m");
    let own = start_job(&world);
    let listed = |query: &str| {
        let list = get(&world, &format!("{PROJECT}/jobs?{query}"));
        let jobs = list.served()["jobs"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let id = |job: &Value| job["jobReference"]["jobId"].as_str().map(str::to_owned);
        jobs.iter().filter_map(id).collect::<Vec<String>>()
    };
    assert_eq!(
        listed("projection=full&fields=nextPageToken"),
        std::slice::from_ref(&own.id)
    );
    get(&world, &format!("{PROJECT}/jobs?allUsers=true")).refused("api.field");
    get(&world, "/bigquery/v2/projects/other-project/jobs").refused("scope.project");
    let remove = |id: &str| {
        let request = json!([["DELETE", format!("{PROJECT}/jobs/{id}/delete"), null]]);
        send(&world, &request).remove(0)
    };
    remove(&earlier.id).refused("job.foreign");
    remove(&own.id).served();
}

#[test]
fn models_and_routines_are_told_of_in_scope_and_changed_by_nobody() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "1m");
    for kind in ["models", "routines"] {
        let within = |dataset: &str| format!("{PROJECT}/datasets/{dataset}/{kind}");
        get(&world, &within("finance")).served();
        get(&world, &within("hr")).refused("scope.outside");
        get(&world, &format!("{}/m", within("hr"))).refused("scope.outside");
        let removed = json!([["DELETE", format!("{}/m", within("finance")), null]]);
        send(&world, &removed).remove(0).refused("api.method");
    }
}

/// The API's own description, as BigQuery's client library for Python carries it.
fn description() -> Value {
    let packages = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/venv/lib");
    let mut pythons = std::fs::read_dir(packages).expect("reads").flatten();
    let python = pythons.next().expect("one Python").path();
    let file = "site-packages/googleapiclient/discovery_cache/documents/bigquery.v2.json";
    let text = std::fs::read_to_string(python.join(file)).expect("reads");
    serde_json::from_str(&text).expect("JSON")
}

/// The methods of a part of the description: name, HTTP method, path, parameters in the query.
fn methods(part: &Value, found: &mut Vec<(String, String, String, Vec<String>)>) {
    let of = |name: &str| part[name].as_object().cloned().unwrap_or_default();
    for (_, method) in of("methods") {
        let text = |name: &str| method[name].as_str().expect("text").to_owned();
        let parameters = method["parameters"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        let in_query = parameters
            .into_iter()
            .filter(|(_, said)| said["location"] == "query");
        found.push((
            text("id"),
            text("httpMethod"),
            text("flatPath"),
            in_query.map(|(name, _)| name).collect(),
        ));
    }
    for (_, resource) in of("resources") {
        methods(&resource, found);
    }
}

#[test]
fn every_method_of_the_apis_own_description_has_a_row_and_no_other_has() {
    let mut described = Vec::new();
    methods(&description(), &mut described);
    assert!(described.len() >= 47, "{}", described.len());
    // The description calls what stands in braces otherwise.
    let shape = |path: &str| {
        let mut parts = path.split(['{', '}']).enumerate();
        parts
            .by_ref()
            .map(|(at, part)| if at % 2 == 1 { "{}" } else { part })
            .collect::<String>()
    };
    for (id, verb, path, parameters) in &described {
        let name = id.strip_prefix("bigquery.").expect("BigQuery's");
        let row = METHODS.iter().find(|row| row.id == name);
        let row =
            row.unwrap_or_else(|| panic!("{id} has no row: it is refused, and must be judged"));
        assert_eq!(
            (row.verb, shape(row.path)),
            (verb.as_str(), shape(path)),
            "{id}"
        );
        if let Judged::As(_, allowed) = row.judged {
            // What the description leaves out, and clients send all the same.
            let undescribed = ["projection"];
            for name in allowed {
                let is_described = parameters.iter().any(|parameter| parameter == name);
                assert!(
                    is_described || undescribed.contains(name),
                    "{id} has no {name}"
                );
            }
        }
    }
    for row in METHODS {
        let id = format!("bigquery.{}", row.id);
        assert!(
            described.iter().any(|(described, ..)| *described == id),
            "{id}"
        );
    }
}

#[test]
fn a_job_that_read_outside_its_window_is_on_record_its_answer_kept_back_and_the_window_closed() {
    let world = World::start(Family::V4);
    let grant = world.open_window("demo-project.finance:read", "1m");
    world.set_faults(&json!({"reads_also": [["demo-project", "hr", "salaries"]]}));
    let query = json!({"query": "SELECT id FROM finance.accounts", "useLegacySql": false});
    let body = json!({"configuration": {"query": query}});
    let started = post(&world, &format!("{PROJECT}/jobs"), &body);
    // It has ended at once, or is asked for: either answer says what it read.
    let answer = match started.status {
        200 => {
            let id = started.body["jobReference"]["jobId"]
                .as_str()
                .expect("a job")
                .to_owned();
            get(&world, &format!("{PROJECT}/jobs/{id}"))
        }
        _ => started,
    };
    // The close may be heard of first.
    let told = answer.body.to_string();
    // Who watches the job may have seen it first, and the window have closed.
    let kept_back = ["[scope.outside]", "[window.closed]", "[window.none]"];
    assert!(
        answer.status == 403 && kept_back.iter().any(|code| told.contains(code)),
        "{told}"
    );
    wait_for("the close", || {
        let closed = world.events("closed");
        closed
            .iter()
            .any(|event| event["grant"] == grant.as_str() && event["reason"] == "scope_violated")
    });
    let seen = world.events("job_seen");
    assert!(
        seen.iter()
            .any(|event| event["read_outside"] == "demo-project.hr.salaries"),
        "{seen:?}"
    );
    get(&world, &format!("{PROJECT}/datasets/finance")).refused("window.none");
}

#[test]
fn a_dry_run_that_leaves_out_a_view_which_the_text_names_lets_nothing_through() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read,demo-project.scratch:write", "1m");
    world.set_faults(&json!({"names_only": {"dry_run": [["demo-project", "finance", "daily"]]}}));
    let body = |sql: &str| json!({"query": sql, "useLegacySql": false});
    for sql in [
        "SELECT name, salary FROM finance.hr_view WHERE TRUE",
        "WITH hr_view AS (SELECT * FROM finance.hr_view) SELECT name FROM hr_view",
        "SELECT day FROM finance.daily, finance.hr_view",
        "INSERT INTO scratch.notes (id, text) SELECT salary, name FROM finance.hr_view",
    ] {
        post(&world, &format!("{PROJECT}/queries"), &body(sql)).refused("query.not_vouched");
    }
    // A name without a dataset is the same table's.
    let mut by_default = body("SELECT name FROM hr_view");
    by_default["defaultDataset"] = json!({"datasetId": "finance"});
    post(&world, &format!("{PROJECT}/queries"), &by_default).refused("query.not_vouched");
    // What is named and listed is let through, whatever stands beside it in the list.
    let listed = json!([
        ["demo-project", "finance", "daily"],
        ["demo-project", "finance", "accounts"]
    ]);
    world.set_faults(&json!({"names_only": {"dry_run": listed}}));
    let served = post(
        &world,
        &format!("{PROJECT}/queries"),
        &body("SELECT COUNT(*) FROM finance.daily"),
    );
    assert_eq!(served.status, 200, "{}", served.body);
}

/// Behind a pipe the name of a row hid that of a dataset: `hr` counted as the row that a JOIN had named before.
const BEHIND_PIPES: [&str; 5] = [
    "SELECT 1 FROM finance.daily WHERE EXISTS (FROM finance.daily |> CROSS JOIN finance.accounts AS hr) AND EXISTS (SELECT salaryy FROM hr.salaries)",
    "SELECT 1 FROM finance.daily WHERE EXISTS (FROM finance.daily |> CROSS JOIN finance.accounts AS hr) AND EXISTS (SELECT 1 FROM hr.nosuch)",
    "WITH hr AS (FROM finance.daily |> CROSS JOIN finance.accounts AS hr), b AS (SELECT salaryy FROM hr.salaries) SELECT * FROM b",
    "FROM finance.daily |> CROSS JOIN finance.accounts AS hr |> SELECT 1 AS x |> CROSS JOIN hr.nosuch",
    "FROM finance.daily |> CROSS JOIN finance.accounts AS hr |> SELECT 1 AS x |> CROSS JOIN hr.salaries |> SELECT name, salary |> LIMIT 2",
];

#[test]
fn no_table_outside_is_taken_for_a_row_behind_a_pipe_whatever_the_dry_run_says() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "1m");
    let listed = json!([
        ["demo-project", "finance", "daily"],
        ["demo-project", "finance", "accounts"]
    ]);
    for faults in [
        json!({}),
        json!({"names_only": {"dry_run": listed, "job": listed}}),
    ] {
        world.set_faults(&faults);
        for sql in BEHIND_PIPES {
            let body = json!({"query": sql, "useLegacySql": false});
            post(&world, &format!("{PROJECT}/queries"), &body).refused("scope.outside");
        }
    }
}

#[test]
fn the_words_of_a_dry_run_do_not_tell_what_a_view_is_made_of() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "1m");
    let ask = |sql: &str| {
        let body = json!({"query": sql, "useLegacySql": false});
        let answer = post(&world, &format!("{PROJECT}/queries"), &body);
        answer.body["error"]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let said = ask("SELECT nosuch FROM finance.hr_view");
    assert!(
        said.contains("kept back") && said.contains("query.dry_run"),
        "{said}"
    );
    assert!(
        !said.contains("salar") && !said.contains("hr__") && !said.contains("__hr"),
        "{said}"
    );
}

#[test]
fn a_list_of_jobs_says_what_they_read_and_is_compared_as_well() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "1m");
    world.set_faults(&json!({"reads_also": [["demo-project", "hr", "salaries"]], "run_ms": 1000}));
    let query = json!({"query": "SELECT id FROM finance.accounts", "useLegacySql": false});
    let body = json!({"configuration": {"query": query}});
    let started = post(&world, &format!("{PROJECT}/jobs"), &body);
    assert_eq!(started.served()["status"]["state"], "RUNNING");
    wait_for("the list to be kept back", || {
        let list = get(&world, &format!("{PROJECT}/jobs?projection=full"));
        assert!(
            !list.body.to_string().contains("salaries") || list.status == 403,
            "{list:?}"
        );
        list.status == 403
    });
    wait_for("the close", || {
        let closed = world.events("closed");
        closed
            .iter()
            .any(|event| event["reason"] == "scope_violated")
    });
}

/// No rows of a job that has read outside its window are passed on: not by `ask`, which gives the answer that would have them.
fn rows_are_kept_back(ask: impl Fn(&World) -> Answer) {
    let world = World::start(Family::V4);
    let grant = world.open_window("demo-project.finance:read", "1m");
    world.set_faults(&json!({"reads_also": [["demo-project", "hr", "salaries"]], "run_ms": 600}));
    let answer = ask(&world);
    let told = answer.body.to_string();
    // Who watches the job may have seen it first, and the window have closed.
    let kept_back = ["[scope.outside]", "[window.closed]", "[window.none]"];
    assert!(
        answer.status == 403 && kept_back.iter().any(|code| told.contains(code)),
        "{told}"
    );
    assert!(!told.contains("account"), "{told}");
    wait_for("the close", || {
        let closed = world.events("closed");
        closed
            .iter()
            .any(|event| event["grant"] == grant.as_str() && event["reason"] == "scope_violated")
    });
}

const ACCOUNTS: &str = "SELECT name FROM finance.accounts";

/// Starts the job that answers as running, and gives its description.
fn start_slow(world: &World) -> Value {
    let query = json!({"query": ACCOUNTS, "useLegacySql": false});
    let body = json!({"configuration": {"query": query}});
    let started = post(world, &format!("{PROJECT}/jobs"), &body);
    assert_eq!(started.served()["status"]["state"], "RUNNING");
    started.body
}

#[test]
fn a_query_at_once_that_read_outside_gives_no_rows() {
    rows_are_kept_back(|world| {
        let body = json!({"query": ACCOUNTS, "useLegacySql": false, "timeoutMs": 9000});
        post(world, &format!("{PROJECT}/queries"), &body)
    });
}

#[test]
fn results_of_a_job_that_read_outside_are_not_given() {
    rows_are_kept_back(|world| {
        let started = start_slow(world);
        let id = started["jobReference"]["jobId"].as_str().expect("a job");
        get(
            world,
            &format!("{PROJECT}/queries/{id}?timeoutMs=9000&location=US"),
        )
    });
}

#[test]
fn the_table_that_holds_the_result_of_a_job_that_read_outside_is_not_read() {
    rows_are_kept_back(|world| {
        let mut faults = json!({"reads_also": [["demo-project", "hr", "salaries"]], "held": true});
        world.set_faults(&faults);
        let started = start_slow(world);
        let place = &started["configuration"]["query"]["destinationTable"];
        let (dataset, table) = (&place["datasetId"], &place["tableId"]);
        let path = format!(
            "{PROJECT}/datasets/{}/tables/{}/data",
            dataset.as_str().expect("a dataset"),
            table.as_str().expect("a table")
        );
        // Before it has ended nothing is known of it, and nothing given.
        let early = get(world, &path);
        early.refused("query.not_vouched");
        faults["held"] = false.into();
        world.set_faults(&faults);
        let mut late = early;
        wait_for("its end", || {
            late = get(world, &path);
            !late.body.to_string().contains("[query.not_vouched]")
        });
        late
    });
}

#[test]
fn the_same_query_is_judged_without_asking_again_until_something_is_written_or_the_window_is_another()
 {
    let world = World::start(Family::V4);
    let scope = "demo-project.finance:read,demo-project.scratch:ddl";
    let grant = world.open_window(scope, "1m");
    let dry_runs = || {
        let far = world.far_requests();
        let bodies = far.iter().filter_map(|request| request["body"].as_str());
        bodies
            .filter(|body| body.contains("\"dryRun\":true"))
            .count()
    };
    let ask = |sql: &str| {
        let query = json!({"query": sql, "useLegacySql": false});
        let body = json!({"configuration": {"query": query}});
        post(&world, &format!("{PROJECT}/jobs"), &body)
            .served()
            .clone()
    };
    let one = "SELECT COUNT(*) FROM finance.daily";
    ask(one);
    ask(one);
    assert_eq!(dry_runs(), 1);
    // Asked with other settings it is another query.
    ask("SELECT  COUNT(*) FROM finance.daily");
    assert_eq!(dry_runs(), 2);
    ask("INSERT INTO scratch.notes (id, text) VALUES (1, 'x')");
    ask(one);
    assert_eq!(dry_runs(), 4);
    // Whatever the dry run was asked, each is admitted by itself and on record with its text.
    let admitted = world.events("query_admitted");
    assert!(admitted.iter().all(|event| event["sql"].is_string()));
    assert_eq!(admitted.len(), 5);
    // How long its client waited for that is, too.
    let waited = |at: usize| admitted[at]["dry_run_us"].as_u64().expect("a number");
    assert!(waited(0) > 0 && waited(1) == 0 && waited(2) > 0);
    let _ = world.json(Who::Approver, &["revoke", &grant]);
    let _ = world.open_window(scope, "1m");
    ask(one);
    assert_eq!(dry_runs(), 5);
}

#[test]
fn a_table_that_a_job_has_filled_is_not_read_before_it_is_known_what_that_has_read() {
    let world = World::start(Family::V4);
    let scope = "demo-project.finance:read,demo-project.scratch:ddl";
    let grant = world.open_window(scope, "1m");
    let fault = json!({"reads_also": [["demo-project", "hr", "salaries"]], "run_ms": 600});
    world.set_faults(&fault);
    let job = |sql: &str| {
        let query = json!({"query": sql, "useLegacySql": false});
        let body = json!({"configuration": {"query": query}});
        post(&world, &format!("{PROJECT}/jobs"), &body)
    };
    let filled = job("CREATE TABLE scratch.filled AS SELECT name FROM finance.accounts");
    assert_eq!(filled.served()["status"]["state"], "RUNNING");
    // Neither by its rows nor by another query: while it runs nothing is known.
    let rows = format!("{PROJECT}/datasets/scratch/tables/filled/data");
    for answer in [get(&world, &rows), job("SELECT name FROM scratch.filled")] {
        let told = answer.body.to_string();
        assert!(answer.status == 403 && !told.contains("account "), "{told}");
    }
    // And nobody need ask: the daemon looks by itself.
    wait_for("the close", || {
        let closed = world.events("closed");
        closed
            .iter()
            .any(|event| event["grant"] == grant.as_str() && event["reason"] == "scope_violated")
    });
}

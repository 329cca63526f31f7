//! The console in a terminal, before a real daemon with real windows: what people see and press, and what comes of it.

use std::process::Stdio;

use harness::terminal::Terminal;
use harness::world::{APPROVER_UID, COLLEAGUE_UID, Family, LOOSE, Who, World, wait_for};
use serde_json::{Value, json};

const DAILY: &str = "SELECT COUNT(*) FROM finance.daily";

fn asks(world: &World) -> String {
    let asked = world.json(
        Who::Agent,
        &[
            "request",
            "--scope",
            "demo-project.finance:read",
            "--ttl",
            "10m",
            "--reason",
            "month end \u{202e}\u{1b}[2J",
        ],
    );
    asked["request"].as_str().expect("an id").to_owned()
}

#[test]
fn a_person_approves_watches_the_query_and_revokes_it_while_it_runs() {
    let world = World::start(Family::V4);
    let terminal = Terminal::start(&world, Who::Approver, (120, 40), "enforcer-console");
    terminal.sees(&[
        "No window is open. All BigQuery egress is denied.",
        "● connected",
    ]);

    let request = asks(&world);
    terminal.sees(&["2 req"]);
    terminal.press(&["2"]);
    terminal.sees(&[
        &request,
        "finance-bot",
        "demo-project.finance:read",
        "month end",
    ]);
    terminal.press(&["a"]);
    let screen = terminal.sees(&[&format!("approve {request}?"), "digest", "y  yes"]);
    // What people decide by is said as people read it.
    for said in [
        "10 GB billed, 10 GB of them by one query; 200 queries; 1 GB of rows",
        "0 undecided; 0 refused since ",
    ] {
        assert!(screen.contains(said), "{said}: {screen}");
    }
    // Enter is no yes.
    terminal.press(&["Enter"]);
    assert_eq!(world.status()["grants"].as_array().map(Vec::len), Some(0));
    // What stood there before enter may not have been drawn anew: a yes that comes too soon is not taken, and given again.
    wait_for("the approval", || {
        let screen = terminal.screen();
        if screen.contains("y  yes") {
            terminal.press(&["y"]);
        }
        screen.contains("approve r-1: g-1 of finance-bot is open")
    });

    world.set_faults(&json!({"held": true}));
    let mut client = world.client();
    client.send(DAILY);
    terminal.press(&["3"]);
    terminal.sees(&["▶", "SELECT COUNT(*) FROM", "jobs.insert"]);
    // A key of another view says where it is one.
    terminal.press(&["a"]);
    terminal.sees(&["a (approve) is a key of: requests"]);
    terminal.press(&["1"]);
    terminal.sees(&["1 open", "● g-1", "uid 5001"]);
    terminal.press(&["r"]);
    terminal.sees(&["revoke g-1?", "finance-bot", "y  yes"]);
    terminal.press(&["y"]);
    terminal.sees(&[
        "g-1 of finance-bot: closed at",
        "revoked",
        "the last answer ended at",
    ]);
    let said = client.receive()["error"].to_string();
    assert!(said.contains("[window."), "{said}");

    let said = world.query(&[DAILY])[0]["error"].to_string();
    assert!(said.contains("[window."), "{said}");
    terminal.sees(&["refused since:"]);
    terminal.press(&["Enter", "5"]);
    terminal.sees(&["finance-bot", "window."]);
    // The terminal is given back as it was.
    terminal.press(&["q"]);
    wait_for("the end", || world.events("closed").len() == 1);
}

#[test]
fn an_approval_of_somebody_else_meanwhile_has_the_question_looked_at_again() {
    let mut world = World::without_daemon(Family::V4);
    world.set_policy(&format!(
        "[[rule]]\nagents = [\"finance-bot\"]\ndatasets = [\"demo-project.finance\"]\n\
         approvers = {{ users = [{APPROVER_UID}, {COLLEAGUE_UID}], count = 2 }}\n{LOOSE}"
    ));
    world.start_daemon();
    let request = asks(&world);
    let terminal = Terminal::start(&world, Who::Approver, (120, 40), "enforcer-console");
    terminal.sees(&["● connected", "2 requests 1"]);
    terminal.press(&["2", "a"]);
    terminal.sees(&["approve r-1?", "2 more people", "y  yes"]);
    let counted = world.json(Who::Colleague, &["approve", &request]);
    assert_eq!(counted["waiting"]["agreed"], json!([COLLEAGUE_UID]));
    terminal.sees(&["changed since this was shown", "one more person"]);
    terminal.press(&["y"]);
    assert_eq!(world.status()["grants"].as_array().map(Vec::len), Some(0));
    terminal.press(&["Escape"]);
    terminal.press(&["a"]);
    let agreed = format!("agreed   uids {COLLEAGUE_UID}");
    terminal.sees(&["approve r-1?", &agreed, "one more person", "y  yes"]);
    terminal.press(&["y"]);
    terminal.sees(&["approve r-1: g-1 of finance-bot is open"]);
}

#[test]
fn a_daemon_that_is_gone_is_seen_and_waited_for() {
    let mut world = World::start(Family::V4);
    let dir = world.own_folder(Who::Approver, "recordings");
    let recording = dir.join("seen.jsonl").display().to_string();
    {
        let command = format!("enforcer-console --record {recording}");
        let terminal = Terminal::start(&world, Who::Approver, (80, 24), &command);
        terminal.sees(&["● connected"]);
        let pid = world.daemon_pid();
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid"),
            rustix::process::Signal::KILL,
        )
        .expect("kills");
        terminal.sees(&["NOT CONNECTED", "again in"]);
        // What takes effect needs the daemon.
        terminal.press(&["X"]);
        terminal.sees(&["not connected"]);
        drop(terminal);
    }
    world.kill_daemon();
    let output = world
        .run_as(Who::Approver, "enforcer-console")
        .args(["replay", &recording, "--print", "80x24"])
        .output()
        .expect("runs");
    let screen = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        screen.contains("NOT CONNECTED") && screen.contains("RECORDING"),
        "{screen}"
    );
    // On a smaller terminal it is the same screen, as far as that has room.
    let command = format!("enforcer-console replay {recording} --speed 1000");
    let terminal = Terminal::start(&world, Who::Approver, (60, 12), &command);
    terminal.sees(&[
        "NOT CONNECTED",
        "recorded at 80×24: not all of it has room here; q ends",
    ]);
}

#[test]
fn what_is_typed_ahead_agrees_to_nothing_and_a_lock_of_somebody_elses_is_not_lifted_by_locking() {
    let world = World::start(Family::V4);
    asks(&world);
    let terminal = Terminal::start(&world, Who::Approver, (100, 40), "enforcer-console");
    terminal.sees(&["● connected", "2 req"]);
    terminal.type_in(&format!("2a{}y", "x".repeat(300)));
    terminal.sees(&["approve r-1?", "y  yes"]);
    assert_eq!(world.status()["grants"].as_array().map(Vec::len), Some(0));
    terminal.press(&["y"]);
    terminal.sees(&["approve r-1: g-1 of finance-bot is open"]);

    terminal.press(&["6"]);
    terminal.sees(&["finance-bot", "workload"]);
    let lock = ["lock", "finance-bot", "--reason", "seen by the night shift"];
    assert_eq!(twin(&world, Who::Approver, &lock).0, Some(0));
    terminal.sees(&["LOCKED by"]);
    terminal.type_in("Lsuspicious activity");
    terminal.press(&["Enter", "y"]);
    terminal.press(&["Escape", "6"]);
    let (_, agents) = twin(&world, Who::Approver, &["list", "agents"]);
    let locked = |agents: &Value| {
        let mut all = agents.as_array().into_iter().flatten();
        let bot = all.find(|agent| agent["agent"] == "finance-bot");
        bot.map(|bot| bot["locked"]["reason"].clone())
    };
    assert_eq!(locked(&agents), Some(json!("seen by the night shift")));
    terminal.press(&["U"]);
    terminal.sees(&[
        "unlock finance-bot?",
        "seen by the night shift",
        "type “unlock”",
    ]);
    for letter in "unlock".chars() {
        terminal.press(&[&letter.to_string()]);
        // As fast as people type: what comes faster is not taken.
        std::thread::sleep(std::time::Duration::from_millis(60));
    }
    terminal.sees(&["or esc: unlock"]);
    terminal.press(&["Enter"]);
    terminal.sees(&["unlock finance-bot: done"]);
    assert!(world.events("agent_unlocked").len() == 1);
}

#[test]
fn what_the_whole_log_has_is_found_and_why_is_told_on_screen() {
    let world = World::start(Family::V4);
    let _grant = world.open_window("demo-project.finance:read", "10m");
    let _ = world.query(&[DAILY, "SELECT * FROM hr.salaries"]);
    let terminal = Terminal::start(&world, Who::Approver, (100, 40), "enforcer-console");
    terminal.sees(&["1 open"]);
    terminal.press(&["5"]);
    terminal.sees(&["scope.outside"]);
    terminal.press(&["w"]);
    terminal.sees(&[
        "refused: REFUSED",
        "decided by",
        "asked for",
        "rule",
        "policy",
        "queries then",
        "next step",
    ]);
    terminal.press(&["Enter", "F"]);
    terminal.type_in("agent=finance-bot kind=query_admitted sql=from finance.daily");
    terminal.press(&["Enter"]);
    terminal.sees(&[
        "1 records, the oldest first",
        "SELECT COUNT(*) FROM finance.daily",
    ]);
}

#[test]
fn the_terminal_is_given_back_when_a_signal_ends_the_console() {
    let world = World::start(Family::V4);
    let command = "enforcer-console --mouse; echo it has ended; sleep 600";
    let terminal = Terminal::start(&world, Who::Approver, (80, 24), command);
    terminal.sees(&["No window is open."]);
    assert_eq!(terminal.says("alternate_on"), "1");
    assert_eq!(terminal.says("mouse_any_flag"), "1");
    signal(&terminal, rustix::process::Signal::TERM);
    let screen = terminal.sees(&["it has ended"]);
    assert!(!screen.contains("No window is open."), "{screen}");
    let left = ["alternate_on", "mouse_any_flag", "cursor_flag"].map(|what| terminal.says(what));
    assert_eq!(left, ["0", "0", "1"]);
}

/// Sends a signal to the console that the terminal's shell runs.
fn signal(terminal: &Terminal, signal: rustix::process::Signal) {
    let shell = terminal.says("pane_pid");
    let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"));
    let console = children.expect("a shell");
    let console = console.trim().parse().expect("one child");
    let console = rustix::process::Pid::from_raw(console).expect("a pid");
    rustix::process::kill_process(console, signal).expect("is sent");
}

#[test]
fn the_terminal_is_given_back_while_the_console_is_stopped_and_when_it_is_quit() {
    use rustix::process::Signal;
    let world = World::start(Family::V4);
    let command = "enforcer-console --mouse; echo it has ended; sleep 600";
    let terminal = Terminal::start(&world, Who::Approver, (80, 24), command);
    let modes = || ["alternate_on", "mouse_any_flag"].map(|what| terminal.says(what));
    terminal.sees(&["No window is open."]);
    signal(&terminal, Signal::TSTP);
    wait_for("the terminal", || modes() == ["0", "0"]);
    signal(&terminal, Signal::CONT);
    terminal.sees(&["No window is open.", "● connected"]);
    assert_eq!(modes(), ["1", "1"]);
    terminal.press(&["7"]);
    terminal.sees(&["what is checked", "programs"]);
    signal(&terminal, Signal::QUIT);
    terminal.sees(&["it has ended"]);
    assert_eq!(modes(), ["0", "0"]);
}

fn twin(world: &World, who: Who, args: &[&str]) -> (Option<i32>, Value) {
    let output = world
        .run_as(who, "enforcer-console")
        .arg("--json")
        .args(args)
        .output()
        .expect("runs");
    // One object a line: a list has as many as it has things, in their order.
    let mut objects = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>();
    let said = if args.contains(&"list") {
        objects.collect::<Result<Vec<_>, _>>().map(Value::Array)
    } else {
        objects.next().unwrap_or(Ok(Value::Null))
    };
    (output.status.code(), said.expect("JSON"))
}

/// What a command prints for people.
fn told(world: &World, who: Who, program: &str, args: &[&str]) -> String {
    let output = world.run_as(who, program).args(args).output();
    let output = output.expect("runs");
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn every_action_has_a_command_that_says_the_same() {
    let world = World::start(Family::V4);
    let request = asks(&world);
    let (code, waiting) = twin(&world, Who::Approver, &["list", "requests"]);
    assert_eq!((code, &waiting[0]["request"]), (Some(0), &json!(request)));
    let (_, shown) = twin(&world, Who::Approver, &["show", &request]);
    let digest = shown["digest"].as_str().expect("a digest").to_owned();
    let approve = ["approve", &request, "--seen", &digest, "--ttl", "5m"];
    let (code, _) = twin(
        &world,
        Who::Approver,
        &[&approve[..], &["--read-only"]].concat(),
    );
    assert_eq!(code, Some(1));
    assert_eq!(
        twin(&world, Who::Colleague, &approve).0,
        Some(3),
        "who may not"
    );
    let (code, done) = twin(&world, Who::Approver, &approve);
    assert_eq!((code, &done["grant"]), (Some(0), &json!("g-1")), "{done}");

    let _ = world.query(&[DAILY]);
    let (_, queries) = twin(&world, Who::Approver, &["list", "sessions"]);
    assert_eq!(queries[0]["sql"], DAILY, "{queries}");
    let query = queries[0]["query"].as_str().expect("its number");
    let (_, shown) = twin(&world, Who::Approver, &["show", query]);
    assert_eq!(shown, queries[0]);
    let wanted = [
        "tail",
        "--no-follow",
        "kind=query_admitted",
        "agent=finance-bot",
        "sql=from finance.daily",
    ];
    let (_, record) = twin(&world, Who::Approver, &wanted);
    assert_eq!(record["event"]["query"], *query, "{record}");

    let (code, locked) = twin(
        &world,
        Who::Approver,
        &["lock", "finance-bot", "--reason", "asks at night"],
    );
    assert_eq!(code, Some(0), "{locked}");
    assert!(locked["proof"][0]["closed_unix_ns"].is_u64(), "{locked}");
    let said = world.query(&[DAILY])[0]["error"].to_string();
    assert!(said.contains("[window."), "{said}");
    let (_, refused) = twin(&world, Who::Approver, &["list", "refusals"]);
    assert_eq!(refused[0]["of"]["who"], "finance-bot", "{refused}");
    assert_eq!(refused[0]["seen"]["count"], 1, "{refused}");
    let refused = world.cli(
        Who::Agent,
        &[
            "request",
            "--scope",
            "demo-project.finance:read",
            "--reason",
            "again",
        ],
    );
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("[agent.locked]") && said.contains("asks at night"),
        "{said}"
    );
    let (_, agents) = twin(&world, Who::Approver, &["list", "agents"]);
    let bot = agents.as_array().into_iter().flatten();
    let bot = bot
        .clone()
        .find(|agent| agent["agent"] == "finance-bot")
        .expect("it is listed");
    assert_eq!(bot["locked"]["by"], "uid 5001", "{bot}");
    assert!(
        bot["day"]
            .as_array()
            .is_some_and(|day| day.iter().any(|cell| *cell != 0)),
        "{bot}"
    );
    assert_eq!(
        twin(&world, Who::Approver, &["unlock", "finance-bot"]).0,
        Some(0)
    );
}

#[test]
fn what_an_agent_wrote_forges_nothing_in_what_commands_print() {
    let world = World::start(Family::V4);
    let reason = "month end \u{202e}\u{9b}31m\u{7f}\u{85}\u{e0041}\nagreed   uids 5002, 5003\nwanting  nobody";
    let asked = world.json(
        Who::Agent,
        &[
            "request",
            "--scope",
            "demo-project.finance:read",
            "--reason",
            reason,
        ],
    );
    assert_eq!(asked["request"], "r-1", "{asked}");
    let is_hidden = |c: char| enforcer_proto::text::is_deceptive(c) && c != '\n';
    let commands: [(&str, &[&str]); 10] = [
        ("enforcer-console", &["--json", "list", "requests"]),
        ("enforcer-console", &["--json", "show", "r-1"]),
        ("enforcer-console", &["--json", "tail", "--no-follow"]),
        ("enforcer-console", &["list", "requests"]),
        ("enforcer-console", &["show", "r-1"]),
        ("enforcer-console", &["why", "r-1"]),
        ("enforcer-console", &["tail", "--no-follow"]),
        ("enforcer", &["status", "--json"]),
        ("enforcer", &["log", "show", "r-1"]),
        ("enforcer", &["log", "--json"]),
    ];
    for (program, args) in commands {
        let told = told(&world, Who::Approver, program, args);
        assert!(told.contains("month end"), "{args:?}: {told}");
        assert!(!told.contains(is_hidden), "{args:?}: {told}");
        // Set in or not, nothing of it begins a line.
        let is_forged = |line: &str| line.trim_start().starts_with("agreed   uids");
        assert!(!told.lines().any(is_forged), "{args:?}: {told}");
    }
    let one = told(
        &world,
        Who::Approver,
        "enforcer-console",
        &["list", "requests"],
    );
    assert!(
        one.contains("\\nagreed   uids 5002, 5003\\nwanting"),
        "{one}"
    );
    let (_, shown) = twin(&world, Who::Approver, &["show", "r-1"]);
    assert_eq!(
        shown["ask"]["reason"], reason,
        "the same to whoever parses it"
    );
}

#[test]
fn a_window_is_watched_ended_and_explained_by_commands_alone() {
    let world = World::start(Family::V4);
    let grant = world.open_window("demo-project.finance:read", "10m");
    let _ = world.query(&[DAILY]);
    let console = |args: &[&str]| told(&world, Who::Approver, "enforcer-console", args);
    let listed = console(&["list"]);
    let wanted = ["open, closes in ", "1/200 queries", "by uid 5001"];
    assert!(wanted.iter().all(|part| listed.contains(part)), "{listed}");
    let ended = console(&["revoke", &grant]);
    let wanted = [
        "g-1 of finance-bot: closed at ",
        "the last answer ended at ",
        "no refusal since is among the records here",
    ];
    assert!(wanted.iter().all(|part| ended.contains(part)), "{ended}");
    assert!(console(&["why", &grant]).contains("decided by"));
    let story = console(&["story", &grant]);
    let wanted = ["open     g-1", "query    q-1 g-1", "close    g-1"];
    assert!(wanted.iter().all(|part| story.contains(part)), "{story}");
    let (_, first) = twin(&world, Who::Approver, &["story", &grant]);
    let seq = first["seq"].to_string();
    let (_, explained) = twin(&world, Who::Approver, &["why", &seq]);
    assert_eq!(explained["record"]["seq"], first["seq"], "{explained}");
    let none = twin(&world, Who::Approver, &["why", "g-99"]);
    assert_eq!(none.0, Some(1), "{}", none.1);
}

#[test]
fn a_daemon_that_stands_still_is_seen_where_nothing_else_moves() {
    let world = World::start(Family::V4);
    let terminal = Terminal::start(&world, Who::Approver, (80, 24), "enforcer-console");
    terminal.sees(&["✓ healthy", "● connected"]);
    let pid = i32::try_from(world.daemon_pid()).expect("a pid");
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("stops it");
    let screen = terminal.sees(&["○ STALE: as of", "health unknown since"]);
    assert!(!screen.contains("✓ healthy"), "{screen}");
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("lets it go on");
    terminal.sees(&["✓ healthy", "● connected"]);
}

#[test]
fn an_approver_sees_what_started_the_one_that_asks_and_its_unit_and_the_agent_does_not() {
    let world = World::start(Family::V4);
    let unit = world
        .stage
        .cgroups
        .make("agents/finance-bot/month-end.service");
    let uid = Some(harness::world::AGENT_UID);
    let mut shell = world.run_as(Who::Agent, "/bin/sh");
    // Of the same environment, in a cgroup below the workload's.
    let envs: Vec<_> = shell
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    shell = world
        .stage
        .command_in(harness::stage::Side::Host, Some(&unit), uid, "/bin/sh");
    let script =
        "enforcer request --scope demo-project.finance:read --ttl 10m --reason x --json; exit $?";
    let asked = shell
        .env_clear()
        .envs(envs)
        .args(["-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    let shell_pid = asked.id();
    let asked = asked.wait_with_output().expect("ends");
    assert!(asked.status.success(), "{asked:?}");

    let record = world.events("requested").remove(0);
    let above = record["origin"]["ancestors"].as_array().expect("is told");
    assert_eq!(above[0]["comm"], "sh", "{record}");
    assert_eq!(above[0]["pid"], shell_pid, "{record}");
    assert_eq!(above[0]["uid"], harness::world::AGENT_UID, "{record}");
    assert_eq!(above[1]["pid"], std::process::id(), "{record}");
    let cgroup = record["origin"]["cgroup"].as_str().expect("is told");
    assert!(cgroup.ends_with("/month-end.service"), "{cgroup}");

    let (_, shown) = twin(&world, Who::Approver, &["show", "r-1"]);
    assert_eq!(shown["origin"], record["origin"]);
    assert_eq!(shown["comm"], "enforcer");
    let output = world
        .run_as(Who::Approver, "enforcer-console")
        .args(["show", "r-1"])
        .output()
        .expect("runs");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains(&format!("← sh {shell_pid}")), "{told}");
    assert!(told.contains("unit     month-end.service ("), "{told}");
    let output = world.cli(Who::Approver, &["status", "--request", "r-1"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains(&format!("← sh {shell_pid}")), "{told}");
    assert!(told.contains("unit: month-end.service ("), "{told}");

    for args in [
        &["status", "--json"][..],
        &["status", "--request", "r-1", "--json"],
    ] {
        let own = world.cli(Who::Agent, args);
        let own: Value = serde_json::from_slice(&own.stdout).expect("JSON");
        let own = &own["requests"][0];
        assert_eq!(
            (&own["request"], &own["origin"]),
            (&json!("r-1"), &Value::Null)
        );
        assert_eq!(own["comm"], "", "{own}");
    }
}

#[test]
fn with_the_logs_key_the_console_and_its_command_say_what_is_signed_and_what_is_not() {
    let mut world = World::without_daemon(Family::V4);
    world.edit_config("[[agent]]", "[audit]\ncheckpoint_every = \"1s\"\n[[agent]]");
    world.start_daemon();
    let _ = world.open_window("demo-project.finance:read", "10m");
    let config = world.config().display().to_string();
    let key = world.json(Who::Operator, &["log", "key", "--config", &config]);
    let key = key["key"].as_str().expect("a key").to_owned();
    let log_key = ["--log-key", &key];
    let health = |log_key: &[&str]| {
        let (code, lines) = twin(
            &world,
            Who::Approver,
            &[&["list", "health"], log_key].concat(),
        );
        assert_eq!(code, Some(0), "{lines}");
        let mut lines = lines.as_array().cloned().into_iter().flatten();
        lines.find(|line| line["what"] == "log signature")
    };
    wait_for("what is signed", || {
        health(&log_key).is_some_and(|line| line["state"] == "well")
    });
    assert_eq!(health(&[]), None);
    let command = format!("enforcer-console --log-key {key}");
    {
        let terminal = Terminal::start(&world, Who::Approver, (120, 40), &command);
        terminal.sees(&["✓ healthy", "● connected"]);
        terminal.press(&["4"]);
        terminal.sees(&["by the key", "hashes hold from"]);
        terminal.press(&["7"]);
        terminal.sees(&["✓ log chain", "✓ log signature"]);
    }
    // Of another's key it holds nothing.
    let others = enforcer_proto::checkpoint::Keyholder::from_seed("enforcer/host-a", &[8; 32]);
    let others = others.expect("a name").verifier().to_string();
    let line = health(&["--log-key", &others]).expect("it is wrong");
    assert_eq!(line["state"], "bad", "{line}");
    let command = format!("enforcer-console --log-key {others}");
    let terminal = Terminal::start(&world, Who::Approver, (80, 24), &command);
    terminal.sees(&["THE LOG IS NOT WHAT WAS SIGNED", "✗ UNHEALTHY (1)"]);
    // What checks nothing takes no key.
    let tail = ["tail", "--no-follow"];
    let (code, said) = twin(&world, Who::Approver, &[&tail[..], &log_key].concat());
    let said = said["error"]["message"].to_string();
    assert!(
        code == Some(1) && said.contains("enforcer log verify"),
        "{said}"
    );
}

#[test]
fn every_window_ends_by_one_command_and_the_log_is_told_safely() {
    let world = World::start(Family::V4);
    asks(&world);
    let grant = world.open_window("demo-project.finance:read", "10m");
    let (code, ended) = twin(&world, Who::Approver, &["close-all"]);
    assert_eq!((code, &ended["closed"][0]), (Some(0), &json!(grant)));
    let (code, error) = twin(&world, Who::Approver, &["revoke", &grant]);
    assert_eq!(
        (code, &error["error"]["code"]),
        (Some(3), &json!("grant.not_open"))
    );
    let output = world
        .run_as(Who::Approver, "enforcer-console")
        .args(["tail", "--no-follow", "--limit", "1000"])
        .output()
        .expect("runs");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        told.contains("request  r-1") && told.contains("month end"),
        "{told}"
    );
    assert!(!told.contains(['\u{202e}', '\u{1b}']), "{told}");
    let elsewhere = world
        .run_as(Who::Approver, "enforcer-console")
        .args(["--socket", "/nowhere", "list"])
        .output()
        .expect("runs");
    assert_eq!(elsewhere.status.code(), Some(4));
}

//! Who is in a network namespace of its own, and what is done there.

use std::ffi::OsString;
use std::process::Command;

use harness::stage::Side;
use harness::world::{Client, Who, World, cloud_sdk_is_missing, script, venv_python};
use serde_json::Value;

use super::DAILY;

/// A process of an agent's that does as it is told, in namespaces of its own making.
pub(super) struct Apart(pub(super) Client);

impl Apart {
    pub(super) fn of(world: &World) -> Self {
        Self::whose(world, Who::Agent)
    }

    /// The same, somebody else's.
    pub(super) fn whose(world: &World, who: Who) -> Self {
        let mut command = world.run_as(who, "/usr/bin/python3");
        Self(Client::start(with_script(world, &mut command)))
    }

    /// What came of a step.
    pub(super) fn does(&mut self, step: &str) -> Value {
        self.0.query(step)
    }

    /// A step that must come to something.
    pub(super) fn must(&mut self, step: &str) -> Value {
        let told = self.does(step);
        assert!(told.get("error").is_none(), "{step}: {told}");
        told["ok"].clone()
    }

    /// Runs a program that must come to a good end, and gives what it said.
    pub(super) fn runs(&mut self, program: &str) -> String {
        let told = self.must(&format!("run {program}"));
        assert_eq!(told[0], 0, "{program}: {told}");
        told[1].as_str().unwrap_or_default().to_owned()
    }

    /// It is in a namespace of its own, whose loopback is up.
    pub(super) fn goes_apart(&mut self) {
        self.must("unshare");
        self.must("lo up");
    }
}

fn with_script(world: &World, command: &mut Command) -> Command {
    command
        .arg(script("agent/apart.py"))
        .arg(world.stage.dir().join("run/ca.pem"));
    std::mem::replace(command, Command::new("true"))
}

/// A process that is somebody's, and enters the network namespace that another one is in.
pub(super) fn beside(world: &World, who: Who, pid: &Value) -> Apart {
    let cgroup = world.cgroup_of(who);
    let mut command = world
        .stage
        .command_in(Side::Host, Some(&cgroup), None, "nsenter");
    command.arg(format!("--net=/proc/{pid}/ns/net"));
    if let Some(uid) = who.uid() {
        command.args(["setpriv", "--clear-groups"]);
        command.args([format!("--reuid={uid}"), format!("--regid={uid}")]);
    }
    command.arg("/usr/bin/python3");
    Apart(Client::start(with_script(world, &mut command)))
}

/// A script that somebody runs in the network namespace that another process is in, with what a container has by default: it may make packets there.
pub(super) fn makes_packets(world: &World, who: Who, pid: &Value, by: &str) -> Command {
    let cgroup = world.cgroup_of(who);
    let mut command = world
        .stage
        .command_in(Side::Host, Some(&cgroup), None, "nsenter");
    let uid = who.uid().expect("it has one");
    command.arg(format!("--net=/proc/{pid}/ns/net"));
    command.args(["setpriv", "--clear-groups"]);
    command.args([format!("--reuid={uid}"), format!("--regid={uid}")]);
    command.args(["--inh-caps=+net_raw", "--ambient-caps=+net_raw"]);
    command.arg("/usr/bin/python3").arg(script(by));
    command
}

/// The status of an answer, and the beginning of its body.
pub(super) fn answer(told: Value) -> [Value; 2] {
    let told = told.as_array().cloned().expect("a list");
    told.try_into().expect("a status and a body")
}

/// A query by the Cloud SDK's own program; by Google's client library where this machine may go without.
pub(super) fn client() -> Vec<OsString> {
    let by_sdk = [
        "bq",
        "--format=json",
        "--project_id=demo-project",
        "query",
        "--use_legacy_sql=false",
        DAILY,
    ];
    if cloud_sdk_is_missing() {
        let script = "import sys\nfrom google.cloud import bigquery\nclient = bigquery.Client(project='demo-project')\nprint(list(client.query(sys.argv[1]).result()))";
        return vec![
            venv_python().into(),
            "-c".into(),
            script.into(),
            DAILY.into(),
        ];
    }
    by_sdk.map(Into::into).into()
}

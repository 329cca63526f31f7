//! The bypass suite: one test for each known way around an enforcer of this kind. The judge is the wire: a sniffer on the far side must not
//! see a packet for BigQuery, and the attempt must be on record: a test that has not asserted what its line in the table says fails. What only a capability holder or root can do is shown to be just that.
//!
//! The ways themselves are `enforcer prove`'s; here an agent goes them toward BigQuery's own addresses, judged by another sniffer.

mod failing;
mod full;
mod http;
mod identity;
mod interfaces;
mod kernel;
mod names;
mod ports;
mod shown;
mod table;
mod talk;

use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use enforcer::kernel::Framing;
use enforcer::prove::attempt::{Attempt, Ended, Wire};
use enforcer::prove::path::{Path as Out, Spelling, Way, Who as Needs};
use harness::capture::Capture;
pub(crate) use harness::programs::said;
use harness::stage::{BIGQUERY4, BIGQUERY6, HOST4, OTHER4, OTHER6, Side};
use harness::world::{AGENT_UID, World, enforcer, wait_for};
use serde_json::Value;

/// What a case shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shows {
    /// Nothing gets out, and the attempt is on record.
    Refused,
    /// Nothing gets out, though it takes a capability that agents must not have.
    RefusedToCapability,
    /// It is let be and has no effect: what it tries to add or take away does not reach the far side. What came of the rest is on record.
    NoEffect,
    /// Something fails, and nothing gets out because of it; that it fails is on record, in `status` or in the daemon's own words.
    FailsClosed,
    /// It takes root, and cannot be refused to it; it is noticed within seconds, said by `status` and on record.
    Noticed,
    /// It does what it says, and cannot be refused here: a limit.
    Limit,
    /// The same, but where the programs stand at the kernel's security hooks: there it is refused, and on record.
    LimitWithoutHooks,
}

/// One way around, and the test that goes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    /// Its number in the list of known ways.
    pub(crate) number: u32,
    /// What is tried.
    pub(crate) what: &'static str,
    /// What comes of it.
    pub(crate) shows: Shows,
    /// The test.
    pub(crate) test: &'static str,
}

/// Tests, each with its line in the table: there is no line without a test, and none that says more than its test has shown.
macro_rules! cases {
    ($($(#[doc = $what:literal])+ $number:literal $shows:ident fn $name:ident() $body:block)+) => {
        pub(super) const CASES: &[super::Case] = &[$(super::Case {
            number: $number,
            what: concat!($($what),+),
            shows: super::Shows::$shows,
            test: stringify!($name),
        }),+];
        $(#[test] fn $name() {
            // By itself, since a test may end in the middle.
            let test = || $body;
            test();
            super::shown::is_enough_for(super::Shows::$shows);
        })+
    };
}
pub(crate) use cases;

/// Tries to connect to port 443 of an address, and says what it was told.
pub(crate) const CONNECT: &str = r#"
import socket, sys
try:
    socket.create_connection((sys.argv[1], 443), 1)
    print("ok")
except OSError as error:
    print(error.strerror or error)
"#;

/// What [`CONNECT`] prints where the kernel refuses.
pub(crate) const EPERM: &str = "Operation not permitted";

/// A world without a far side, an agent in it that is told EPERM instead of an explanation, and a sniffer on the far side of the wire. Only
/// BigQuery answers at its addresses: what becomes of who is no agent where other names do, too, is shown in `shared.rs`.
pub(crate) struct Lock {
    pub(crate) world: World,
    capture: Capture,
}

impl Lock {
    pub(crate) fn new() -> Self {
        let mut lock = Self::without_daemon();
        lock.world.start_daemon();
        lock
    }

    pub(crate) fn without_daemon() -> Self {
        let world = World::with_a_silent_far_side();
        world.edit_config("uid = 2001", "uid = 2001\nclosed = \"drop\"");
        let alone = [format!("{BIGQUERY4}/32"), format!("{BIGQUERY6}/128")]
            .map(|prefix| format!("{{ prefix = \"{prefix}\", class = \"dedicated\" }}"));
        let prefixes = format!("[names]\nprefixes = [{}]", alone.join(", "));
        world.edit_config("[names]", &prefixes);
        let capture = Capture::start(&world.stage, endpoints());
        Self { world, capture }
    }

    /// Goes a way in a cgroup, as a uid or as root, toward an address.
    pub(crate) fn go(&self, cgroup: &Path, uid: Option<u32>, way: Way, to: IpAddr) -> Ended {
        let attempt = Attempt {
            way,
            to,
            elsewhere: if to.is_ipv4() {
                OTHER4.into()
            } else {
                OTHER6.into()
            },
            wire: self.wire(),
        };
        let mut command = self
            .world
            .stage
            .command_in(Side::Host, Some(cgroup), uid, enforcer());
        command.args(["prove-attempt", "--attempt"]);
        let output = command
            .arg(serde_json::to_string(&attempt).expect("JSON"))
            .output()
            .expect("runs");
        serde_json::from_slice(&output.stdout).unwrap_or(Ended::Crashed)
    }

    /// The agent goes a way in every spelling there is for it, as root where it takes a capability; none may be taken by the kernel.
    /// Gives whether this kernel has that way.
    pub(crate) fn agent_goes(&self, way: Way) -> bool {
        let mut is_there = false;
        let agent = self.world.cgroup_of(harness::world::Who::Agent);
        for spelling in way.spellings() {
            let out = Out {
                way,
                spelling: *spelling,
            };
            let uid = match out.who() {
                Needs::Anyone => Some(AGENT_UID),
                Needs::CapabilityHolder => None,
            };
            let to = match spelling {
                Spelling::V6 => BIGQUERY6.into(),
                Spelling::V4
                | Spelling::Mapped
                | Spelling::Compatible
                | Spelling::Nat64
                | Spelling::LocalNat64
                | Spelling::SixToFour
                | Spelling::Teredo => spelling.of(BIGQUERY4.into()),
            };
            let ended = self.go(&agent, uid, way, to);
            let is_absent = ended.is("EPROTONOSUPPORT") || ended.is("ESOCKTNOSUPPORT");
            // Who hands over whole packets is not always told what became of them.
            let is_unseen = matches!(way, Way::Ping | Way::SctpConnect | Way::SctpSend);
            let is_told = out.who() == Needs::Anyone && !is_unseen;
            assert!(ended != Ended::Sent || !is_told, "{}: {ended}", out.name());
            assert!(
                is_absent || ended != Ended::Crashed,
                "{}: {ended}",
                out.name()
            );
            is_there |= !is_absent;
        }
        is_there
    }

    /// Whether the programs stand at the kernel's security hooks: what only they refuse is a limit without.
    pub(crate) fn has_hooks(&self) -> bool {
        let status = self.world.status();
        let guards = status["checks"].as_array().cloned().unwrap_or_default();
        let guards: Vec<&str> = guards
            .iter()
            .filter_map(|check| check["said"].as_str())
            .collect();
        let ours = guards
            .iter()
            .find_map(|guard| guard.strip_prefix("security hooks (BPF LSM): "));
        let has_hooks = !ours
            .expect("the status speaks of them")
            .starts_with("none, ");
        if has_hooks {
            shown::refuses();
        }
        has_hooks
    }

    /// Somebody's Python script in a cgroup, which is to be run.
    pub(crate) fn script(
        &self,
        cgroup: &Path,
        uid: Option<u32>,
        script: &str,
        args: &[&str],
    ) -> Command {
        let mut command =
            self.world
                .stage
                .command_in(Side::Host, Some(cgroup), uid, "/usr/bin/python3");
        command.args(["-c", script]).args(args);
        command
    }

    /// Nothing for BigQuery was seen on the wire, in any spelling.
    pub(crate) fn nothing_got_out(&self) {
        shown::nothing_on(&self.capture, "packets for BigQuery");
    }

    /// Waits until a refusal by this hook is on record that is as wanted.
    pub(crate) fn is_on_record(&self, hook: &str, is_wanted: impl Fn(&Value) -> bool) {
        wait_for("the record", || {
            let refused = self.world.events("kernel_refused");
            refused.iter().any(|event| {
                event["verdict"]
                    .as_str()
                    .is_some_and(|verdict| verdict.starts_with(hook))
                    && is_wanted(event)
            })
        });
        shown::on_record();
    }

    fn wire(&self) -> Wire {
        let mut command = self.world.stage.command(Side::Host, "ip");
        let output = command
            .args(["-j", "link", "show", "wire0"])
            .output()
            .expect("ip runs");
        let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let index = said[0]["ifindex"].as_u64().expect("an index");
        Wire {
            name: "wire0".to_owned(),
            index: u32::try_from(index).expect("small"),
            near: [HOST4.into(), "fd77::1".parse().expect("an address")],
            framing: Framing::Ethernet,
        }
    }
}

/// A program that is spoken with a line at a time, and ends with the test.
pub(crate) struct Helper {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Helper {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs");
        let output = child.stdout.take().expect("piped");
        Self {
            input: child.stdin.take(),
            output: BufReader::new(output),
            child,
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its next line.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("reads");
        line.trim().to_owned()
    }

    /// Ends its input, and gives its last line.
    pub(crate) fn close_and_line(&mut self) -> String {
        drop(self.input.take());
        self.line()
    }

    pub(crate) fn tell(&mut self, line: &str) {
        let input = self.input.as_mut().expect("still open");
        writeln!(input, "{line}").expect("writes");
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the proxy's refusal with this code is on record that is as wanted: of a request or of a connection.
pub(crate) fn refusal_is_on_record(world: &World, code: &str, is_wanted: impl Fn(&Value) -> bool) {
    wait_for("the record", || {
        let records = world.records();
        let events = records.iter().map(|record| &record["event"]);
        let mut refused = events.filter(|event| {
            ["query_refused", "connection_refused"]
                .contains(&event["kind"].as_str().unwrap_or_default())
        });
        refused.any(|event| event["refusal"]["code"] == code && is_wanted(event))
    });
    shown::on_record();
}

/// Everything that is BigQuery's, in every spelling.
fn endpoints() -> Vec<IpAddr> {
    let spelled = Spelling::on_the_wire(BIGQUERY4).map(IpAddr::from);
    [BIGQUERY4.into(), BIGQUERY6.into()]
        .into_iter()
        .chain(spelled)
        .collect()
}

/// Whether a refusal is the agent's.
pub(crate) fn agents(event: &Value) -> bool {
    event["agent"] == "finance-bot"
}

//! Three others that do TLS in and TLS out, each set up as its manual says for exactly that: nothing is logged, nothing is looked at, nothing
//! is written to disk, connections are kept on both sides.

use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use harness::stage::{Side, Stage};
use harness::world::wait_for;
use rustix::process::{Pid, Signal, kill_process};

use super::lab::{OPEN, Way};
use super::tls::{BOTH, CIPHER, KEY, LEAF, NAME, ROOT};

/// One of them, in a process namespace of its own: all of it ends with its first process.
pub(super) struct Peer {
    child: Child,
    port: u16,
    log: PathBuf,
}

#[expect(clippy::print_stderr, reason = "a failed run shows what each said")]
impl Drop for Peer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = std::fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("--- port {}\n{said}", self.port);
        }
        // The first process of its namespace: the others end with it, and who waits for it ends too.
        for pid in children(self.child.id()) {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
        }
        let _ = self.child.wait();
    }
}

impl Peer {
    /// Starts all three with so many threads or workers; mitmproxy has one, whatever one asks for.
    pub(super) fn all(stage: &Stage, dir: &Path, threads: usize) -> Vec<(Way, Self)> {
        vec![
            (
                Way::Nginx,
                Self::start(stage, dir, 8442, &nginx(dir, 8442, threads)),
            ),
            (
                Way::Haproxy,
                Self::start(stage, dir, 8443, &haproxy(dir, 8443, threads)),
            ),
            (
                Way::Mitmproxy,
                Self::start(stage, dir, 8444, &mitmproxy(dir, 8444)),
            ),
        ]
    }

    fn start(stage: &Stage, dir: &Path, port: u16, line: &[String]) -> Self {
        let mut command = stage.command(Side::Host, "unshare");
        let log = dir.join(format!("{port}.log"));
        let said = std::fs::File::create(&log).expect("makes a file");
        command
            .args(["--pid", "--fork", "--kill-child", "--"])
            .args(line)
            .env("HOME", dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said);
        let peer = Self {
            child: command.spawn().expect("unshare runs: install util-linux"),
            port,
            log,
        };
        wait_for(&line[0], || {
            stage.on(Side::Host, || {
                TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
            })
        });
        peer
    }

    pub(super) fn server(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// All processes below one.
pub(super) fn tree(pid: u32) -> Vec<u32> {
    let below = |child| [vec![child], tree(child)].concat();
    children(pid).into_iter().flat_map(below).collect()
}

fn children(pid: u32) -> Vec<u32> {
    let children = format!("/proc/{pid}/task/{pid}/children");
    let children = std::fs::read_to_string(children).unwrap_or_default();
    let pids = children.split_whitespace();
    pids.map(|pid| pid.parse().expect("a pid")).collect()
}

fn nginx(dir: &Path, port: u16, threads: usize) -> Vec<String> {
    let at = |name: &str| dir.join(name).display().to_string();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {};\n", at("nginx-temp")))
        .concat();
    let text = format!(
        r#"user root; daemon off; worker_processes {threads}; pid {pid}; error_log stderr;
events {{ worker_connections 1024; }}
http {{
access_log off;
{temporary}keepalive_requests 1000000;
upstream bigquery {{ server {OPEN}:443; keepalive 16; keepalive_requests 1000000; }}
server {{
listen 127.0.0.1:{port} ssl;
ssl_certificate {leaf}; ssl_certificate_key {key};
ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites {CIPHER};
location / {{
proxy_pass https://bigquery; proxy_http_version 1.1;
proxy_set_header Connection ""; proxy_set_header Host $host;
proxy_ssl_verify on; proxy_ssl_trusted_certificate {root}; proxy_ssl_name {NAME}; proxy_ssl_server_name on;
proxy_ssl_protocols TLSv1.3; proxy_ssl_conf_command Ciphersuites {CIPHER};
proxy_buffers 16 64k; proxy_buffer_size 64k; proxy_busy_buffers_size 512k; proxy_max_temp_file_size 0;
}} }} }}
"#,
        pid = at("nginx.pid"),
        leaf = at(LEAF),
        key = at(KEY),
        root = at(ROOT),
    );
    let config = write(dir, "nginx.conf", &text);
    words(&["/usr/sbin/nginx", "-p", &at(""), "-c", &config])
}

fn haproxy(dir: &Path, port: u16, threads: usize) -> Vec<String> {
    let at = |name: &str| dir.join(name).display().to_string();
    let text = format!(
        "global
 nbthread {threads}
 maxconn 1024
 ssl-default-bind-options ssl-min-ver TLSv1.3
 ssl-default-bind-ciphersuites {CIPHER}
 ssl-default-server-options ssl-min-ver TLSv1.3
 ssl-default-server-ciphersuites {CIPHER}
defaults
 mode http
 timeout connect 10s
 timeout client 600s
 timeout server 600s
 http-reuse always
frontend agents
 bind 127.0.0.1:{port} ssl crt {both}
 default_backend bigquery
backend bigquery
 server bigquery {OPEN}:443 ssl verify required ca-file {root} sni str({NAME}) verifyhost {NAME}
",
        both = at(BOTH),
        root = at(ROOT),
    );
    let config = write(dir, "haproxy.cfg", &text);
    words(&["/usr/sbin/haproxy", "-db", "-f", &config])
}

fn mitmproxy(dir: &Path, port: u16) -> Vec<String> {
    let at = |name: &str| dir.join(name).display().to_string();
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench-venv/bin/mitmdump");
    assert!(
        program.exists(),
        "{} is missing: `cargo xtask bench proxy` makes it",
        program.display()
    );
    let set = [
        format!("confdir={}", at("mitmproxy")),
        format!("ssl_verify_upstream_trusted_ca={}", at(ROOT)),
        "stream_large_bodies=64k".to_owned(),
        "keep_host_header=true".to_owned(),
        "tls_version_client_min=TLS1_3".to_owned(),
        "tls_version_server_min=TLS1_3".to_owned(),
        "flow_detail=0".to_owned(),
    ];
    let port = port.to_string();
    let mode = format!("reverse:https://{OPEN}:443");
    let certificate = at(BOTH);
    let program = program.display().to_string();
    let start = [
        "--quiet",
        "--mode",
        &mode,
        "--listen-host",
        "127.0.0.1",
        "--listen-port",
        &port,
        "--certs",
        &certificate,
    ];
    let set = set.iter().flat_map(|set| ["--set", set]);
    let line: Vec<&str> = [program.as_str()]
        .into_iter()
        .chain(start)
        .chain(set)
        .collect();
    words(&line)
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("writes");
    path.display().to_string()
}

fn words(line: &[&str]) -> Vec<String> {
    line.iter().map(|word| (*word).to_owned()).collect()
}

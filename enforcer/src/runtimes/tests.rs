//! Runtimes that are what they should be, and some that are not.

use std::os::unix::fs::{PermissionsExt, chown};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A runtime that says this to whoever asks once, and its socket.
fn runtime(folder: &Path, said: Vec<u8>) -> PathBuf {
    let socket = folder.join("runtime.sock");
    let listener = UnixListener::bind(&socket).expect("binds");
    mode(&socket, 0o660);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("is asked");
        let mut asked = [0; 4096];
        let read = stream.read(&mut asked).await.expect("reads");
        let asked = String::from_utf8_lossy(&asked[..read]).into_owned();
        assert!(
            asked.starts_with("GET /containers/json?filters="),
            "{asked}"
        );
        // Who asked may have heard enough.
        let _ = stream.write_all(&said).await;
    });
    socket
}

/// A runtime that answers whoever asks by what the question holds, whose socket this is, and how often it was asked.
fn answering(
    folder: &Path,
    body: impl Fn(&str) -> String + Send + 'static,
) -> (PathBuf, Arc<AtomicUsize>) {
    let socket = folder.join("runtime.sock");
    let listener = UnixListener::bind(&socket).expect("binds");
    mode(&socket, 0o660);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("is asked");
            count.fetch_add(1, Ordering::Relaxed);
            let mut asked = [0; 8192];
            let read = stream.read(&mut asked).await.expect("reads");
            let asked = String::from_utf8_lossy(&asked[..read]).into_owned();
            let _ = stream.write_all(&http("200 OK", &body(&asked))).await;
        }
    });
    (socket, asked)
}

/// What is wanted of these names and labels.
fn wanted(names: &[&str], labels: &[&str]) -> Wanted {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Wanted {
        names: texts(names),
        labels: texts(labels),
    }
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("sets a mode");
}

fn http(status: &str, body: &str) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\n");
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn said(socket: &Path) -> Result<Vec<Container>, String> {
    ask(socket, &Wanted::default()).await.said
}

async fn said_of(body: &str) -> Result<Vec<Container>, String> {
    let folder = tempfile::tempdir().expect("a folder");
    said(&runtime(folder.path(), http("200 OK", body))).await
}

#[tokio::test]
async fn a_runtime_tells_of_the_containers_that_run_or_are_paused() {
    let body = json!([
        {"Id": ID, "Names": ["/agentbox", "/other/alias"], "Image": "localhost/agent:1", "Labels": {"role": "bot"}, "State": "running", "Ports": []},
        {"Id": ID.replace('0', "1"), "Names": null, "Image": "", "Labels": null, "State": "paused"},
        {"Id": ID.replace('0', "2"), "Names": ["/gone"], "Image": "x", "Labels": {}, "State": "exited"},
    ]);
    let found = said_of(&body.to_string()).await.expect("is believed");
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0].names, ["agentbox"]);
    assert_eq!(found[0].labels["role"], "bot");
    assert_eq!(found[0].image.as_deref(), Some("localhost/agent:1"));
    assert_eq!(
        (found[0].shown(), found[1].shown()),
        ("agentbox", "1123456789ab")
    );
    assert_eq!(found[1].image, None);
}

/// A list of one container of this digit and name.
fn one(digit: &str, name: &str) -> String {
    let id = ID.replace('0', digit);
    json!([{"Id": id, "Names": [format!("/{name}")], "Labels": {}, "State": "running"}]).to_string()
}

fn too_long() -> String {
    " ".repeat(ANSWER_BYTES_MAX + 1)
}

#[tokio::test]
async fn where_the_list_is_too_long_those_that_agents_are_known_by_are_asked_for_and_what_is_too_long_of_one_is_not_known_of_that_one_alone()
 {
    let folder = tempfile::tempdir().expect("a folder");
    let (socket, asked) = answering(folder.path(), |asked| {
        let is_after = |what: &str| asked.contains(what);
        match (is_after("%3Fsmall%24"), is_after("%3Fvast%24")) {
            (true, false) => one("1", "small"),
            (false, false) if is_after("role%3Dbot") => one("2", "labelled"),
            (true | false, true | false) => too_long(),
        }
    });
    let wanted = wanted(&["small", "vast"], &["role=bot", "role=vast"]);
    let answer = ask(&socket, &wanted).await;
    let found = answer.said.clone().expect("is believed");
    let shown: Vec<&str> = found.iter().map(Container::shown).collect();
    assert_eq!(shown, ["small", "labelled"]);
    let known = [
        Workload::ContainerName("small".to_owned()),
        Workload::ContainerLabel("role=bot".to_owned()),
    ];
    assert!(known.iter().all(|known| answer.of(known).is_some()));
    let unheard = [
        Workload::ContainerName("vast".to_owned()),
        Workload::ContainerLabel("role=vast".to_owned()),
    ];
    assert_eq!(answer.unheard, unheard.into());
    // All, both names, each label, each name.
    assert_eq!(asked.load(Ordering::Relaxed), 6);
}

#[tokio::test]
async fn a_runtime_is_asked_no_more_than_so_many_questions_and_what_was_not_asked_for_is_not_known()
{
    let folder = tempfile::tempdir().expect("a folder");
    let (socket, asked) = answering(folder.path(), |asked| {
        if asked.contains("%22label%22") {
            return "[]".to_owned();
        }
        too_long()
    });
    let labels: Vec<String> = (10..80).map(|number| format!("a={number}")).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let answer = ask(&socket, &wanted(&[], &labels)).await;
    assert_eq!(answer.said, Ok(Vec::new()));
    assert_eq!(asked.load(Ordering::Relaxed), 33);
    assert_eq!(answer.unheard.len(), labels.len() - 32);
    // Where nobody is known so, there is nothing else to ask for.
    let answer = ask(&socket, &Wanted::default()).await;
    assert!(answer.said.expect_err("is too long").contains("more than"));
    assert_eq!(asked.load(Ordering::Relaxed), 34);
}

/// What Docker's Engine answers (20.10, API 1.41): in chunks, with much that is not asked about, each container's state in a word of its own.
#[tokio::test]
async fn docker_tells_of_its_containers_in_chunks_and_with_much_beside() {
    let container = |digit: &str, name: &str, labels: Value, state: &str, status: &str| {
        let network = json!({"IPAMConfig": null, "Links": null, "Aliases": null, "NetworkID": ID, "Gateway": "", "IPPrefixLen": 0, "DriverOpts": null});
        json!({
            "Id": ID.replace('0', digit), "Names": [format!("/{name}")], "Image": "agentbox:1", "ImageID": format!("sha256:{ID}"),
            "Command": "sleep 600", "Created": 1_795_829_574, "Ports": [], "Labels": labels, "State": state, "Status": status,
            "HostConfig": {"NetworkMode": "none"}, "NetworkSettings": {"Networks": {"none": network}},
            "Mounts": [{"Type": "bind", "Source": "/usr", "Destination": "/usr", "Mode": "ro", "RW": false, "Propagation": "rprivate"}],
        })
    };
    let role = json!({"role": "finance-bot"});
    let body = json!([
        container(
            "1",
            "held",
            json!({}),
            "paused",
            "Up Less than a second (Paused)"
        ),
        container("2", "agentbox", role, "running", "Up Less than a second"),
    ]);
    let body = format!("{body}\n");
    let (first, second) = body.split_at(body.len() / 2);
    let head = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\nDocker-Experimental: false\r\nOstype: linux\r\nServer: Docker/20.10.24 (linux)\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunks = [first, second, ""].map(|part| format!("{:x}\r\n{part}\r\n", part.len()));
    let answer = format!("{head}{}", chunks.concat());
    let folder = tempfile::tempdir().expect("a folder");
    let found = said(&runtime(folder.path(), answer.into_bytes())).await;
    let found = found.expect("is believed");
    let shown: Vec<&str> = found.iter().map(Container::shown).collect();
    assert_eq!(shown, ["held", "agentbox"]);
    assert_eq!(found[1].labels["role"], "finance-bot");
    assert_eq!(found[1].image.as_deref(), Some("agentbox:1"));
}

#[tokio::test]
async fn what_is_no_list_of_containers_is_not_believed_at_all_and_its_words_are_not_repeated() {
    let good = json!({"Id": ID, "State": "running"});
    for (body, why) in [
        (
            "<html>told</html>".to_owned(),
            "is no list of containers (line 1, column 1)",
        ),
        (
            json!({"message": "told"}).to_string(),
            "is no list of containers",
        ),
        (
            json!([good, {"Id": 7, "State": "running"}]).to_string(),
            "is no list of containers",
        ),
        (
            json!([good, {"Id": ID}]).to_string(),
            "is no list of containers",
        ),
        (
            json!([{"Id": ID, "State": "running", "Names": "told"}]).to_string(),
            "is no list",
        ),
        (
            json!([{"Id": ID, "State": "running", "Labels": {"a": 1}}]).to_string(),
            "is no list",
        ),
        (
            json!([good, {"Id": "told", "State": "running"}]).to_string(),
            "not 64 hexadecimal digits",
        ),
        (
            json!([{"Id": ID.to_uppercase(), "State": "exited"}]).to_string(),
            "not 64 hex",
        ),
        (
            json!(vec![good; CONTAINERS_MAX + 1]).to_string(),
            "more than 1024 containers",
        ),
        (" ".repeat(ANSWER_BYTES_MAX + 1), "more than 1048576 bytes"),
    ] {
        let said = said_of(&body).await.expect_err("is not believed");
        assert!(said.contains(why) && !said.contains("told"), "{said}");
    }
}

#[tokio::test]
async fn one_that_answers_something_else_or_hangs_up_is_said_in_a_sentence() {
    let cases = [
        (http("500 Internal Server Error", "[]"), "it answered 500"),
        (http("301 Moved Permanently", "[]"), "it answered 301"),
        (b"SSH-2.0-OpenSSH\r\n".to_vec(), "it did not answer"),
        (Vec::new(), "it did not answer"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[]".to_vec(),
            "it did not answer",
        ),
    ];
    for (answer, why) in cases {
        let folder = tempfile::tempdir().expect("a folder");
        let said = said(&runtime(folder.path(), answer)).await;
        let said = said.expect_err("is not believed");
        assert!(said.contains(why), "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_holds_up_nobody_for_longer_than_it_may_take() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("hangs.sock");
    let _listener = UnixListener::bind(&socket).expect("binds");
    mode(&socket, 0o600);
    let began = tokio::time::Instant::now();
    let sockets = [socket, folder.path().join("missing.sock")];
    let answers = ask_all(&sockets, &Wanted::default()).await;
    assert_eq!(began.elapsed().as_secs(), ASK_MAX.as_secs());
    let why = answers.map_why();
    assert!(why[0].contains("did not answer within 2 s"), "{why:?}");
    assert!(why[1].contains("nobody listens there"), "{why:?}");
}

trait Why {
    fn map_why(self) -> Vec<String>;
}

impl Why for Vec<Answer> {
    fn map_why(self) -> Vec<String> {
        let whys = self
            .into_iter()
            .map(|answer| answer.said.expect_err("is not believed"));
        whys.collect()
    }
}

#[tokio::test]
async fn a_socket_that_others_than_root_can_write_or_replace_is_not_believed() {
    let folder = tempfile::tempdir().expect("a folder");
    let below = folder.path().join("below");
    std::fs::create_dir(&below).expect("makes a folder");
    let socket = below.join("runtime.sock");
    let _listener = UnixListener::bind(&socket).expect("binds");
    let link = folder.path().join("link.sock");
    std::os::unix::fs::symlink(&socket, &link).expect("links");
    mode(&below, 0o755);
    let doubt = |named: &Path| {
        let checked = trust::check(named).expect("is looked at");
        checked.err().map(|why| why.to_string()).unwrap_or_default()
    };
    for good in [0o600, 0o660, 0o644] {
        mode(&socket, good);
        assert_eq!([doubt(&socket), doubt(&link)], ["", ""]);
    }
    // Docker's, as it comes: a group's to write.
    chown(&socket, None, Some(998)).expect("gives it away");
    mode(&socket, 0o660);
    let said = doubt(&link);
    assert!(
        said.ends_with("belongs to 0:998 and has the mode 660; give it to root alone (a socket of systemd's: SocketMode=0600)"),
        "{said}"
    );
    chown(&socket, None, Some(0)).expect("takes it back");
    mode(&socket, 0o666);
    assert!(doubt(&socket).contains("mode 666"));
    mode(&socket, 0o600);
    chown(&socket, Some(2001), None).expect("gives it away");
    let said = doubt(&socket);
    assert!(
        said.contains("belongs to 2001:0")
            && said.contains("name all that the user runs (`user = 2001`)"),
        "{said}"
    );
    let said = Untrusted::Listener(2001).to_string();
    assert!(said.contains("`user = 2001`"), "{said}");
    chown(&socket, Some(0), None).expect("takes it back");
    for (open, is_open) in [
        (0o777, true),
        (0o1777, false),
        (0o770, false),
        (0o755, false),
    ] {
        mode(&below, open);
        assert_eq!(!doubt(&socket).is_empty(), is_open, "{open:o}");
    }
    chown(&below, Some(2001), None).expect("gives it away");
    assert!(
        doubt(&link).contains("below belongs to 2001:0"),
        "{}",
        doubt(&link)
    );
    chown(&below, Some(0), None).expect("takes it back");
    std::os::unix::fs::lchown(&link, Some(2001), None).expect("gives the link away");
    assert!(
        doubt(&link).contains("link.sock belongs to 2001"),
        "{}",
        doubt(&link)
    );
    assert!(doubt(&below).contains("is no socket"));
}

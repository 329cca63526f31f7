//! What passes, what does not, and that neither depends on how the bytes arrive.

use proptest::prelude::*;

use super::*;

/// What is handed on of `parts`, and why no more.
fn through<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Option<String>) {
    let unreadable = Unreadable::default();
    let mut gate = Gate::new(unreadable.clone());
    for part in parts {
        gate.feed(part);
    }
    (gate.ready.to_vec(), unreadable.0.get().cloned())
}

fn why(request: &str) -> String {
    let (passed, why) = through([request.as_bytes()]);
    let why = why.unwrap_or_else(|| panic!("was passed on: {request:?}"));
    assert!(
        passed.ends_with(STAND_IN) || passed.ends_with(BROKEN_CHUNK),
        "{request:?}"
    );
    why
}

const PLAIN: &str = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const SIZED: &str = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
const CHUNKED: &str = "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0A\r\n0123456789\r\n0\r\n\r\n";

#[test]
fn what_has_one_reading_passes_byte_for_byte() {
    let all = [PLAIN, SIZED, CHUNKED, PLAIN].concat();
    assert_eq!(through([all.as_bytes()]), (all.into_bytes(), None));
}

#[test]
fn a_head_is_held_back_until_it_is_whole() {
    let (passed, why) = through([&PLAIN.as_bytes()[..PLAIN.len() - 1]]);
    assert_eq!((passed.as_slice(), why), (&b""[..], None));
}

#[test]
fn what_has_two_readings_does_not_pass() {
    let head = |lines: &str| format!("POST /a HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
    let cases = [
        (
            head("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
            "both",
        ),
        (
            head("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"),
            "both",
        ),
        (
            head("Content-Length: 3\r\nContent-Length: 3\r\n"),
            "more than once",
        ),
        (head("Content-Length: 3, 3\r\n"), "not a number"),
        (head("Content-Length: +3\r\n"), "not a number"),
        (head("Content-Length: \r\n"), "not a number"),
        (
            head("Content-Length: 99999999999999999999\r\n"),
            "not a number",
        ),
        (
            head("Transfer-Encoding: gzip, chunked\r\n"),
            "chunked, once",
        ),
        (
            head("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            "chunked, once",
        ),
        (head("Transfer-Encoding: identity\r\n"), "chunked, once"),
        (head("A: b\r\n folded\r\n"), "not HTTP"),
        (head("A : b\r\n"), "not HTTP"),
        (head("A: b\0c\r\n"), "not HTTP"),
        ("GET /a HTTP/1.1\nHost: h\n\n".to_owned(), "CR and LF"),
        ("GET /a HTTP/1.1\r\nHost: h\n\r\n".to_owned(), "CR and LF"),
        (
            "GET /a HTTP/1.0\r\nHost: h\r\n\r\n".to_owned(),
            "Only HTTP/1.1",
        ),
        (
            "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            "not HTTP",
        ),
        ("PRI * HTTP/2.0\r\n\r\n".to_owned(), "not HTTP"),
        (
            "\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            "not HTTP",
        ),
        ("\u{16}\u{3}\u{1}".to_owned(), "not HTTP"),
    ];
    for (request, expected) in cases {
        let said = why(&request);
        assert!(said.contains(expected), "{request:?}: {said}");
    }
}

#[test]
fn a_chunked_body_has_neither_extensions_nor_trailers_nor_other_sizes_than_it_says() {
    let chunked = |body: &str| {
        format!("POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
    };
    for body in [
        "3;a=b\r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n",
        "2\r\nabc\r\n0\r\n\r\n",
        "000000003\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n",
    ] {
        let _ = why(&chunked(body));
    }
}

#[test]
fn a_head_that_never_ends_is_refused_at_its_bound() {
    let endless = format!("GET /a HTTP/1.1\r\nA: {}", "b".repeat(HEAD_BYTES_MAX));
    assert!(why(&endless).contains("more than"));
    let lines = format!("GET /a HTTP/1.1\r\n{}", "A: b\r\n".repeat(HEADERS_MAX + 1));
    assert!(why(&format!("{lines}\r\n")).contains("too many headers"));
}

#[test]
fn nothing_passes_after_what_was_refused() {
    let all = format!("{SIZED}GET /b HTTP/1.0\r\n\r\n{PLAIN}");
    let (passed, _) = through([all.as_bytes(), PLAIN.as_bytes()]);
    assert_eq!(passed, [SIZED.as_bytes(), STAND_IN].concat());
}

#[test]
fn only_the_stand_in_gets_the_refusal() {
    let unreadable = Unreadable::default();
    assert_eq!(unreadable.stood_in_for(STAND_IN_PATH), None);
    Gate::new(unreadable.clone()).feed(b"\0");
    assert_eq!(unreadable.stood_in_for("/bigquery/v2/projects"), None);
    let refusal = unreadable.stood_in_for(STAND_IN_PATH).expect("refused");
    let line = std::str::from_utf8(STAND_IN).expect("text");
    assert!(line.contains(STAND_IN_PATH));
    assert_eq!(refusal.code, Code::RequestMalformed);
}

proptest! {
    #[test]
    fn how_the_bytes_arrive_changes_nothing(
        parts in prop::collection::vec(prop_oneof![
            Just(PLAIN.to_owned()), Just(SIZED.to_owned()), Just(CHUNKED.to_owned()),
            "[A-Z]{1,4} /[a-z]{0,4} HTTP/1\\.[01]\r?\n(Content-Length: [0-9+]{1,2}\r\n)?(Transfer-Encoding: chunked\r\n)?\r\n[0-9a-f]{0,3}\r?\n?",
        ], 1..5),
        cuts in prop::collection::vec(1_usize..40, 1..60),
    ) {
        let all = parts.concat().into_bytes();
        let whole = through([all.as_slice()]);
        let mut rest = all.as_slice();
        let mut pieces = Vec::new();
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
        prop_assert_eq!(through(pieces), whole);
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_has_begun_is_waited_for_so_long_and_an_idle_connection_is_not_hurried() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut client, server) = tokio::io::duplex(1024);
    let mut strict = Strict::new(server, Unreadable::default());
    let began = tokio::time::Instant::now();
    let mut got = [0; PLAIN.len()];
    let (read, written) = tokio::join!(strict.read_exact(&mut got), async {
        sleep(10 * HEAD).await;
        client.write_all(PLAIN.as_bytes()).await
    });
    assert!(read.is_ok() && written.is_ok() && got == PLAIN.as_bytes());
    client.write_all(b"GET /a HT").await.expect("writes");
    let ended = strict.read(&mut got).await.expect_err("ends");
    assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
    assert_eq!(began.elapsed(), 11 * HEAD);
}

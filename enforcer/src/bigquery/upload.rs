//! What comes with a load: a job and its data in one body, or in parts over several requests. Read strictly, and written anew.
//!
//! The forms are those of Google's upload protocols ("multipart" after RFC 2387, "resumable"); the data itself is not looked into.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use bytes::Bytes;
use enforcer_proto::refusal::{Code, Refusal};

/// The largest body that carries a job and its data together, bytes: clients send more in parts.
pub const WHOLE_BYTES_MAX: usize = 6 * 1024 * 1024;
/// The longest boundary (RFC 2046).
const BOUNDARY_BYTES_MAX: usize = 70;
/// The longest head of a part.
const HEAD_BYTES_MAX: usize = 1024;

/// A job and its data, as they came in one body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// The job, JSON.
    pub job: Bytes,
    /// What is loaded.
    pub data: Bytes,
}

/// Reads a body of two parts.
///
/// # Errors
/// [`Code::RequestMalformed`] where it is not two parts, one behind the other.
pub fn whole(content_type: &str, body: &Bytes) -> Result<Whole, Refusal> {
    let boundary = boundary(content_type).ok_or_else(|| malformed("the boundary is missing"))?;
    let delimiter = [b"--", boundary.as_bytes()].concat();
    let mut at = 0..0;
    let mut parts = Vec::new();
    let begin = line_from(body, 0, &delimiter).filter(|line| line.start == 0);
    at.end = begin
        .ok_or_else(|| malformed("it does not begin with the boundary"))?
        .end;
    loop {
        let data = behind_head(body, at.end).ok_or_else(|| malformed("a part has no head"))?;
        let next =
            line_from(body, data, &delimiter).ok_or_else(|| malformed("a part has no end"))?;
        parts.push(data..next.start);
        at = next;
        if body[at.clone()].ends_with(b"--") {
            break;
        }
        if parts.len() == 2 {
            return Err(malformed("it has more than two parts"));
        }
    }
    let [job, data] = parts.as_slice() else {
        return Err(malformed("it has one part"));
    };
    if body[at.end..]
        .iter()
        .any(|byte| !byte.is_ascii_whitespace())
    {
        return Err(malformed("something follows its end"));
    }
    Ok(Whole {
        job: body.slice(job.clone()),
        data: body.slice(data.clone()),
    })
}

/// The boundary that a content type names.
fn boundary(content_type: &str) -> Option<&str> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/related") {
        return None;
    }
    let mut found = parameters.split(';').filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("boundary")
            .then(|| value.trim())
    });
    let boundary = found.next().filter(|_| found.next().is_none())?;
    let boundary = boundary
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(boundary);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(&byte);
    let is_good =
        (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len()) && boundary.bytes().all(is_plain);
    is_good.then_some(boundary)
}

/// The next line that is a delimiter, the line end before it included, and the two hyphens of the last one; not the line end behind it.
fn line_from(body: &[u8], from: usize, delimiter: &[u8]) -> Option<Range<usize>> {
    let mut at = from;
    loop {
        let found = at + find(body.get(at..)?, delimiter)?;
        let mut end = found + delimiter.len();
        if body[end..].starts_with(b"--") {
            end += 2;
        }
        let before = &body[from..found];
        let start = if found == 0 {
            Some(0)
        } else if before.ends_with(b"\r\n") {
            Some(found - 2)
        } else if before.ends_with(b"\n") {
            Some(found - 1)
        } else {
            None
        };
        let is_alone = matches!(body.get(end), None | Some(b'\r' | b'\n'));
        match start {
            Some(start) if is_alone => return Some(start..end),
            Some(_) | None => at = found + 1,
        }
    }
}

/// Where a part's data begins: behind the empty line that ends its head. A head says nothing that is needed.
fn behind_head(body: &[u8], from: usize) -> Option<usize> {
    let head = body.get(from..)?;
    let head = &head[..head.len().min(HEAD_BYTES_MAX)];
    let ends = [b"\r\n\r\n".as_slice(), b"\n\n"];
    let found = ends
        .iter()
        .filter_map(|end| Some(find(head, end)? + end.len()));
    Some(from + found.min()?)
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, part)
}

/// What stands between the parts of a body that is sent on, and nowhere in its data.
#[derive(Debug)]
pub struct Boundary(String);

impl Boundary {
    /// A boundary for such data.
    ///
    /// # Errors
    /// [`Code::RequestMalformed`] where the data holds it.
    pub fn new(boundary: String, data: &[u8]) -> Result<Self, Refusal> {
        match find(data, boundary.as_bytes()) {
            Some(_) => Err(malformed("its data holds the boundary")),
            None => Ok(Self(boundary)),
        }
    }

    /// What a body with it is.
    #[must_use]
    pub fn content_type(&self) -> String {
        format!("multipart/related; boundary={}", self.0)
    }

    /// The body as it is sent on; `data` is what the boundary was made for.
    #[must_use]
    pub fn body(&self, job: &str, data: &[u8]) -> Bytes {
        let Self(boundary) = self;
        let job_head =
            format!("--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n");
        let data_head =
            format!("\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n");
        let end = format!("\r\n--{boundary}--\r\n");
        let parts = [
            job_head.as_bytes(),
            job.as_bytes(),
            data_head.as_bytes(),
            data,
            end.as_bytes(),
        ];
        Bytes::from(parts.concat())
    }
}

/// Which bytes of the whole a part is, as `Content-Range` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// The first and the last byte; none where it is only asked how far the upload has come.
    part: Option<(u64, u64)>,
    /// How many there are, where that is known yet.
    total: Option<u64>,
}

impl ContentRange {
    /// A whole of so many bytes.
    #[must_use]
    pub const fn all(length: u64) -> Self {
        let part = match length.checked_sub(1) {
            Some(last) => Some((0, last)),
            None => None,
        };
        Self {
            part,
            total: Some(length),
        }
    }

    /// Whether the upload may be whole with it: then the job is started.
    #[must_use]
    pub fn may_be_last(&self) -> bool {
        let end = self.part.map(|(_, last)| last.saturating_add(1));
        self.total.is_some() && (end.is_none() || end == self.total)
    }

    /// How many bytes the part has.
    #[must_use]
    pub const fn length(&self) -> u64 {
        match self.part {
            Some((first, last)) => last - first + 1,
            None => 0,
        }
    }
}

impl FromStr for ContentRange {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u64>().ok()).flatten()
        };
        let read = || {
            let (part, total) = text.strip_prefix("bytes ")?.split_once('/')?;
            let part = match part {
                "*" => None,
                part => {
                    let (first, last) = part.split_once('-')?;
                    Some((number(first)?, number(last)?))
                }
            };
            let total = match total {
                "*" => None,
                total => Some(number(total)?),
            };
            let is_good =
                part.is_none_or(|(first, last)| first <= last && last < total.unwrap_or(u64::MAX));
            is_good.then_some(Self { part, total })
        };
        read().ok_or_else(|| malformed("its Content-Range cannot be read"))
    }
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            Some((first, last)) => write!(f, "bytes {first}-{last}/")?,
            None => f.write_str("bytes */")?,
        }
        match self.total {
            Some(total) => write!(f, "{total}"),
            None => f.write_str("*"),
        }
    }
}

/// That an upload cannot be read.
#[must_use]
pub fn malformed(why: &str) -> Refusal {
    Refusal::new(
        Code::RequestMalformed,
        format!("The upload cannot be read: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPE: &str = "multipart/related; boundary=\"==b==\"";

    fn read(body: &str) -> Option<(String, String)> {
        let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
        let whole = whole(TYPE, &Bytes::from(body.to_owned())).ok()?;
        Some((text(whole.job), text(whole.data)))
    }

    #[test]
    fn both_ends_of_lines_that_clients_write_are_read() {
        let crlf = "--==b==\r\ncontent-type: application/json\r\n\r\n{}\r\n--==b==\r\ncontent-type: */*\r\n\r\na,b\r\n\r\n--==b==--";
        assert_eq!(read(crlf), Some(("{}".into(), "a,b\r\n".into())));
        let lf = "--==b==\nContent-Type: application/json\nMIME-Version: 1.0\n\n{}\n--==b==\nContent-Type: text/csv\n\na,b\n--==b==--\n";
        assert_eq!(read(lf), Some(("{}".into(), "a,b".into())));
        let empty = "--==b==\r\n\r\n\r\n{}\r\n--==b==\r\n\r\n\r\n\r\n--==b==--";
        assert!(read(empty).is_some());
    }

    #[test]
    fn what_is_not_two_parts_is_refused() {
        for body in [
            "",
            "{}",
            "x--==b==\r\na: b\r\n\r\n{}\r\n--==b==\r\na: b\r\n\r\nx\r\n--==b==--",
            "--==b==\r\na: b\r\n\r\n{}\r\n--==b==--",
            "--==b==\r\na: b\r\n\r\n{}\r\n--==b==\r\na: b\r\n\r\nx",
            "--==b==\r\na: b\r\n\r\n{}\r\n--==b==\r\na: b\r\n\r\nx\r\n--==b==\r\na: b\r\n\r\ny\r\n--==b==--",
            "--==b==\r\na: b\r\n\r\n{}\r\n--==b==\r\na: b\r\n\r\nx\r\n--==b==--more",
        ] {
            assert_eq!(read(body), None, "{body:?}");
        }
        for kind in [
            "multipart/related",
            "multipart/mixed; boundary=b",
            "multipart/related; boundary=",
            "multipart/related; boundary=a; boundary=b",
            "multipart/related; boundary=\"a b\"",
        ] {
            assert_eq!(boundary(kind), None, "{kind}");
        }
    }

    #[test]
    fn a_range_is_read_and_written_alike() {
        for text in ["bytes 0-9/10", "bytes 10-19/*", "bytes */20", "bytes */*"] {
            let range: ContentRange = text.parse().expect(text);
            assert_eq!(range.to_string(), text);
        }
        let range: ContentRange = "bytes 10-19/*".parse().expect("a range");
        assert_eq!(range.length(), 10);
        for (text, may_be_last) in [
            ("bytes 10-19/*", false),
            ("bytes 10-19/21", false),
            ("bytes 10-19/20", true),
            ("bytes */20", true),
            ("bytes */*", false),
        ] {
            let range: ContentRange = text.parse().expect(text);
            assert_eq!(range.may_be_last(), may_be_last, "{text}");
        }
        assert!(ContentRange::all(3).may_be_last() && ContentRange::all(0).may_be_last());
        for text in [
            "",
            "bytes",
            "bytes 9-0/10",
            "bytes 0-10/10",
            "bytes -1-2/3",
            "bytes 0-9/10,11",
            "items 0-9/10",
            "bytes +0-9/10",
        ] {
            assert!(text.parse::<ContentRange>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(job in "[a-z{}\"]{0,20}", data in prop::collection::vec(any::<u8>(), 0..200)) {
            let boundary = Boundary::new("b0undary".to_owned(), &data).expect("not in there");
            let read = whole(&boundary.content_type(), &boundary.body(&job, &data)).expect("two parts");
            prop_assert_eq!(read, Whole { job: job.into_bytes().into(), data: data.into() });
        }

        #[test]
        fn no_body_makes_the_reader_panic(body in prop::collection::vec(prop_oneof![Just(b'-'), Just(b'b'), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..100)) {
            let _ = whole("multipart/related; boundary=b", &Bytes::from(body));
        }
    }
}

//! The first message of a TLS connection, read without answering it: the server it names in the clear, and nothing that is ambiguous. Pure:
//! bytes in, a hello or a refusal out; how the bytes were cut into packets makes no difference.
//!
//! What is read here goes on unchanged, to the TLS library or to where the client wanted, so both read the same. It may come in several
//! records (RFC 8446, 5.1), within bounds. The name is what a process says it wants, not what it gets: what is said inside the encrypted
//! connection afterwards is seen by nobody here.

use std::collections::BTreeSet;

use enforcer_ebpf::opening::OPENING_BYTES_MAX;

/// The most bytes a hello may have, the heads of its records included. Those with post-quantum keys have about two thousand.
/// The kernel keeps as many, to tell whose they are.
pub const HELLO_BYTES_MAX: usize = OPENING_BYTES_MAX as usize;
/// The most records a hello may come in.
pub const RECORDS_MAX: usize = 64;
/// The most bytes of a record's content (RFC 8446, 5.1).
const RECORD_BYTES_MAX: usize = 1 << 14;
/// The bytes of a record's head: kind, version, length.
const RECORD_HEAD_BYTES: usize = 5;
/// The bytes before a handshake message: kind, length.
const MESSAGE_HEAD_BYTES: usize = 4;
/// A record of handshake messages.
const RECORD_HANDSHAKE: u8 = 22;
/// The major version of every TLS record.
const RECORD_MAJOR: u8 = 3;
/// A handshake message that is a ClientHello.
const CLIENT_HELLO: u8 = 1;
/// `host_name`, the only kind of server name there is (RFC 6066, 3).
const HOST_NAME: u8 = 0;
/// `server_name`.
const EXTENSION_SERVER_NAME: u16 = 0;
/// `application_layer_protocol_negotiation`.
const EXTENSION_ALPN: u16 = 16;
/// `encrypted_client_hello` (RFC 9849), its drafts since the ninth, and the encrypted server name that came before it.
const EXTENSIONS_ENCRYPTED: [u16; 7] = [0xfe0d, 0xfe0c, 0xfe0b, 0xfe0a, 0xfe09, 0xfe08, 0xffce];
/// The longest DNS name, and the longest of its labels, bytes.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// What a hello says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The server it names, lower case and without a trailing dot.
    pub name: String,
    /// The protocols it offers, in its order.
    pub alpn: Vec<Vec<u8>>,
}

/// Why a hello is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelloRefusal {
    /// No TLS at all.
    #[error("what came is no TLS hello")]
    NotTls,
    /// TLS, but not as it is specified.
    #[error("the TLS hello is malformed: {0}")]
    Malformed(&'static str),
    /// Longer than is read.
    #[error("the TLS hello is longer than {HELLO_BYTES_MAX} bytes")]
    TooLong,
    /// Cut into more pieces than are put together.
    #[error("the TLS hello comes in more than {RECORDS_MAX} records")]
    TooManyRecords,
    /// No server is named: an address alone says nothing about what is wanted there.
    #[error("the TLS hello names no server (SNI)")]
    NoName,
    /// What is named cannot be a server's name: an address, a NUL, an odd letter.
    #[error("the TLS hello names `{0}`, which is no host name")]
    OddName(String),
    /// The name that counts is hidden.
    #[error("the TLS hello hides which server is wanted (Encrypted Client Hello)")]
    Encrypted,
}

/// Reads one hello, piece by piece.
#[derive(Debug, Default)]
pub struct HelloReader {
    /// Bytes that came, at most [`HELLO_BYTES_MAX`].
    came: usize,
    records: usize,
    head: Vec<u8>,
    /// What is still to come of the record under way.
    record_left: usize,
    message: Vec<u8>,
}

impl HelloReader {
    /// Takes the bytes that follow those it has taken. `None`: more are needed. What follows the hello is not looked at.
    ///
    /// # Errors
    /// [`HelloRefusal`], as early as it is certain. Nothing may be pushed after that.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<Option<Hello>, HelloRefusal> {
        while !bytes.is_empty() && self.came < HELLO_BYTES_MAX {
            let room = HELLO_BYTES_MAX - self.came;
            let wanted = match self.record_left {
                0 => RECORD_HEAD_BYTES - self.head.len(),
                left => left,
            };
            let (part, rest) = bytes.split_at(wanted.min(room).min(bytes.len()));
            bytes = rest;
            self.came += part.len();
            if self.record_left == 0 {
                self.head.extend_from_slice(part);
                self.read_head()?;
            } else {
                self.record_left -= part.len();
                self.message.extend_from_slice(part);
                if let Some(hello) = self.read_message()? {
                    return Ok(Some(hello));
                }
            }
        }
        if self.came < HELLO_BYTES_MAX {
            Ok(None)
        } else {
            Err(HelloRefusal::TooLong)
        }
    }

    /// Reads a record's head as far as it has come: what is no TLS is known by its first byte.
    fn read_head(&mut self) -> Result<(), HelloRefusal> {
        let head = &self.head;
        let is_first = self.records == 0;
        let wrong = |what| {
            if is_first {
                HelloRefusal::NotTls
            } else {
                HelloRefusal::Malformed(what)
            }
        };
        if head.first().is_some_and(|kind| *kind != RECORD_HANDSHAKE) {
            return Err(wrong("another record comes before its end"));
        }
        if head.get(1).is_some_and(|major| *major != RECORD_MAJOR) {
            return Err(wrong("a record has another version"));
        }
        let [_, _, _, high, low] = head[..] else {
            return Ok(());
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        self.head.clear();
        self.records += 1;
        if self.records > RECORDS_MAX {
            return Err(HelloRefusal::TooManyRecords);
        }
        if !(1..=RECORD_BYTES_MAX).contains(&length) {
            return Err(HelloRefusal::Malformed("a record is empty or too long"));
        }
        self.record_left = length;
        Ok(())
    }

    /// Reads the message, once it is whole.
    fn read_message(&self) -> Result<Option<Hello>, HelloRefusal> {
        let message = &self.message;
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(HelloRefusal::NotTls);
        }
        let Some(head) = message.first_chunk::<MESSAGE_HEAD_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
        let whole = MESSAGE_HEAD_BYTES + length;
        if whole > HELLO_BYTES_MAX {
            return Err(HelloRefusal::TooLong);
        }
        if message.len() < whole {
            return Ok(None);
        }
        // A second message in the same record would be read by one side as ours and by the other as its own.
        if message.len() > whole || self.record_left > 0 {
            return Err(HelloRefusal::Malformed("its record holds something more"));
        }
        client_hello(&message[MESSAGE_HEAD_BYTES..]).map(Some)
    }
}

/// The body of a ClientHello (RFC 8446, 4.1.2; RFC 5246, 7.4.1.2).
fn client_hello(body: &[u8]) -> Result<Hello, HelloRefusal> {
    let mut body = Cursor(body);
    let _version = body.u16()?;
    let _random = body.take(32)?;
    let session = body.short()?;
    let suites = body.long()?;
    let compressions = body.short()?;
    if session.len() > 32
        || suites.is_empty()
        || !suites.len().is_multiple_of(2)
        || compressions.is_empty()
    {
        return Err(HelloRefusal::Malformed("a length is out of range"));
    }
    if body.is_empty() {
        // Without extensions there is no name.
        return Err(HelloRefusal::NoName);
    }
    let extensions = Cursor(body.long()?);
    if !body.is_empty() {
        return Err(HelloRefusal::Malformed("something follows its extensions"));
    }
    read_extensions(extensions)
}

fn read_extensions(mut extensions: Cursor<'_>) -> Result<Hello, HelloRefusal> {
    let mut seen = BTreeSet::new();
    let (mut name, mut alpn) = (None, Vec::new());
    while !extensions.is_empty() {
        let kind = extensions.u16()?;
        let content = Cursor(extensions.long()?);
        if !seen.insert(kind) {
            return Err(HelloRefusal::Malformed("an extension comes twice"));
        }
        if EXTENSIONS_ENCRYPTED.contains(&kind) {
            return Err(HelloRefusal::Encrypted);
        }
        match kind {
            EXTENSION_SERVER_NAME => name = Some(server_name(content)?),
            EXTENSION_ALPN => alpn = protocols(content)?,
            _ => {}
        }
    }
    Ok(Hello {
        name: name.ok_or(HelloRefusal::NoName)?,
        alpn,
    })
}

/// Exactly one name, of the one kind there is: of several each side could take another.
fn server_name(mut content: Cursor<'_>) -> Result<String, HelloRefusal> {
    let mut list = Cursor(content.long()?);
    if list.is_empty() {
        return Err(HelloRefusal::NoName);
    }
    let kind = list.u8()?;
    let name = list.long()?;
    if kind != HOST_NAME || !list.is_empty() || !content.is_empty() {
        return Err(HelloRefusal::Malformed("it names more than one server"));
    }
    host_name(name).ok_or_else(|| HelloRefusal::OddName(String::from_utf8_lossy(name).into_owned()))
}

/// A host name in the one form everything compares. Buckets and the like have underscores; an address is no name, in whatever notation: the
/// last label of a name is never a number.
fn host_name(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_sound =
        |label: &str| (1..=LABEL_BYTES_MAX).contains(&label.len()) && label.bytes().all(is_letter);
    let last = name.rsplit('.').next()?;
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last.starts_with("0x")
        || last.starts_with("0X");
    (name.len() <= NAME_BYTES_MAX && name.split('.').all(is_sound) && !is_number)
        .then(|| name.to_ascii_lowercase())
}

fn protocols(mut content: Cursor<'_>) -> Result<Vec<Vec<u8>>, HelloRefusal> {
    let mut list = Cursor(content.long()?);
    let mut protocols = Vec::new();
    while !list.is_empty() {
        protocols.push(list.short()?.to_vec());
    }
    if !content.is_empty() || protocols.is_empty() || protocols.iter().any(Vec::is_empty) {
        return Err(HelloRefusal::Malformed("its list of protocols is broken"));
    }
    Ok(protocols)
}

/// What is left to read. Whatever reaches past the end is malformed.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], HelloRefusal> {
        let (taken, rest) = self
            .0
            .split_at_checked(bytes)
            .ok_or(HelloRefusal::Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, HelloRefusal> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, HelloRefusal> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// What a length of one byte announces.
    fn short(&mut self) -> Result<&'a [u8], HelloRefusal> {
        let length = self.u8()?;
        self.take(usize::from(length))
    }

    /// What a length of two bytes announces.
    fn long(&mut self) -> Result<&'a [u8], HelloRefusal> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests;

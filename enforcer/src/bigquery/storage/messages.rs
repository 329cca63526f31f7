//! The messages of `google.cloud.bigquery.storage.v1` that are read and written, with the field numbers of its description, and no others.

use bytes::Bytes;
use enforcer_proto::refusal::Refusal;
use prost::Message;

use super::frame::malformed;
use super::shape::{self, Field, Kind};

/// `google.protobuf.Timestamp`
#[derive(Clone, PartialEq, Message)]
pub struct Timestamp {
    /// Since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Behind the seconds.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// What is asked of `CreateReadSession`.
#[derive(Clone, PartialEq, Message)]
pub struct CreateReadSessionRequest {
    /// `projects/…`: the one that is billed.
    #[prost(string, tag = "1")]
    pub parent: String,
    /// What is to be read.
    #[prost(message, optional, tag = "2")]
    pub read_session: Option<WantedSession>,
    /// The most streams.
    #[prost(int32, tag = "3")]
    pub max_stream_count: i32,
    /// The fewest streams.
    #[prost(int32, tag = "4")]
    pub preferred_min_stream_count: i32,
}

/// `ReadSession`, as far as a client says what it wants. What BigQuery says in it is for BigQuery to say.
#[derive(Clone, PartialEq, Message)]
pub struct WantedSession {
    /// `DataFormat`.
    #[prost(int32, tag = "3")]
    pub data_format: i32,
    /// `projects/…/datasets/…/tables/…`
    #[prost(string, tag = "6")]
    pub table: String,
    /// At what time.
    #[prost(message, optional, tag = "7")]
    pub table_modifiers: Option<TableModifiers>,
    /// Which rows and columns.
    #[prost(message, optional, tag = "8")]
    pub read_options: Option<TableReadOptions>,
    /// The client's own name for it.
    #[prost(string, tag = "13")]
    pub trace_id: String,
}

/// `ReadSession.TableModifiers`
#[derive(Clone, PartialEq, Message)]
pub struct TableModifiers {
    /// The table as it was then.
    #[prost(message, optional, tag = "1")]
    pub snapshot_time: Option<Timestamp>,
}

/// `ReadSession.TableReadOptions`
#[derive(Clone, PartialEq, Message)]
pub struct TableReadOptions {
    /// Columns.
    #[prost(string, repeated, tag = "1")]
    pub selected_fields: Vec<String>,
    /// A condition in SQL.
    #[prost(string, tag = "2")]
    pub row_restriction: String,
    /// How rows are written.
    #[prost(oneof = "Serialization", tags = "3, 4")]
    pub serialization: Option<Serialization>,
    /// Only some rows.
    #[prost(double, optional, tag = "5")]
    pub sample_percentage: Option<f64>,
    /// `ResponseCompressionCodec`.
    #[prost(int32, optional, tag = "6")]
    pub response_compression_codec: Option<i32>,
}

/// `output_format_serialization_options`
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Serialization {
    /// As Arrow.
    #[prost(message, tag = "3")]
    Arrow(ArrowOptions),
    /// As Avro.
    #[prost(message, tag = "4")]
    Avro(AvroOptions),
}

/// `ArrowSerializationOptions`
#[derive(Clone, PartialEq, Message)]
pub struct ArrowOptions {
    /// `CompressionCodec`.
    #[prost(int32, tag = "2")]
    pub buffer_compression: i32,
    /// `PicosTimestampPrecision`.
    #[prost(int32, tag = "3")]
    pub picos_timestamp_precision: i32,
}

/// `AvroSerializationOptions`
#[derive(Clone, PartialEq, Message)]
pub struct AvroOptions {
    /// Names as they are shown.
    #[prost(bool, tag = "1")]
    pub enable_display_name_attribute: bool,
    /// `PicosTimestampPrecision`.
    #[prost(int32, tag = "2")]
    pub picos_timestamp_precision: i32,
}

/// What is asked of `ReadRows`.
#[derive(Clone, PartialEq, Message)]
pub struct ReadRowsRequest {
    /// The stream.
    #[prost(string, tag = "1")]
    pub read_stream: String,
    /// From which row on.
    #[prost(int64, tag = "2")]
    pub offset: i64,
    /// How rows are written.
    #[prost(message, optional, tag = "5")]
    pub arrow_serialization_options: Option<ArrowOptions>,
}

/// What is asked of `SplitReadStream`.
#[derive(Clone, PartialEq, Message)]
pub struct SplitReadStreamRequest {
    /// The stream.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Where it is to be split.
    #[prost(double, tag = "2")]
    pub fraction: f64,
}

/// `ReadStream`
#[derive(Clone, PartialEq, Message)]
pub struct ReadStream {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// `ReadSession`, as far as BigQuery's answer is read: it is passed on as it came.
#[derive(Clone, PartialEq, Message)]
pub struct MadeSession {
    /// The streams.
    #[prost(message, repeated, tag = "10")]
    pub streams: Vec<ReadStream>,
    /// How much they read, bytes, as BigQuery bills it.
    #[prost(int64, tag = "12")]
    pub estimated_total_bytes_scanned: i64,
}

/// The answer to `SplitReadStream`.
#[derive(Clone, PartialEq, Message)]
pub struct SplitReadStreamResponse {
    /// What comes before.
    #[prost(message, optional, tag = "1")]
    pub primary_stream: Option<ReadStream>,
    /// What comes after.
    #[prost(message, optional, tag = "2")]
    pub remainder_stream: Option<ReadStream>,
}

/// A message that clients send.
pub trait Asked: Message + Default {
    /// Its fields.
    const FIELDS: &'static [Field];
}

const TIMESTAMP: &[Field] = &[Field::new(1, Kind::Int64), Field::new(2, Kind::Int32)];
const MODIFIERS: &[Field] = &[Field::new(1, Kind::Message(TIMESTAMP))];
const ARROW: &[Field] = &[Field::new(2, Kind::Int32), Field::new(3, Kind::Int32)];
const AVRO: &[Field] = &[Field::new(1, Kind::Bool), Field::new(2, Kind::Int32)];
const OPTIONS: &[Field] = &[
    Field::new(1, Kind::Texts),
    Field::new(2, Kind::Text),
    Field::new(3, Kind::Message(ARROW)),
    Field::instead(4, 3, Kind::Message(AVRO)),
    Field::new(5, Kind::Double),
    Field::new(6, Kind::Int32),
];
const SESSION: &[Field] = &[
    Field::new(3, Kind::Int32),
    Field::new(6, Kind::Text),
    Field::new(7, Kind::Message(MODIFIERS)),
    Field::new(8, Kind::Message(OPTIONS)),
    Field::new(13, Kind::Text),
];

impl Asked for CreateReadSessionRequest {
    const FIELDS: &'static [Field] = &[
        Field::new(1, Kind::Text),
        Field::new(2, Kind::Message(SESSION)),
        Field::new(3, Kind::Int32),
        Field::new(4, Kind::Int32),
    ];
}

impl Asked for ReadRowsRequest {
    const FIELDS: &'static [Field] = &[
        Field::new(1, Kind::Text),
        Field::new(2, Kind::Int64),
        Field::new(5, Kind::Message(ARROW)),
    ];
}

impl Asked for SplitReadStreamRequest {
    const FIELDS: &'static [Field] = &[Field::new(1, Kind::Text), Field::new(2, Kind::Double)];
}

/// Reads a message of a client's, of which nothing may be unknown or said twice.
///
/// # Errors
/// [`enforcer_proto::refusal::Code::RequestMalformed`].
pub fn read<M: Asked>(message: Bytes) -> Result<M, Refusal> {
    shape::check(&message, M::FIELDS)?;
    M::decode(message).map_err(|_| malformed("holds no message that can be read"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request() -> CreateReadSessionRequest {
        CreateReadSessionRequest {
            parent: "projects/p".to_owned(),
            read_session: Some(WantedSession {
                data_format: 2,
                table: "projects/p/datasets/d/tables/t".to_owned(),
                table_modifiers: None,
                read_options: Some(TableReadOptions {
                    selected_fields: vec!["a".to_owned()],
                    row_restriction: String::new(),
                    serialization: Some(Serialization::Arrow(ArrowOptions {
                        buffer_compression: 1,
                        picos_timestamp_precision: 0,
                    })),
                    sample_percentage: Some(50.0),
                    response_compression_codec: Some(0),
                }),
                trace_id: String::new(),
            }),
            max_stream_count: 1,
            preferred_min_stream_count: 0,
        }
    }

    fn is_read(message: &[u8]) -> bool {
        read::<CreateReadSessionRequest>(Bytes::copy_from_slice(message)).is_ok()
    }

    #[test]
    fn what_is_unknown_or_said_twice_is_refused() {
        let plain = request().encode_to_vec();
        assert!(is_read(&plain));
        for (more, what) in [
            (&b"\x28\x01"[..], "an unknown number"),
            (b"\x52\x00", "an unknown text"),
            (b"\x0a\x0aprojects/q", "the payer once more"),
            (b"\x20\x81\x00", "a number longer than it must be"),
            (b"\x2b\x2c", "a group"),
            (b"\x08\x01", "a text that is a number"),
            (b"\x0a\x7f", "a text without an end"),
            (b"\x00\x00", "a field without a number"),
        ] {
            assert!(!is_read(&[&plain, more].concat()), "{what}");
        }
        // What only BigQuery says: the session's name, and its streams.
        for inside in [&b"\x0a\x01x"[..], b"\x52\x03\x0a\x01x"] {
            let mut wanted = request().read_session.expect("set").encode_to_vec();
            wanted.extend_from_slice(inside);
            let length = u8::try_from(wanted.len()).expect("short");
            assert!(!is_read(&[&[0x12, length], wanted.as_slice()].concat()));
        }
    }

    #[test]
    fn everything_that_is_known_is_read_and_written_anew() {
        let mut request = request();
        let arrow = request.encode_to_vec();
        let session = request.read_session.as_mut().expect("set");
        session.trace_id = "mine".to_owned();
        session.table_modifiers = Some(TableModifiers {
            snapshot_time: Some(Timestamp {
                seconds: -1,
                nanos: 5,
            }),
        });
        let options = session.read_options.as_mut().expect("set");
        options.serialization = Some(Serialization::Avro(AvroOptions {
            enable_display_name_attribute: true,
            picos_timestamp_precision: 3,
        }));
        request.preferred_min_stream_count = 7;
        let avro = request.encode_to_vec();
        for message in [arrow, avro] {
            let read: CreateReadSessionRequest = read(Bytes::from(message.clone())).expect("reads");
            assert_eq!(read.encode_to_vec(), message);
        }
        let both = b"\x12\x0a\x42\x08\x1a\x02\x10\x01\x22\x02\x08\x01";
        assert!(!is_read(both), "two formats in one place");
        assert!(is_read(b"\x12\x06\x42\x04\x1a\x02\x10\x01"), "one");
        let rows: ReadRowsRequest =
            read(Bytes::from_static(b"\x0a\x01s\x10\x00\x2a\x02\x10\x01")).expect("reads");
        assert_eq!(
            rows.encode_to_vec(),
            b"\x0a\x01s\x2a\x02\x10\x01",
            "nought need not be said"
        );
    }

    proptest! {
        #[test]
        fn whatever_is_read_reads_the_same_once_it_is_written_anew(message in prop::collection::vec(any::<u8>(), 0..96)) {
            if let Ok(first) = read::<CreateReadSessionRequest>(Bytes::from(message)) {
                let again = read::<CreateReadSessionRequest>(Bytes::from(first.encode_to_vec()));
                prop_assert_eq!(format!("{:?}", again.expect("reads")), format!("{first:?}"));
            }
        }

        #[test]
        fn a_message_with_one_byte_changed_is_another_or_none(at in 0_usize..60, to in any::<u8>()) {
            let mut message = request().encode_to_vec();
            let at = at % message.len();
            let was = std::mem::replace(&mut message[at], to);
            if let Ok(read) = read::<CreateReadSessionRequest>(Bytes::from(message)) {
                prop_assert!(was == to || read != request());
            }
        }
    }
}

//! What is compressed comes back however it is divided, and what is no gzip does not.

use std::collections::VecDeque;
use std::task::Waker;

use http_body_util::{Full, Limited};
use proptest::prelude::*;

use super::*;

/// Gives what it has in these frames; between them, where one is absent, nothing is there yet.
struct Frames(VecDeque<Option<Result<Bytes, BodyError>>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.0.pop_front() {
            Some(None) => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Some(frame)) => Poll::Ready(Some(frame.map(Frame::data))),
            None => Poll::Ready(None),
        }
    }
}

/// The tests' upstream never fails by itself.
impl From<BodyError> for Broken {
    fn from(error: BodyError) -> Self {
        Self::Gzip(io::Error::other(error))
    }
}

/// The parts of `bytes`, and a pause behind each.
fn frames(bytes: &[u8], part: usize) -> Frames {
    let parts = bytes.chunks(part.max(1));
    let parts = parts.flat_map(|part| [Some(Ok(Bytes::copy_from_slice(part))), None]);
    Frames(parts.collect())
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).expect("memory");
    encoder.finish().expect("memory")
}

fn all<B>(body: B) -> Result<Bytes, B::Error>
where
    B: Body<Data = Bytes>,
{
    let read = futures_util::FutureExt::now_or_never(async {
        let mut body = std::pin::pin!(body);
        let mut all = Vec::new();
        loop {
            let next = std::future::poll_fn(|context| match body.as_mut().poll_frame(context) {
                // What waits is asked again at once.
                Poll::Pending => Poll::Ready(None),
                Poll::Ready(next) => Poll::Ready(Some(next)),
            });
            match next.await {
                None => {}
                Some(None) => return Ok(Bytes::from(all)),
                Some(Some(frame)) => all.extend(frame?.into_data().unwrap_or_default()),
            }
        }
    });
    read.expect("nothing waits")
}

fn gunzip(bytes: &[u8], part: usize) -> Result<Bytes, Broken> {
    all(Gunzip::new(frames(bytes, part)))
}

proptest! {
    #[test]
    fn what_was_compressed_comes_back_however_it_is_divided(
        plain in proptest::collection::vec(any::<u8>(), 0..4096),
        again in 1..40_usize,
        part in 1..8192_usize,
    ) {
        let plain = plain.repeat(again);
        let read = gunzip(&gzip(&plain), part).expect("gzip");
        prop_assert_eq!(&read[..], &plain[..]);
    }

    #[test]
    fn what_is_compressed_for_a_client_is_what_came(
        plain in proptest::collection::vec(any::<u8>(), 0..4096),
        again in 1..40_usize,
        part in 1..8192_usize,
    ) {
        let plain = plain.repeat(again);
        let sent = all(Gzip::new(frames(&plain, part))).expect("a body");
        let read = gunzip(&sent, 1000).expect("gzip");
        prop_assert_eq!(&read[..], &plain[..]);
    }

    #[test]
    fn what_is_damaged_anywhere_does_not_end_well_or_is_the_same(
        plain in proptest::collection::vec(any::<u8>(), 1..512),
        at in any::<proptest::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let mut sent = gzip(&plain);
        let at = at.index(sent.len());
        sent[at] ^= 1 << bit;
        // Its head has bits that say nothing of the body.
        if let Ok(read) = gunzip(&sent, 7) {
            prop_assert_eq!(&read[..], &plain[..]);
        }
    }
}

#[test]
fn what_is_cut_off_anywhere_or_followed_by_anything_does_not_end_well() {
    let whole = gzip(b"{\"rows\": [1, 2, 3]}");
    for part in [1, 5, 4096] {
        for end in 0..whole.len() {
            let read = gunzip(&whole[..end], part);
            assert!(matches!(read, Err(Broken::Gzip(_))), "{end} {read:?}");
        }
        for more in [&b"x"[..], &whole[..], &[0]] {
            let read = gunzip(&[&whole[..], more].concat(), part);
            assert!(matches!(read, Err(Broken::Followed)), "{more:?} {read:?}");
        }
        assert!(gunzip(&gzip(&whole), part).is_ok_and(|read| read == whole));
    }
}

#[test]
fn what_stands_for_much_comes_in_small_frames_and_stops_at_its_bound() {
    let bomb = gzip(&vec![b' '; 64 * 1024 * 1024]);
    let mut body = Gunzip::new(frames(&bomb, usize::MAX));
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..100 {
        let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut context) else {
            panic!("there is more")
        };
        let part = frame.into_data().expect("data");
        assert!(part.len() <= PART_BYTES, "{}", part.len());
    }
    let bounded = Limited::new(Gunzip::new(frames(&bomb, usize::MAX)), 1024 * 1024);
    assert!(all(bounded).is_err());
}

#[test]
fn what_has_come_is_there_before_more_comes_both_ways() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(b"the first row").expect("memory");
    encoder.flush().expect("memory");
    let begun = encoder.get_ref().clone();
    let mut context = Context::from_waker(Waker::noop());
    let mut body = Gunzip::new(frames(&begun, usize::MAX));
    let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut context) else {
        panic!("it has come")
    };
    assert_eq!(frame.into_data().expect("data"), "the first row");
    let plain = Frames(VecDeque::from([
        Some(Ok(Bytes::from("the first row"))),
        None,
        Some(Err(BodyError::Closed)),
    ]));
    let mut body = Gzip::new(plain);
    let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut context) else {
        panic!("it has come")
    };
    let mut decoder = GzDecoder::new(Vec::new());
    let sent = frame.into_data().expect("data");
    decoder.write_all(&sent).expect("gzip");
    decoder.flush().expect("gzip");
    assert_eq!(decoder.get_ref(), b"the first row");
    // And its close is the end, without a gzip that looks whole.
    let end = Pin::new(&mut body).poll_frame(&mut context);
    assert!(matches!(end, Poll::Ready(Some(Err(BodyError::Closed)))));
    assert!(body.is_end_stream());
}

#[test]
fn a_client_takes_gzip_where_it_says_so_and_does_not_like_it_plain_better() {
    let is_taken = |values: &[&'static str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
        }
        is_taken(&headers)
    };
    for values in [
        &["gzip"][..],
        &["deflate, GZip"],
        &["br", "x-gzip;q=0.5"],
        &["gzip ; q=1.000, identity;q=0.2"],
        &["identity;q=0, gzip;Q=0.001"],
    ] {
        assert!(is_taken(values), "{values:?}");
    }
    for values in [
        &[][..],
        &["identity"],
        &["*"],
        &["gzip;q=0"],
        &["gzip;q=0.000, deflate"],
        &["gzip", "gzip;q=0"],
        &["gzip;q=0.4, identity"],
        &["gzip;q=2"],
        &["gzip;q=1.5"],
        &["gzip;q=0.0001"],
        &["gzip;q=x"],
        &["gzip;level=9"],
        &["gzipped"],
    ] {
        assert!(!is_taken(values), "{values:?}");
    }
}

#[test]
fn bigquery_is_told_that_gzip_is_understood_behind_what_the_client_is_called() {
    for (said, sent) in [
        (None, "enforcer (gzip)"),
        (Some("bq/2.1"), "bq/2.1 (gzip)"),
        (Some("python-client (gzip)"), "python-client (gzip)"),
    ] {
        let mut headers = HeaderMap::new();
        if let Some(said) = said {
            headers.insert(header::USER_AGENT, HeaderValue::from_static(said));
        }
        ask(&mut headers);
        assert_eq!(headers[header::ACCEPT_ENCODING], "gzip");
        assert_eq!(headers[header::USER_AGENT], sent);
    }
}

#[test]
fn only_what_is_long_enough_is_compressed() {
    let response = |bytes: usize| {
        let body = Full::new(Bytes::from(vec![b' '; bytes]));
        let body = body.map_err(|never: std::convert::Infallible| match never {});
        encoded(Response::new(body.boxed_unsync()))
    };
    let most = usize::try_from(PLAIN_BYTES_MAX).expect("small");
    assert!(response(most).headers().is_empty());
    let compressed = response(most + 1);
    assert_eq!(compressed.headers()[header::CONTENT_ENCODING], "gzip");
    assert_eq!(compressed.headers()[header::VARY], "accept-encoding");
    let read = gunzip(&all(compressed.into_body()).expect("a body"), 100);
    assert_eq!(read.expect("gzip").len(), most + 1);
}

//! Downloads captured between real cells; see `tests/vectors/PROVENANCE.md`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use locule_download::{
    DOWNLOADS, Download, DownloadError, NpzError, Offers, Outcome, Piece, read_npz, write_npz,
};
use locule_fobs::{Array, Map, Value, decode, encode};
use locule_message::{Fqcn, Headers, Message, Payload, ReturnCode, key};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use serde_json::Value as Json;

/// The payloads that belong to downloads, in order: requests of the server, and what site-1 replied.
fn download_of_two_arrays() -> Vec<Payload> {
    let file: Json = serde_json::from_str(include_str!("../../../tests/vectors/download.json")).unwrap();
    let frames = file["sequences"][0]["frames"].as_array().unwrap();
    let payloads = frames.iter().filter_map(|frame| {
        let bytes = unhex(frame["hex"].as_str()?);
        let headers_end = 16 + usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
        let headers = Headers::decode(bytes.slice(16..headers_end)).unwrap();
        let message = Message { headers, body: bytes.slice(headers_end..).into() };
        let about = |key| message.headers.str(key).unwrap_or_default().starts_with(DOWNLOADS);
        (message.headers.str(key::TOPIC) == Some("sm__DATA") && (about("sm__ch") || about("sm__tp")))
            .then(|| Payload::fobs(message.body.whole()))
    });
    payloads.take(5).collect()
}

fn unhex(text: &str) -> Bytes {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn a_real_source_is_asked_and_told_as_its_peer_did() {
    let [first, data, next, eof, confirmed] = download_of_two_arrays().try_into().unwrap();
    let ref_id = decode(first.body.whole()).unwrap().as_map().unwrap().str("ref_id").unwrap().to_owned();
    let mut download = Download::new(ref_id, 1 << 20);
    assert_eq!(download.request(), first);
    let Piece::Data(items) = download.accept(data).unwrap() else { panic!("data") };
    let arrays: Vec<_> = items.iter().map(|item| read_npz(item).unwrap()).collect();
    assert_eq!(arrays[0].0, "T0");
    assert_eq!(arrays[0].1.to_f64(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(arrays.len(), 2);
    let values = |payload: Payload| decode(payload.body.whole()).unwrap();
    assert_eq!(values(download.request()), values(next), "the order of the keys aside");
    let Piece::End { nonce: Some(nonce) } = download.accept(eof).unwrap() else { panic!("end") };
    assert_eq!(download.confirmation(&nonce, true), confirmed);
}

#[test]
fn a_source_serves_pieces_until_its_receivers_have_confirmed() {
    let (mut now, mut rng) = (Instant::now(), ChaCha20Rng::seed_from_u64(1));
    let mut offers = Offers::default();
    let items: Vec<Bytes> = [1 << 20, 1 << 20, 1, 3 << 20, 5].map(|len| Bytes::from(vec![7; len])).to_vec();
    let ref_id = offers.offer(now, &mut rng, items.clone(), 2, Duration::from_secs(60)).unwrap();
    for name in ["site-1", "site-2"] {
        let receiver: Fqcn = name.parse().unwrap();
        let mut download = Download::new(&ref_id, 1 << 30);
        let mut got = Vec::new();
        let nonce = loop {
            now += Duration::from_secs(59);
            let once = offers.answer(now, &mut rng, &receiver, download.request());
            let again = offers.answer(now, &mut rng, &receiver, download.request());
            assert_eq!(once.code, ReturnCode::Ok);
            match (download.clone().accept(once.payload).unwrap(), download.accept(again.payload).unwrap()) {
                (Piece::Data(once), Piece::Data(again)) => {
                    assert_eq!(once, again, "a piece asked for again is the same piece");
                    got.extend(again);
                }
                (_, end) => {
                    let Piece::End { nonce } = end else { panic!("end") };
                    break nonce.unwrap();
                }
            }
        };
        assert_eq!(got, items);
        assert_eq!(offers.poll_ended(), None);
        // a confirmation that does not know the secret does not count
        offers.answer(now, &mut rng, &receiver, download.confirmation("guess", true));
        offers.answer(now, &mut rng, &receiver, download.confirmation(&nonce, name == "site-1"));
    }
    let failed = ["site-2".parse().unwrap()].into();
    assert_eq!(offers.poll_ended(), Some((ref_id.clone(), Outcome::Settled { failed })));
    let late = offers.answer(now, &mut rng, &"site-1".parse().unwrap(), Download::new(&ref_id, 1).request());
    assert!(matches!(Download::new(ref_id, 1).accept(late.payload), Ok(Piece::End { nonce: None })));
}

#[test]
fn an_offer_that_nobody_asks_for_ends_and_an_unknown_one_is_refused() {
    let (now, mut rng) = (Instant::now(), ChaCha20Rng::seed_from_u64(1));
    let mut offers = Offers::default();
    let receiver = Fqcn::server();
    let ref_id = offers.offer(now, &mut rng, vec![], 1, Duration::from_secs(60)).unwrap();
    offers.handle_timeout(now + Duration::from_secs(60));
    assert_eq!(offers.poll_ended(), Some((ref_id.clone(), Outcome::Expired)));
    let gone = offers.answer(now, &mut rng, &receiver, Download::new(ref_id, 1).request());
    assert!(Download::new("gone", 1).accept(gone.payload).is_err());
    let unknown = offers.answer(now, &mut rng, &receiver, Download::new("unknown", 1).request());
    assert_eq!(unknown.code, ReturnCode::InvalidRequest);
    assert_eq!(offers.answer(now, &mut rng, &receiver, Payload::none()).code, ReturnCode::InvalidRequest);
}

#[test]
fn arrays_of_any_shape_come_through_their_zip() {
    for array in [
        Array::from_f64(&[], &[1.5]).unwrap(),
        Array::from_f32(&[0], &[]).unwrap(),
        Array::from_i64(&[2, 1, 3], &[1, 2, 3, 4, 5, 6]).unwrap(),
    ] {
        let item = write_npz("T3", &array).unwrap();
        assert_eq!(read_npz(&item).unwrap(), ("T3".to_owned(), array));
    }
    for cut in [0, 1, 20, 100] {
        let item = write_npz("T3", &Array::from_f64(&[1], &[1.0]).unwrap()).unwrap();
        assert!(read_npz(&item.slice(..cut)).is_err());
    }
}

#[test]
fn an_archive_that_claims_more_entries_than_one_is_not_opened() {
    let item = write_npz("T3", &Array::from_f64(&[1], &[1.0]).unwrap()).unwrap();
    assert!(read_npz(&item).is_ok());
    // how many entries there are, where the directory is, and that a comment follows
    for (at, byte) in [(8, 2), (10, 2), (11, 255), (12, 0), (16, 1), (20, 1)] {
        let mut other = item.to_vec();
        let end = other.len() - 22;
        other[end + at] = byte;
        assert!(matches!(read_npz(&other.into()), Err(NpzError::Content)), "{at}");
    }
    let mut further = item.to_vec();
    further.extend_from_slice(b"more");
    assert!(matches!(read_npz(&further.into()), Err(NpzError::Content)));
}

#[test]
fn more_than_the_limit_is_not_taken() {
    let (now, mut rng) = (Instant::now(), ChaCha20Rng::seed_from_u64(1));
    let mut offers = Offers::default();
    let ref_id =
        offers.offer(now, &mut rng, vec![Bytes::from(vec![0; 100])], 1, Duration::from_secs(60)).unwrap();
    let mut download = Download::new(ref_id, 99);
    let piece = offers.answer(now, &mut rng, &Fqcn::server(), download.request());
    assert!(download.accept(piece.payload).is_err());
}

#[test]
fn an_offer_that_nobody_fetched_makes_room_for_the_next() {
    let (now, mut rng) = (Instant::now(), ChaCha20Rng::seed_from_u64(1));
    let mut offers = Offers::default();
    let idle = Duration::from_secs(60);
    while offers.offer(now, &mut rng, vec![], 1, idle).is_some() {}
    assert!(offers.offer(now + idle, &mut rng, vec![], 1, idle).is_some());
}

#[test]
fn a_source_that_gives_nothing_is_given_up() {
    let reply = |data: Vec<Value>| {
        let mut reply = Map::from_iter([("status", "ok")]);
        reply.insert("state", Map::new());
        reply.insert("data", Value::List(data));
        Payload::fobs(encode(&Value::Map(reply)).unwrap())
    };
    let of = |byte: &'static [u8]| Value::Bytes(Bytes::from_static(byte));
    for nothing in [vec![], vec![of(b""); 3]] {
        let error = Download::new("r", 1 << 20).accept(reply(nothing)).unwrap_err();
        assert!(matches!(error, DownloadError::Malformed("data")), "{error}");
    }
    // many pieces cost more than their bytes
    let mut download = Download::new("r", 1 << 20);
    let mut taken = 0;
    while download.accept(reply(vec![of(b"x"); 100])).is_ok() {
        taken += 100;
    }
    assert!(taken < 20_000, "{taken}");
}

//! Headers on the wire, and messages seen through them.

use bytes::Bytes;
use locule_message::{
    Encoding, HeaderValue, Headers, HeadersError, Message, MessageKind, Payload, ReturnCode, ValueError, key,
};
use proptest::prelude::*;

/// Frames of a real peer; see `tests/vectors/PROVENANCE.md`.
const FRAMES: &str = include_str!("../../../tests/vectors/sfm_frames.json");

fn unhex(text: &str) -> Bytes {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

/// Every DATA frame of the vectors as (name, encoded headers, body, the headers as JSON).
fn golden() -> Vec<(String, Bytes, Bytes, serde_json::Value)> {
    let file: serde_json::Value = serde_json::from_str(FRAMES).expect("json");
    let vectors = file["vectors"].as_array().expect("array");
    let data = vectors.iter().filter(|vector| vector["prefix"]["type"] == "DATA");
    let cut = |vector: &serde_json::Value| {
        let frame = unhex(vector["hex"].as_str().expect("hex"));
        let body_at = 16 + usize::from(u16::from_be_bytes([frame[4], frame[5]]));
        let name = vector["name"].as_str().expect("name").to_owned();
        (name, frame.slice(16..body_at), frame.slice(body_at..), vector["headers"].clone())
    };
    let golden: Vec<_> = data.map(cut).collect();
    assert!(golden.len() > 20);
    golden
}

fn json(value: &HeaderValue<'_>) -> serde_json::Value {
    match value {
        HeaderValue::Nil => serde_json::Value::Null,
        HeaderValue::Bool(value) => (*value).into(),
        HeaderValue::Int(value) => (*value).into(),
        HeaderValue::UInt(value) => (*value).into(),
        HeaderValue::Float(value) => (*value).into(),
        HeaderValue::Str(text) => (**text).into(),
        HeaderValue::Bin(bytes) => bytes.to_vec().into(),
        HeaderValue::Array(items) => items.iter().map(json).collect(),
        HeaderValue::Map(entries) => serde_json::Value::Object(
            entries
                .iter()
                .map(|(key, value)| (key.as_str().expect("text").to_owned(), json(value)))
                .collect(),
        ),
    }
}

#[test]
fn headers_of_a_real_peer_are_read_and_written_back_byte_for_byte() {
    for (name, raw, _, expected) in golden() {
        let headers = Headers::decode(raw.clone()).expect(&name);
        // through text, since reading floats from text is where the vectors lost their last bit
        let read: serde_json::Value =
            serde_json::from_str(&json(&headers.to_value()).to_string()).expect("json");
        assert_eq!(read, expected, "{name}");
        assert_eq!(headers.encode().expect(&name), raw, "{name}");
        let mut rebuilt = Headers::new();
        headers.keys().for_each(|key| rebuilt.set(key, headers.get(key).expect(key)));
        assert_eq!(rebuilt.encode().expect(&name), raw, "{name}, each value decoded and encoded");
    }
}

#[test]
fn the_message_of_a_real_peer_is_understood() {
    let (_, raw, body, _) = golden().swap_remove(0);
    let message = Message { headers: Headers::decode(raw).expect("golden"), body: body.into() };
    assert_eq!(message.kind(), Some(MessageKind::Request));
    assert_eq!(message.origin().expect("origin"), "site-1");
    assert_eq!(message.destination().expect("destination"), "server");
    assert_eq!((message.channel(), message.topic()), ("task", "echo"));
    assert_eq!(message.req_ids(), ["d98a12ee-f248-4016-aa11-a0d015fca78b"]);
    assert!(message.reply_expected() && !message.secure() && !message.optional());
    assert_eq!(message.payload().encoding, Encoding::Fobs);
    assert_eq!(message.route().len(), 1);
    assert_eq!(message.headers.u64(key::PAYLOAD_LEN), Some(message.body.len() as u64));
}

#[test]
fn a_bounced_request_names_the_request_it_answers() {
    let (_, raw, body, _) = golden()
        .into_iter()
        .find(|(_, _, _, headers)| headers[key::MSG_TYPE] == "return")
        .expect("the vectors have a return");
    let message = Message { headers: Headers::decode(raw).expect("golden"), body: body.into() };
    assert_eq!(message.kind(), Some(MessageKind::Return));
    assert_eq!(message.return_code(), Some(ReturnCode::CommError));
    assert_eq!(message.error(), Some("cannot forward"));
    assert_eq!(message.req_ids().len(), 1);
    let original = message.headers.get(key::ORIGINAL_HEADERS).expect("original headers");
    assert_eq!(original.get(key::REQ_ID).and_then(HeaderValue::as_str), Some(&*message.req_ids()[0]));
}

#[test]
fn setting_one_header_leaves_the_others_untouched() {
    // 5 as a 64-bit integer, and a float of 32 bits: forms this crate would not write itself
    let raw = b"\x83\xa1a\xcf\0\0\0\0\0\0\0\x05\xa1b\xca\x3f\x80\0\0\xa1c\xc0";
    let mut headers = Headers::decode(Bytes::from_static(raw)).expect("valid");
    assert_eq!((headers.u64("a"), headers.f64("b")), (Some(5), Some(1.0)));
    headers.set("c", true);
    let mut expected = raw.to_vec();
    *expected.last_mut().expect("not empty") = 0xc3;
    assert_eq!(headers.encode().expect("small"), expected);
}

#[test]
fn a_header_keeps_its_place_when_set_again() {
    let mut headers = Headers::new();
    headers.set("a", "1");
    headers.set("b", "2");
    headers.set("a", vec!["x", "y"]);
    assert_eq!(headers.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(headers.strings("a"), Some(vec!["x".into(), "y".into()]));
    assert!(headers.remove("a") && !headers.remove("a"));
    assert_eq!(headers.len(), 1);
}

#[test]
fn headers_given_first_win_over_those_added() {
    let mut headers = Headers::new();
    headers.set("a", "mine");
    let mut other = Headers::new();
    other.set("a", "theirs");
    other.set("b", 7);
    headers.extend_missing(&other);
    assert_eq!((headers.str("a"), headers.u64("b")), (Some("mine"), Some(7)));
}

#[test]
fn a_key_may_not_be_there_twice() {
    let twice = Bytes::from_static(b"\x82\xa1a\x01\xa1a\x02");
    assert!(matches!(Headers::decode(twice), Err(HeadersError::RepeatedKey { .. })));
    let in_two_encodings = Bytes::from_static(b"\x82\xa1a\x01\xd9\x01a\x02");
    assert!(matches!(Headers::decode(in_two_encodings), Err(HeadersError::RepeatedKey { .. })));
    let text_and_bytes = Bytes::from_static(b"\x82\xa1a\x01\xc4\x01a\x02");
    assert_eq!(Headers::decode(text_and_bytes).expect("two keys").u64("a"), Some(1));
}

#[test]
fn malformed_headers_are_refused() {
    let check = |raw: &[u8], expected: HeadersError| {
        assert_eq!(Headers::decode(Bytes::copy_from_slice(raw)), Err(expected), "{raw:02x?}");
    };
    check(b"", ValueError::Truncated.into());
    check(b"\x90", HeadersError::NotAMap);
    check(b"\x80\x00", HeadersError::TrailingBytes { len: 1 });
    check(b"\x81\x01\x01", ValueError::InvalidKey.into());
    check(b"\x81\xa1a\x81\x01\x01", ValueError::InvalidKey.into());
    check(b"\x81\xa1a\xa2\xff\xff", ValueError::NotUtf8.into());
    check(b"\x81\xa1a\xc1", ValueError::Unsupported(0xc1).into());
    check(b"\x81\xa1a\xd4\x01\x01", ValueError::Unsupported(0xd4).into());
    check(b"\xdf\xff\xff\xff\xff", ValueError::Truncated.into());
    check(b"\x81\xa1a\xdd\xff\xff\xff\xff", ValueError::Truncated.into());
    check(b"\x81\xa1a\xc6\xff\xff\xff\xff", ValueError::Truncated.into());
    check(&[0x80; 65_536], HeadersError::TooLong { len: 65_536 });
}

#[test]
fn nesting_is_bounded() {
    let nested = |levels: usize| {
        let mut raw = b"\x81\xa1a".to_vec();
        raw.resize(raw.len() + levels - 1, 0x91);
        raw.push(0xc0);
        Headers::decode(raw.into())
    };
    let headers = nested(64).expect("64 levels, the outer map included");
    assert!(headers.get("a").is_some());
    assert_eq!(nested(65), Err(ValueError::TooDeep.into()));
    assert_eq!(nested(60_000), Err(ValueError::TooDeep.into()));
}

#[test]
fn headers_that_no_frame_can_carry_are_not_written() {
    let mut headers = Headers::new();
    headers.set("a", vec![0_u8; Headers::MAX_LEN - 1 - 2 - 3]);
    assert_eq!(headers.encode().expect("just fits").len(), Headers::MAX_LEN);
    headers.set("b", true);
    assert!(headers.encode().is_err());
}

#[test]
fn debug_does_not_show_values() {
    let mut headers = Headers::new();
    headers.set(key::TOKEN, "s3cret");
    assert_eq!(format!("{headers:?}"), r#"Headers{"__token__"}"#);
}

#[test]
fn a_payload_brings_its_encoding_and_length() {
    let message = Message::new(Headers::new(), Payload::bytes(Bytes::from_static(b"abc")));
    assert_eq!(message.headers.str(key::PAYLOAD_ENCODING), Some("bytes"));
    assert_eq!(message.headers.u64(key::PAYLOAD_LEN), Some(3));
    assert_eq!(message.payload(), Payload::bytes(Bytes::from_static(b"abc")));
}

#[test]
fn an_absent_or_unknown_encoding_means_plain_bytes() {
    let mut message = Message { headers: Headers::new(), body: Bytes::from_static(b"zz").into() };
    assert_eq!(message.payload().encoding, Encoding::Bytes);
    message.headers.set(key::PAYLOAD_ENCODING, "pickle");
    assert_eq!(message.payload().encoding, Encoding::Bytes);
}

#[test]
fn a_name_with_white_space_around_it_is_no_address() {
    let mut message = Message::default();
    message.headers.set(key::ORIGIN, " site-1");
    assert_eq!(message.origin(), None);
}

#[test]
fn an_unknown_return_code_is_no_success() {
    let mut message = Message::default();
    assert_eq!(message.return_code(), None);
    message.headers.set(key::RETURN_CODE, "splendid");
    assert_eq!(message.return_code(), Some(ReturnCode::ProcessException));
    message.headers.set(key::RETURN_CODE, 0);
    assert_eq!(message.return_code(), Some(ReturnCode::ProcessException));
}

#[test]
fn every_return_code_is_read_back() {
    for code in ReturnCode::ALL {
        assert_eq!(ReturnCode::parse(code.as_str()), Ok(code));
    }
    assert!(ReturnCode::parse("OK").is_err());
}

fn value() -> impl Strategy<Value = HeaderValue<'static>> {
    let leaf = prop_oneof![
        Just(HeaderValue::Nil),
        any::<bool>().prop_map(HeaderValue::from),
        any::<i64>().prop_map(HeaderValue::from),
        any::<u64>().prop_map(HeaderValue::from),
        any::<f64>().prop_map(HeaderValue::from),
        ".{0,40}".prop_map(HeaderValue::from),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(HeaderValue::from),
    ];
    leaf.prop_recursive(4, 64, 20, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..20).prop_map(HeaderValue::Array),
            prop::collection::vec((".{0,8}".prop_map(HeaderValue::from), inner), 0..20)
                .prop_map(HeaderValue::Map),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_set_is_read_back(values in prop::collection::vec(value(), 0..20)) {
        let mut headers = Headers::new();
        for (index, value) in values.iter().enumerate() {
            headers.set(&format!("key {index}"), value.clone());
        }
        if let Ok(raw) = headers.encode() {
            let read = Headers::decode(raw).expect("own encoding");
            for (index, value) in values.iter().enumerate() {
                let key = format!("key {index}");
                prop_assert_eq!(read.get(&key), Some(value.clone()));
            }
            prop_assert_eq!(read, headers);
        }
    }

    #[test]
    fn decoding_never_panics_and_what_it_accepts_it_gives_back(
        which in 0..20_usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        shorten in any::<bool>(),
    ) {
        let (_, raw, ..) = golden().swap_remove(which);
        let mut raw = raw.to_vec();
        for (at, byte) in edits {
            let at = at.index(raw.len());
            raw[at] = byte;
        }
        if shorten {
            raw.truncate(cut.index(raw.len()));
        }
        if let Ok(headers) = Headers::decode(raw.into()) {
            let again = Headers::decode(headers.encode().expect("no larger than it was")).expect("own encoding");
            prop_assert_eq!(&again, &headers);
            let message = Message { headers, body: Bytes::new().into() };
            let _ = (message.kind(), message.origin(), message.route(), message.return_code());
        }
    }
}

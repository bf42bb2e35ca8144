//! What an enemy may send: it is refused, quickly, and nothing panics.

use std::time::{Duration, Instant};

use bytes::Bytes;
use locule_fobs::{
    Array, ArrayRef, Class, Datum, DatumKind, DecodeError, DownloadSource, EncodeError, EncodeOptions,
    Limits, Map, Object, RefKind, Shareable, Value, decode, decode_with, encode, encode_with,
};

const MB: usize = 1_000_000;

fn section(marker: u8, dot: u8, body: &[u8]) -> Vec<u8> {
    [[marker, dot].as_slice(), &(body.len() as u64).to_be_bytes(), body].concat()
}

fn main_section(body: &[u8]) -> Bytes {
    section(100, 0, body).into()
}

#[track_caller]
fn check(body: &[u8], expected: DecodeError) {
    assert_eq!(decode(main_section(body)), Err(expected));
}

#[track_caller]
fn check_payload(payload: &[u8], expected: DecodeError) {
    assert_eq!(decode(Bytes::copy_from_slice(payload)), Err(expected));
}

#[track_caller]
fn refused_at_once(body: &[u8]) -> DecodeError {
    let payload = main_section(body);
    let start = Instant::now();
    let error = decode(payload).expect_err("it must be refused");
    // Some 20 ms in a release build; this only tells a refusal from building it all first.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    error
}

#[test]
fn fifty_megabytes_of_empty_maps_are_refused_before_they_are_built() {
    let mut one_array = vec![0x80; 50 * MB];
    one_array[..5].copy_from_slice(&[0xdd, 0x02, 0xfa, 0xf0, 0x7b]);
    assert!(matches!(refused_at_once(&one_array), DecodeError::TooManyValues(_)));

    let mut many_arrays = vec![0xdd, 0, 0, 0xc3, 0x50];
    for _ in 0..50_000 {
        many_arrays.extend([0xdc, 0x03, 0xe5]);
        many_arrays.extend([0x80; 997]);
    }
    assert!(matches!(refused_at_once(&many_arrays), DecodeError::TooManyValues(_)));
}

#[test]
fn nesting_200_000_deep_is_refused() {
    for opening in [[0x91].as_slice(), &[0x81, 0xc0], &[0xdd, 0, 0, 0, 1]] {
        assert_eq!(refused_at_once(&opening.repeat(200_000)), DecodeError::TooDeep(64));
    }
    let tuple = [&[0x82, 0xad], b"__fobs_type__\xa5tuple\xad__fobs_data__\x91".as_slice()].concat();
    assert_eq!(refused_at_once(&tuple.repeat(200_000)), DecodeError::TooDeep(64));
}

#[test]
fn depth_64_passes_and_65_does_not() {
    let nested = |depth| (0..depth - 1).fold(Value::List(vec![]), |inner, _| Value::List(vec![inner]));
    let payload = encode(&nested(64)).unwrap();
    assert_eq!(decode(payload), Ok(nested(64)));
    assert_eq!(encode(&nested(65)), Err(EncodeError::TooDeep(64)));
    let body = [[0x91; 64].as_slice(), &[0x90]].concat();
    check(&body, DecodeError::TooDeep(64));
    let deeper = Limits { depth: usize::MAX, ..Limits::default() };
    let body = [[0x91; 200].as_slice(), &[0x90]].concat();
    assert_eq!(decode_with(main_section(&body), &deeper), Err(DecodeError::TooDeep(128)));
}

#[test]
fn a_length_without_bytes_behind_it_costs_nothing() {
    for marker in [0xc6, 0xdb, 0xdd, 0xdf] {
        let error = refused_at_once(&[marker, 0xff, 0xff, 0xff, 0xff]);
        assert!(matches!(error, DecodeError::Truncated(_) | DecodeError::TooManyValues(_)), "{error}");
    }
    let mut section = vec![100, 0];
    section.extend(u64::MAX.to_be_bytes());
    section.push(0xc0);
    check_payload(&section, DecodeError::Truncated(11));
}

#[test]
fn a_stranger_gets_less() {
    let list = Value::List(vec![Value::Int(1); 20_000]);
    let payload = encode(&list).unwrap();
    assert!(decode(payload.clone()).is_ok());
    assert!(matches!(decode_with(payload, &Limits::STRANGER), Err(DecodeError::TooManyValues(_))));
    // Four times 160 KiB, for as many values as it will buy.
    let most = 4096 + 160 * 1024 / 24;
    assert!(most * size_of::<Value>() <= 4 * 160 * 1024, "{}", size_of::<Value>());
}

#[test]
fn a_long_list_of_floats_is_no_attack() {
    let list = Value::List(vec![Value::Float(0.5); 1_000_000]);
    assert_eq!(decode(encode(&list).unwrap()), Ok(list));
}

#[test]
fn a_text_referred_to_again_and_again_does_not_multiply() {
    let text = "x".repeat(100_000);
    let id = [0xab; 16];
    let reference = |id: &str| {
        let ref_data =
            [b"\x81\xa4data\x82\xa8datum_id\xd9\x24".as_slice(), id.as_bytes(), b"\xa6unwrap\xc3"].concat();
        let class = "nvflare.fuel.utils.fobs.datum.DatumRef";
        let head = [b"\x82\xad__fobs_type__\xd9".as_slice(), &[class.len() as u8], class.as_bytes()].concat();
        [head, b"\xad__fobs_data__".to_vec(), ref_data].concat()
    };
    let reference = reference("abababab-abab-abab-abab-abababababab");
    let payload = |count: u16| {
        let body = [[0xdc].as_slice(), &count.to_be_bytes(), &reference.repeat(count.into())].concat();
        let mut payload = section(100, 0, &body);
        payload.extend(section(101, 0, &[id.as_slice(), text.as_bytes()].concat()));
        Bytes::from(payload)
    };
    assert_eq!(decode(payload(1)), Ok(Value::List(vec![Value::Str(text.clone())])));
    assert_eq!(decode(payload(1000)), Err(DecodeError::Multiplied));

    let missing = [[0x91].as_slice(), &reference].concat();
    check(&missing, DecodeError::MissingDatum("abababab-abab-abab-abab-abababababab".into()));
}

#[test]
fn a_flood_of_small_datums_is_refused() {
    let mut payload = section(100, 0, &[0xc0]);
    for n in 0..100_000u128 {
        payload.extend(section(102, 0, &[n.to_be_bytes().as_slice(), &[1]].concat()));
    }
    assert!(matches!(decode(payload.into()), Err(DecodeError::TooManyValues(_))));
}

#[test]
fn sections_that_are_not_in_order_are_refused() {
    check_payload(&[], DecodeError::Truncated(0));
    check_payload(&[100, 0, 0], DecodeError::Truncated(3));
    check_payload(&section(100, 0, &[]), DecodeError::EmptySection(0));
    check_payload(&section(102, 0, &[0; 17]), DecodeError::Marker { marker: 102, at: 0 });
    check_payload(&section(100, 3, &[0xc0]), DecodeError::DatumType(3));
    let behind = |datum: Vec<u8>| [section(100, 0, &[0xc0]), datum].concat();
    check_payload(&behind(section(100, 0, &[0xc0])), DecodeError::Marker { marker: 100, at: 11 });
    check_payload(&behind(section(102, 0, &[0; 16])), DecodeError::EmptySection(11));
    check_payload(&behind(section(102, 0, &[0; 3])), DecodeError::EmptySection(11));
    check_payload(&behind(section(102, 1, &[0; 17])), DecodeError::DatumType(1));
    check_payload(&behind(section(102, 3, &[0; 17])), DecodeError::DatumType(3));
    check_payload(&behind(section(101, 0, &[0xff; 17])), DecodeError::Utf8(16));
    check_payload(&behind(section(101, 3, &[b'x'; 17])), DecodeError::Source("not JSON"));
    check_payload(&behind(section(102, 0, &[0; 17]).repeat(2)), DecodeError::RepeatedDatum(38));
    check_payload(&behind(vec![1]), DecodeError::Truncated(12));
}

#[test]
fn values_that_are_not_in_order_are_refused() {
    check(&[0xc0, 0xc0], DecodeError::TrailingBytes(1));
    check(&[0xc1], DecodeError::Msgpack { marker: 0xc1, at: 0 });
    check(&[0x91, 0xd4, 1, 1], DecodeError::Msgpack { marker: 0xd4, at: 1 });
    check(&[0xa2, b'a', 0xff], DecodeError::Utf8(2));
    check(&[0x92, 0xc0], DecodeError::Truncated(2));
    check(&[0x81, 0x90, 0xc0], DecodeError::Key("list"));
    check(&[0x82, 0xa1, b'k', 1, 0xa1, b'k', 2], DecodeError::RepeatedKey("k".into()));
    check(&[0x82, 7, 1, 0xcc, 7, 2], DecodeError::RepeatedKey("Int(7)".into()));
}

#[test]
fn a_class_outside_of_the_closed_set_is_refused_and_shown_harmlessly() {
    let object = |class: &str| {
        let class = [[0xda].as_slice(), &(class.len() as u16).to_be_bytes(), class.as_bytes()].concat();
        [b"\x82\xad__fobs_type__".as_slice(), &class, b"\xad__fobs_data__\xc0"].concat()
    };
    check(&object("os.system"), DecodeError::UnknownClass("os.system".into()));
    check(&object("a\nb\x1b[31m"), DecodeError::UnknownClass("a\\nb\\u{1b}[31m".into()));
    let long = "x".repeat(10_000);
    check(&object(&long), DecodeError::UnknownClass(format!("{}…", "x".repeat(100))));
    // The type counts wherever it stands in the map, as it does for Python.
    let last = b"\x82\xad__fobs_data__\xc0\xad__fobs_type__\xa9os.system";
    check(last, DecodeError::UnknownClass("os.system".into()));
}

#[test]
fn data_that_do_not_fit_their_class_are_refused() {
    let object = |class: &str, data: &[u8]| {
        let class = [[0xd9, class.len() as u8].as_slice(), class.as_bytes()].concat();
        [b"\x82\xad__fobs_type__".as_slice(), &class, b"\xad__fobs_data__", data].concat()
    };
    for (class, data) in [
        ("tuple", [0x80].as_slice()),
        ("set", &[0x01]),
        ("set", &[0x91, 0x90]),
        ("collections.OrderedDict", &[0x91, 0x91, 1]),
        ("datetime.datetime", &[1]),
        ("numpy.int32", &[0xce, 0xff, 0xff, 0xff, 0xff]),
        ("numpy.float32", &[0xa1, b'1']),
        ("numpy.ndarray", &[0x80]),
        ("torch.Tensor", &[0xc0]),
        ("nvflare.apis.shareable.Shareable", &[0x90]),
        ("nvflare.apis.shareable.Shareable", b"\x81\xab__headers__\x01"),
        ("nvflare.apis.dxo.DXO", &[0x91, 1]),
        ("nvflare.apis.dxo.DataKind", &[1]),
        ("nvflare.apis.fl_context.FLContext", &[0x91, 1]),
        ("nvflare.private.admin_defs.Message", &[0x90]),
        ("nvflare.fuel.utils.fobs.datum.DatumRef", &[0x80]),
        ("nvflare.fuel.utils.fobs.decomposers.via_downloader.LazyDownloadRef", &[0x80]),
    ] {
        let refused = decode(main_section(&object(class, data)));
        assert!(
            matches!(refused, Err(DecodeError::Shape { .. } | DecodeError::Key(_))),
            "{class} {data:?}: {refused:?}"
        );
    }
}

#[test]
fn values_that_no_receiver_accepts_are_not_encoded() {
    let reserved = Map::from_iter([("__fobs_type__", "os.system")]);
    assert_eq!(encode(&Value::Map(reserved.clone())), Err(EncodeError::ReservedKey));
    let shareable = Shareable { headers: reserved, fields: Map::new() };
    assert_eq!(encode(&Value::from(shareable)), Err(EncodeError::ReservedKey));
    let mut unhashable = Map::new();
    unhashable.insert_value(Value::List(vec![]), 1i64);
    assert_eq!(encode(&Value::Map(unhashable)), Err(EncodeError::Key("list")));
    assert_eq!(encode(&Value::Set(vec![Value::Map(Map::new())])), Err(EncodeError::Key("map")));
    let no_enum = Value::Enum { class: Class::CLIENT, member: "A".into() };
    assert_eq!(encode(&no_enum), Err(EncodeError::Class("nvflare.apis.client.Client")));
    let no_object = Object::new(Class::DATA_KIND, "WEIGHTS");
    assert_eq!(encode(&no_object.into()), Err(EncodeError::Class("nvflare.apis.dxo.DataKind")));
    let wrong_form = Object::new(Class::FL_MODEL, vec![1i64]);
    assert!(matches!(encode(&wrong_form.into()), Err(EncodeError::Shape { .. })));
    let empty = Datum { kind: DatumKind::Blob, value: Bytes::new() };
    assert_eq!(encode(&empty.into()), Err(EncodeError::EmptyDatum));
    let reference = |ref_id: &str| {
        let source = DownloadSource { fqcn: "site-1".into(), ref_id: ref_id.into() };
        Value::ArrayRef(ArrayRef {
            kind: RefKind::Numpy,
            item: "T0".into(),
            source: source.into(),
            passed_on: false,
        })
    };
    let mixed = Value::List(vec![reference("1"), reference("2")]);
    assert_eq!(encode(&mixed), Err(EncodeError::MixedSources));
}

#[test]
fn large_values_travel_in_sections_of_their_own_from_ten_mebibytes_on() {
    const MIB: usize = 1024 * 1024;
    for (value, sections) in [
        (Value::Bytes(vec![7; 10 * MIB - 1].into()), 1),
        (Value::Bytes(vec![7; 10 * MIB].into()), 2),
        (Value::Str("x".repeat(10 * MIB)), 2),
        // The threshold counts characters, and these are half as many.
        (Value::Str("é".repeat(5 * MIB)), 1),
        (Value::Array(Array::from_f32(&[10 * MIB / 4 - 32], &vec![1.0; 10 * MIB / 4 - 32]).unwrap()), 2),
        (Value::Tuple(vec![Value::Bytes(vec![7; 10 * MIB].into()); 2]), 3),
    ] {
        let payload = encode(&value).unwrap();
        assert_eq!(count_sections(&payload), sections);
        assert_eq!(decode(payload), Ok(value));
    }
}

fn count_sections(mut payload: &[u8]) -> usize {
    let mut count = 0;
    while let Some((header, rest)) = payload.split_first_chunk::<10>() {
        let size = u64::from_be_bytes(header[2..].try_into().expect("eight bytes"));
        payload = &rest[size as usize..];
        count += 1;
    }
    count
}

#[test]
fn a_payload_is_the_same_each_time() {
    let value = Value::List(vec![Value::Bytes(vec![1; 5000].into()), Value::Str("t".repeat(5000))]);
    let options = EncodeOptions::default().datum_threshold(0);
    assert_eq!(encode_with(&value, &options), encode_with(&value, &options));
}

#[test]
fn a_datum_that_an_application_placed_stays_one() {
    for kind in [DatumKind::Text, DatumKind::Blob, DatumKind::File] {
        let value = Value::List(vec![Datum { kind, value: Bytes::from_static(b"small") }.into()]);
        assert_eq!(decode(encode(&value).unwrap()), Ok(value));
    }
}

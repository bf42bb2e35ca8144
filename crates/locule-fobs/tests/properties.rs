//! What holds for any value, and for any payload, however damaged.

use std::sync::Arc;

use bytes::Bytes;
use locule_fobs::{
    Array, ArrayRef, Class, DataKind, Datum, DatumKind, DownloadSource, Dtype, Dxo, EncodeOptions, Map,
    Object, PeerContext, Prop, RefKind, Scalar, Shareable, Value, decode, encode, encode_parts, encode_with,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn key() -> impl Strategy<Value = Value> {
    let enums = Just(Value::Enum { class: Class::JOB_META_KEY, member: "JOB_CLIENTS".into() });
    let leaf = prop_oneof![
        4 => "[a-z_é]{0,6}".prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::Int),
        1 => enums,
        1 => vec(any::<u8>(), 0..4).prop_map(|bytes| Value::Bytes(bytes.into())),
        1 => Just(Value::None),
    ];
    leaf.prop_recursive(1, 4, 3, |inner| vec(inner, 0..3).prop_map(Value::Tuple))
}

fn array() -> impl Strategy<Value = Array> {
    let dtypes = [
        Dtype::Bool,
        Dtype::I8,
        Dtype::I16,
        Dtype::I32,
        Dtype::I64,
        Dtype::U8,
        Dtype::U16,
        Dtype::U32,
        Dtype::U64,
        Dtype::F16,
        Dtype::F32,
        Dtype::F64,
    ];
    (proptest::sample::select(dtypes.to_vec()), vec(0usize..5, 0..4), any::<u8>()).prop_map(
        |(dtype, shape, byte)| {
            let len = shape.iter().product::<usize>() * dtype.size();
            let data: Vec<u8> = (0..len).map(|at| byte.wrapping_add(at as u8)).collect();
            Array::new(dtype, shape, data.into()).expect("the length fits")
        },
    )
}

fn leaf() -> impl Strategy<Value = Value> {
    let source = Arc::new(DownloadSource { fqcn: "site-1".into(), ref_id: "ü\"\\".into() });
    prop_oneof![
        Just(Value::None),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::Float),
        ".{0,40}".prop_map(Value::from),
        "[a-z]{1000,1100}".prop_map(Value::from),
        vec(any::<u8>(), 0..2000).prop_map(|bytes| Value::Bytes(bytes.into())),
        any::<u8>().prop_map(|byte| Value::Bytes(vec![byte; 20_000].into())),
        "[0-9T:-]{0,20}".prop_map(Value::Datetime),
        Just(Value::Enum { class: Class::PARAMS_TYPE, member: "FULL".into() }),
        array().prop_map(Value::Array),
        any::<i32>().prop_map(|number| Value::Scalar(Scalar::I32(number))),
        any::<f32>().prop_map(|number| Value::Scalar(Scalar::F32(number))),
        "T[0-9]".prop_map(move |item| {
            Value::ArrayRef(ArrayRef { kind: RefKind::Numpy, item, source: source.clone(), passed_on: false })
        }),
        Just(Value::Datum(Datum { kind: DatumKind::File, value: Bytes::from_static(b"file") })),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(4, 48, 6, |inner| {
        let map = || vec((key(), inner.clone()), 0..6).prop_map(Map::from_iter);
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::List),
            vec(inner.clone(), 0..6).prop_map(Value::Tuple),
            map().prop_map(Value::Map),
            vec((key(), inner.clone()), 0..4).prop_map(Value::OrderedDict),
            vec(key(), 0..4).prop_map(Value::Set),
            (map(), map()).prop_map(|(headers, fields)| Value::Shareable(Shareable { headers, fields })),
            (map(), map()).prop_map(|(data, meta)| Value::Dxo(Dxo { kind: DataKind::Metrics, data, meta })),
            vec(("[a-z]{1,5}", inner.clone(), any::<bool>(), any::<bool>()), 0..1).prop_map(|props| {
                let prop = |(name, value, sticky, private)| (name, Prop { value, sticky, private });
                Value::Context(PeerContext { props: props.into_iter().map(prop).collect() })
            }),
            map().prop_map(|map| Value::Object(Object::with_attributes(Class::NAMESPACE, map))),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same(value in value()) {
        prop_assert_eq!(decode(encode(&value).unwrap()).unwrap(), value.clone());
        let small = EncodeOptions::default().datum_threshold(1024);
        prop_assert_eq!(decode(encode_with(&value, &small).unwrap()).unwrap(), value.clone());
        for options in [EncodeOptions::default(), small] {
            let parts = encode_parts(&value, &options).unwrap();
            let whole = encode_with(&value, &options).unwrap();
            prop_assert_eq!(parts.len(), whole.len());
            prop_assert_eq!(parts.into_pieces().concat(), whole);
        }
    }

    #[test]
    fn any_bytes_decode_or_are_refused(bytes in vec(any::<u8>(), 0..300)) {
        let _ = decode(bytes.clone().into());
        let mut body = vec![100, 0];
        body.extend((bytes.len() as u64).to_be_bytes());
        body.extend(bytes);
        let _ = decode(body.into());
    }

    #[test]
    fn a_damaged_payload_is_refused_or_is_a_payload(
        which in any::<prop::sample::Index>(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let vectors = vectors();
        let mut payload = which.get(vectors).clone();
        for (at, byte) in &damage {
            let at = at.index(payload.len());
            payload[at] = *byte;
        }
        if let Some(cut) = cut {
            payload.truncate(cut.index(payload.len()));
        }
        if let Ok(value) = decode(payload.into()) {
            let again = decode(encode(&value).unwrap()).unwrap();
            prop_assert_eq!(format!("{again:?}"), format!("{value:?}"));
        }
    }

    #[test]
    fn npy_files_come_back_as_they_were(array in array()) {
        let file = array.to_npy();
        prop_assert_eq!((file.len() - array.bytes().len()) % 64, 0);
        prop_assert_eq!(Array::from_npy(file).unwrap(), array);
    }

    #[test]
    fn a_damaged_npy_header_does_not_panic(array in array(), at in 0usize..128, byte in any::<u8>()) {
        let mut file = array.to_npy().to_vec();
        file[at] = byte;
        if let Ok(array) = Array::from_npy(file.into()) {
            prop_assert_eq!(array.to_f64().len(), array.len());
        }
    }
}

fn vectors() -> &'static [Vec<u8>] {
    static VECTORS: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
    VECTORS.get_or_init(|| {
        let text = include_str!("../../../tests/vectors/fobs.json");
        let file: serde_json::Value = serde_json::from_str(text).expect("the vectors are JSON");
        let hex =
            file["vectors"].as_array().expect("a list").iter().filter_map(|vector| vector["hex"].as_str());
        let digit = |c: &u8| char::from(*c).to_digit(16).expect("hex") as u8;
        let short = hex.filter(|hex| hex.len() < 8000);
        short
            .map(|hex| hex.as_bytes().chunks(2).map(|pair| digit(&pair[0]) << 4 | digit(&pair[1])).collect())
            .collect()
    })
}

#[test]
fn elements_of_every_dtype_are_read() {
    let array =
        |dtype, bytes: &[u8]| Array::new(dtype, vec![1], Bytes::copy_from_slice(bytes)).unwrap().to_f64()[0];
    assert_eq!(array(Dtype::Bool, &[1]), 1.0);
    assert_eq!(array(Dtype::I8, &[0xff]), -1.0);
    assert_eq!(array(Dtype::U8, &[0xff]), 255.0);
    assert_eq!(array(Dtype::I16, &[0xfe, 0xff]), -2.0);
    assert_eq!(array(Dtype::U16, &[0xfe, 0xff]), 65534.0);
    assert_eq!(array(Dtype::I32, &(-3i32).to_le_bytes()), -3.0);
    assert_eq!(array(Dtype::U32, &u32::MAX.to_le_bytes()), 4294967295.0);
    assert_eq!(array(Dtype::I64, &(-4i64).to_le_bytes()), -4.0);
    assert_eq!(array(Dtype::U64, &(1u64 << 63).to_le_bytes()), 9223372036854775808.0);
    assert_eq!(array(Dtype::F32, &0.5f32.to_le_bytes()), 0.5);
    assert_eq!(array(Dtype::F64, &0.1f64.to_le_bytes()), 0.1);
    for (bits, expected) in [
        (0x0001u16, 2f64.powi(-24)),
        (0x03ff, 1023.0 * 2f64.powi(-24)),
        (0x0400, 2f64.powi(-14)),
        (0x3555, 0.333251953125),
        (0x7bff, 65504.0),
        (0xc000, -2.0),
        (0x7c00, f64::INFINITY),
        (0xfc00, f64::NEG_INFINITY),
    ] {
        assert_eq!(array(Dtype::F16, &bits.to_le_bytes()), expected, "{bits:#06x}");
    }
    assert!(array(Dtype::F16, &[0x01, 0x7c]).is_nan());
}

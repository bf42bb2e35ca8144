//! The filters against what nvflare's make of the same models, and against what any input may hold.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use locule_component::{
    BuildCx, BuildError, Built, Chain, ConstructionCount, Context, Direction, FilterCx, FilterError,
    Registry, RunContext, Side, TaskFilter,
};
use locule_filter::{GaussianNoise, Positive, Scale, SvtPrivacy, SvtPrivacyArgs};
use locule_fobs::{Array, DataKind, Dtype, Dxo, Map, Scalar, Shareable, Value};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value as Json, json};

fn build(name: &str, args: &Json) -> Result<Box<dyn TaskFilter>, BuildError> {
    let mut registry = Registry::new();
    locule_filter::register(&mut registry);
    let (kit, count) = (Path::new("kit"), ConstructionCount::new());
    let cx = BuildCx::new(Side::Site, "site-1", "job", kit, kit, &count);
    let built = registry.build(name, args.clone(), &cx)?;
    let Built::Filter(filter) = built else { panic!("{name} is no filter") };
    Ok(filter)
}

fn filter(name: &str, args: &Json) -> Box<dyn TaskFilter> {
    build(&format!("locule.filter.{name}"), args).unwrap()
}

fn apply(filter: &mut dyn TaskFilter, data: Shareable) -> Result<Shareable, FilterError> {
    let context: Context = RunContext::new("site-1", "job").open();
    let (chain, direction) = (Chain::TaskResult, Direction::Out);
    filter.apply(
        data,
        &FilterCx { site: "site-1", job_id: "job", task: "train", chain, direction, context: &context },
    )
}

fn apply_to(filter: &mut dyn TaskFilter, data: Map) -> Result<Map, FilterError> {
    let result = apply(filter, Shareable::with_dxo(Dxo::new(DataKind::WeightDiff, data)))?;
    Ok(result.dxo().unwrap().unwrap().data)
}

fn f64s(map: &Map, name: &str) -> Vec<f64> {
    map.get(name).unwrap().as_array().unwrap().to_f64()
}

// ---- against nvflare ----

fn value_of(json: &Json) -> Value {
    if json.get("kind").is_some() {
        return Value::Dxo(dxo_of(json));
    }
    let elements: Vec<f64> =
        json["elements"].as_array().unwrap().iter().map(|x| x.as_str().unwrap().parse().unwrap()).collect();
    let narrow: Vec<f32> = elements.iter().map(|x| *x as f32).collect();
    let shape = json["shape"].as_array().unwrap();
    let shape: Vec<usize> = shape.iter().map(|n| n.as_u64().unwrap() as usize).collect();
    let array = match json["dtype"].as_str().unwrap() {
        "float32" => Array::from_f32(&shape, &narrow),
        "float64" => Array::from_f64(&shape, &elements),
        "int64" => Array::from_i64(&shape, &elements.iter().map(|x| *x as i64).collect::<Vec<_>>()),
        other => panic!("{other}"),
    };
    Value::Array(array.unwrap())
}

fn dxo_of(json: &Json) -> Dxo {
    let entries = json["data"].as_object().unwrap().iter();
    let data = entries.map(|(key, value)| (key.as_str(), value_of(value))).collect();
    let meta = Value::from(&json["meta"]).as_map().unwrap().clone();
    Dxo { kind: DataKind::parse(json["kind"].as_str().unwrap()).unwrap(), data, meta }
}

fn vectors() -> Vec<Json> {
    serde_json::from_str(include_str!("nvflare.json")).unwrap()
}

fn run(case: &Json) -> Dxo {
    let name = case["filter"].as_str().unwrap();
    let module = match name {
        "ExcludeVars" => "exclude_vars",
        "PercentilePrivacy" => "percentile_privacy",
        _ => "svt_privacy",
    };
    let mut filter = build(&format!("nvflare.app_common.filters.{module}.{name}"), &case["args"]).unwrap();
    let mut data = Shareable::with_dxo(dxo_of(&case["before"]));
    if case["rc"] != "OK" {
        data.set_return_code(case["rc"].as_str().unwrap());
    }
    apply(&mut *filter, data).unwrap().dxo().unwrap().unwrap()
}

#[test]
fn models_come_out_as_from_nvflare_bit_by_bit() {
    let cases: Vec<Json> = vectors().into_iter().filter(|case| case["filter"] != "SVTPrivacy").collect();
    assert!(cases.len() > 20);
    for case in cases {
        assert_eq!(run(&case), dxo_of(&case["after"]), "{} {}", case["filter"], case["args"]);
    }
}

#[test]
fn svt_privacy_shares_as_much_and_accounts_as_nvflare_does() {
    for case in vectors().into_iter().filter(|case| case["filter"] == "SVTPrivacy") {
        let (ours, theirs) = (run(&case), dxo_of(&case["after"]));
        for part in ["svt_privacy_budget", "svt_privacy_accountant"] {
            let (ours, theirs) = (ours.meta.map(part).unwrap(), theirs.meta.map(part).unwrap());
            for (key, value) in theirs.iter_str().filter(|(key, _)| *key != "acceptance_passes") {
                let same = match (ours.float(key), value.as_f64()) {
                    (Some(a), Some(b)) => (a - b).abs() <= 1e-12 * b.abs(),
                    _ => ours.get(key) == Some(value),
                };
                assert!(same, "{part}.{key}: {:?} and {value:?}", ours.get(key));
            }
        }
        let order = |dxo: &Dxo| dxo.data.iter_str().map(|(key, _)| key.to_owned()).collect::<Vec<_>>();
        assert_eq!(order(&ours), order(&theirs));
        let shared = |dxo: &Dxo| {
            let all = dxo.data.iter().flat_map(|(_, value)| value.as_array().unwrap().to_f64());
            all.filter(|x| *x != 0.0).count() as i64
        };
        let most = theirs.meta.map("svt_privacy_budget").unwrap().int("n_upload").unwrap();
        let replace = case["args"]["replace"] != false;
        assert!(shared(&ours) == most || (replace && (1..most).contains(&shared(&ours))), "{}", case["args"]);
    }
}

// ---- what passes, and what does not ----

fn weights() -> Map {
    let deep = Array::from_f32(&[2, 2], &[1.0, -2.0, 3.0, -4.0]).unwrap();
    Map::from_iter([("head", Value::from(Array::from(&[6.0, 8.0][..]))), ("body", deep.into())])
}

type Example = (&'static str, fn() -> Json);

const EVERY: [Example; 5] = [
    ("ExcludeVars", || json!({ "exclude_vars": ["head"] })),
    ("PercentilePrivacy", || json!({})),
    ("SvtPrivacy", || json!({})),
    ("ClipNorm", || json!({ "max_norm": 1.0 })),
    ("GaussianNoise", || json!({ "sigma": 1.0 })),
];

#[test]
fn other_kinds_and_replies_that_did_not_go_well_pass_as_they_are() {
    let mut failed = Shareable::with_dxo(Dxo::new(DataKind::Weights, weights()));
    failed.set_return_code("EXECUTION_EXCEPTION");
    let metrics = Shareable::with_dxo(Dxo::new(DataKind::Metrics, weights()));
    let nothing = Shareable::with_dxo(Dxo::new(DataKind::Weights, Map::new()));
    let mut plain = Shareable::new();
    plain.fields.insert("head", Array::from(&[6.0][..]));
    for payload in [failed, metrics, nothing, plain] {
        for (name, args) in EVERY {
            assert_eq!(apply(&mut *filter(name, &args()), payload.clone()).unwrap(), payload, "{name}");
        }
    }
}

#[test]
fn what_claims_to_be_a_dxo_and_is_none_is_stopped() {
    let mut broken = Shareable::with_dxo(Dxo::new(DataKind::Weights, weights()));
    broken.fields.insert("DXO", Map::from_iter([("kind", "WEIGHTZ")]));
    let odd = Map::from_iter([("a", Value::from(1))]);
    let odd = Shareable::with_dxo(Dxo::new(DataKind::Collection, odd));
    for (name, args) in EVERY {
        for payload in [&broken, &odd] {
            let error = apply(&mut *filter(name, &args()), payload.clone()).unwrap_err();
            assert_eq!(error.return_code(Chain::TaskResult), "TASK_RESULT_FILTER_ERROR", "{name}: {error}");
        }
    }
}

#[test]
fn numbers_that_cannot_be_protected_are_stopped() {
    let half = Array::new(Dtype::F16, [1], vec![0, 0].into()).unwrap();
    let bad = [
        Value::from(Array::from(&[f32::NAN][..])),
        Array::from(&[1.0, f64::INFINITY][..]).into(),
        Value::Float(0.5),
        "text".into(),
        half.into(),
    ];
    for value in bad {
        for (name, args) in &EVERY[1..] {
            let data = Map::from_iter([("w", value.clone()), ("v", Array::from(&[1.0][..]).into())]);
            let error = apply_to(&mut *filter(name, &args()), data).unwrap_err();
            assert!(error.to_string().contains("variable \"w\""), "{name}: {error}");
        }
    }
}

#[test]
fn a_numpy_scalar_stays_one_and_gets_noise_but_no_clip() {
    let data = || {
        Map::from_iter([
            ("w", Value::from(Array::from(&[1.0_f32, 2.0][..]))),
            ("b", Value::Scalar(Scalar::F32(7.0))),
        ])
    };
    let shared = apply_to(&mut *filter("PercentilePrivacy", &json!({})), data()).unwrap();
    assert_eq!(shared.get("b"), Some(&Value::Scalar(Scalar::F32(7.0))));
    let noisy = apply_to(&mut *filter("GaussianNoise", &json!({ "sigma": 1 })), data()).unwrap();
    assert!(matches!(noisy.get("b"), Some(Value::Scalar(Scalar::F32(noisy))) if *noisy != 7.0));
}

#[test]
fn steps_that_are_no_steps_are_stopped() {
    for steps in [Value::from(0), (-1).into(), Value::Float(f64::NAN), "many".into()] {
        let mut dxo = Dxo::new(DataKind::WeightDiff, weights());
        dxo.meta.insert("NUM_STEPS_CURRENT_ROUND", steps);
        for name in ["PercentilePrivacy", "SvtPrivacy"] {
            let payload = Shareable::with_dxo(dxo.clone());
            assert!(apply(&mut *filter(name, &json!({})), payload).is_err());
        }
    }
}

#[test]
fn arguments_with_which_a_filter_would_do_nothing_are_mistakes() {
    for (name, args, said) in [
        ("ExcludeVars", json!({}), "missing field `exclude_vars`"),
        ("ExcludeVars", json!({ "exclude_vars": "" }), "a list of names or a regular expression"),
        ("ExcludeVars", json!({ "exclude_vars": [] }), "a list of names or a regular expression"),
        ("ExcludeVars", json!({ "exclude_vars": [1] }), "must hold text only"),
        ("ExcludeVars", json!({ "exclude_vars": "(" }), "is no regular expression"),
        (
            "ExcludeVars",
            json!({ "exclude_vars": "a", "data_kinds": ["METRICS"] }),
            "unknown variant `METRICS`",
        ),
        ("PercentilePrivacy", json!({ "percentile": 120 }), "a number from 0 to 100"),
        ("PercentilePrivacy", json!({ "gamma": 0 }), "a number above 0"),
        ("ClipNorm", json!({ "max_norm": -1 }), "a number above 0"),
        ("GaussianNoise", json!({}), "one of `sigma` and `ratio`"),
        ("GaussianNoise", json!({ "sigma": 1, "ratio": 1 }), "one of `sigma` and `ratio`"),
        ("GaussianNoise", json!({ "sigma": 1, "seed": 1 }), "unknown field `seed`"),
        ("SvtPrivacy", json!({ "fraction": 2 }), "must not be above 1"),
        ("SvtPrivacy", json!({ "epsilon_query": 0.2 }), "smaller than the whole"),
        ("SvtPrivacy", json!({ "epsilon_query": 0.05, "epsilon_threshold": 0.06 }), "add up to `epsilon`"),
        ("DxoBlocker", json!({ "data_kinds": [] }), "at least one kind"),
        ("DxoBlocker", json!({ "data_kinds": ["WEIGHT"] }), "no kind of DXO is called `WEIGHT`"),
    ] {
        let error = build(&format!("locule.filter.{name}"), &args).err().expect(name).to_string();
        assert!(error.contains(said), "{name} {args}: {error}");
    }
}

#[test]
fn a_blocker_stops_what_may_not_pass_at_any_depth() {
    let inner = Dxo::new(
        DataKind::Collection,
        Map::from_iter([("m", Value::Dxo(Dxo::new(DataKind::Metrics, weights())))]),
    );
    let payload =
        Shareable::with_dxo(Dxo::new(DataKind::Collection, Map::from_iter([("c", Value::Dxo(inner))])));
    let mut blocker = filter("DxoBlocker", &json!({ "data_kinds": ["METRICS"] }));
    let error = apply(&mut *blocker, payload.clone()).unwrap_err();
    assert_eq!(error, FilterError::Blocked("DXO kind METRICS is blocked".into()));
    let mut only = filter("DxoBlocker", &json!({ "data_kinds": ["METRICS"], "allow_data_kinds": true }));
    assert_eq!(apply(&mut *only, payload.clone()).unwrap(), payload);
    assert!(apply(&mut *only, Shareable::with_dxo(Dxo::new(DataKind::Weights, weights()))).is_err());
}

#[test]
fn a_model_within_the_norm_keeps_its_numbers() {
    let data = apply_to(&mut *filter("ClipNorm", &json!({ "max_norm": 12.0 })), weights()).unwrap();
    assert_eq!(data, weights());
    let data = apply_to(&mut *filter("ClipNorm", &json!({ "max_norm": 1.0 })), weights()).unwrap();
    assert_eq!(f64s(&data, "head")[1] / f64s(&data, "head")[0], 8.0 / 6.0);
}

#[test]
fn noise_has_the_deviation_that_was_asked_for() {
    let sigma = Scale::Sigma(Positive::try_from(0.5).unwrap());
    let data = || Map::from_iter([("w", Array::from(&vec![3.0; 40_000][..]))]);
    let mut noise = GaussianNoise::new(sigma, StdRng::seed_from_u64(7));
    let first = f64s(&apply_to(&mut noise, data()).unwrap(), "w");
    let mean = first.iter().sum::<f64>() / first.len() as f64;
    let deviation = (first.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / first.len() as f64).sqrt();
    assert!((mean - 3.0).abs() < 0.01 && (deviation - 0.5).abs() < 0.01, "{mean} {deviation}");
    assert_ne!(f64s(&apply_to(&mut noise, data()).unwrap(), "w"), first, "every call has noise of its own");

    let ratio = Scale::Ratio(Positive::try_from(0.5).unwrap());
    let mut noise = GaussianNoise::new(ratio, StdRng::seed_from_u64(7));
    let scaled = f64s(&apply_to(&mut noise, data()).unwrap(), "w");
    let (a, b) = (scaled[0] - 3.0, first[0] - 3.0);
    assert!((a - 3.0 * b).abs() < 1e-9, "the same random number at three times the deviation: {a} {b}");
}

#[test]
fn two_builds_of_a_noise_filter_draw_different_numbers() {
    let built = || {
        let data = Map::from_iter([("w", Array::from(&[0.0; 8][..]))]);
        f64s(&apply_to(&mut *filter("GaussianNoise", &json!({ "sigma": 1 })), data).unwrap(), "w")
    };
    assert_ne!(built(), built());
}

#[test]
fn a_threshold_that_nothing_passes_is_no_endless_loop() {
    let args = SvtPrivacyArgs { tau: 1e9, ..SvtPrivacyArgs::default() };
    let mut svt = SvtPrivacy::new(args, StdRng::seed_from_u64(1)).unwrap();
    let error = apply_to(&mut svt, weights()).unwrap_err().to_string();
    assert!(error.contains("`tau`"), "{error}");
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => -1.0..1.0f64,
        1 => any::<f64>(),
        1 => Just(0.0),
        1 => Just(f64::MAX),
        1 => Just(5e-324),
    ]
}

fn array() -> impl Strategy<Value = Array> {
    let shaped = prop_oneof![
        Just(vec![]),
        Just(vec![0]),
        Just(vec![3, 0, 2]),
        (1..5usize).prop_map(|n| vec![n]),
        (1..4usize, 1..4usize).prop_map(|(n, m)| vec![n, m]),
    ];
    (shaped, any::<bool>()).prop_flat_map(|(shape, single)| {
        let len: usize = shape.iter().product();
        proptest::collection::vec(number(), len).prop_map(move |all| {
            let narrow: Vec<f32> = all.iter().map(|x| *x as f32).collect();
            if single {
                Array::from_f32(&shape, &narrow).unwrap()
            } else {
                Array::from_f64(&shape, &all).unwrap()
            }
        })
    })
}

fn model() -> impl Strategy<Value = Map> {
    proptest::collection::vec(array(), 0..4)
        .prop_map(|all| all.into_iter().enumerate().map(|(i, array)| (format!("v{i}"), array)).collect())
}

proptest! {
    #[test]
    fn no_filter_panics_or_lets_out_what_is_not_finite(data in model(), percentile in 0.0..=100.0f64) {
        let args = [
            ("PercentilePrivacy", json!({ "percentile": percentile })),
            ("SvtPrivacy", json!({ "fraction": 0.5 })),
            ("ClipNorm", json!({ "max_norm": 0.5 })),
            ("GaussianNoise", json!({ "ratio": 0.5 })),
        ];
        for (name, args) in args {
            let Ok(after) = apply_to(&mut *filter(name, &args), data.clone()) else { continue };
            prop_assert_eq!(after.len(), data.len());
            for (key, value) in after.iter_str() {
                let (value, before) = (value.as_array().unwrap(), data.get(key).unwrap().as_array().unwrap());
                prop_assert_eq!((value.shape(), value.dtype()), (before.shape(), before.dtype()), "{}", name);
                prop_assert!(value.to_f64().iter().all(|x| x.is_finite()), "{}", name);
            }
        }
    }

    #[test]
    fn finite_models_pass_the_clip_with_no_larger_norm(data in model(), bound in 1e-6..1e6f64) {
        let finite = data.iter().all(|(_, value)| value.as_array().unwrap().to_f64().iter().all(|x| x.is_finite()));
        let clipped = apply_to(&mut *filter("ClipNorm", &json!({ "max_norm": bound })), data.clone());
        prop_assert_eq!(clipped.is_ok(), finite);
        let Ok(clipped) = clipped else { return Ok(()) };
        let all = clipped.iter().flat_map(|(_, value)| value.as_array().unwrap().to_f64());
        let norm = all.map(|x| (x / bound).powi(2)).sum::<f64>().sqrt();
        prop_assert!(norm <= 1.0 + 1e-6, "{}", norm);
    }

    #[test]
    fn what_the_percentile_shares_is_bounded(data in model(), percentile in 0.0..=100.0f64) {
        let mut percentile = filter("PercentilePrivacy", &json!({ "percentile": percentile, "gamma": 0.25 }));
        let Ok(after) = apply_to(&mut *percentile, data) else { return Ok(()) };
        for (_, value) in after.iter().filter(|(_, value)| !value.as_array().unwrap().shape().is_empty()) {
            prop_assert!(value.as_array().unwrap().to_f64().iter().all(|x| x.abs() <= 0.25));
        }
    }

    #[test]
    fn an_excluded_variable_is_gone_and_the_others_are_untouched(data in model(), at in 0..4usize) {
        let name = format!("v{at}");
        let after = apply_to(&mut *filter("ExcludeVars", &json!({ "exclude_vars": [name] })), data.clone()).unwrap();
        prop_assert!(!after.contains(&name));
        for (key, value) in data.iter_str().filter(|(key, _)| *key != name) {
            // Compared as text: arrays may hold NaN.
            prop_assert_eq!(format!("{:?}", after.get(key).unwrap().as_array().unwrap().bytes()), format!("{:?}", value.as_array().unwrap().bytes()));
        }
    }
}

//! Downloads: what a source says, what receivers ask, and the arrays that travel.

use std::time::{Duration, Instant};

use bytes::Bytes;
use locule_download::{Download, DownloadError, Offers, Piece, read_npz, write_npz};
use locule_fobs::{Array, Map, Value, encode};
use locule_message::{Fqcn, Payload};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::edit::{edit_object, frames};
use crate::{Allowance, Mutator, Target, seeds, some};

/// Most bytes that a download takes here.
const LIMIT: u64 = 64 << 10;

pub(crate) const DOWNLOAD: Target = Target {
    name: "download",
    about: "a source's reply, taken again and again",
    seeds: seeds::payloads,
    edit: edit_object,
    run: |input| {
        let mut download = Download::new("0", LIMIT);
        let mut held = 0;
        for _ in 0..100_000 {
            match download.accept(Payload::fobs(Bytes::copy_from_slice(input))) {
                Ok(Piece::Data(items)) => held += items.iter().map(Bytes::len).sum::<usize>(),
                Ok(Piece::End { nonce }) => return format!("end {}", nonce.is_some()),
                Err(error @ DownloadError::TooBig { .. }) => return format!("{} {error:?}", held > 0),
                Err(error) => return format!("{error:?}"),
            }
            assert!(held as u64 <= LIMIT, "{held} bytes");
        }
        panic!("a download without end");
    },
    allowance: Allowance { memory: (1 << 16, 400), work: (20_000, 400) },
};

pub(crate) const OFFERS: Target = Target {
    name: "offers",
    about: "what receivers ask of a source, and say to it",
    seeds: || {
        let first = first();
        let first = first.as_str();
        let asks = [
            Map::from_iter([("ref_id", Value::from(first)), ("confirm_capable", true.into())]),
            Map::from_iter([
                ("ref_id", Value::from(first)),
                ("state", Map::from_iter([("start", 0), ("count", 2)]).into()),
            ]),
            Map::from_iter([("ref_id", Value::from(first)), ("cancel", true.into())]),
            Map::from_iter([
                ("ref_id", Value::from(first)),
                ("confirm", "success".into()),
                ("confirm_nonce", "0".into()),
            ]),
        ];
        asks.map(|ask| encode(&Value::Map(ask)).expect("plain").to_vec()).to_vec()
    },
    edit: edit_object,
    run: |input| {
        let (now, mut rng) = (Instant::now(), ChaCha8Rng::seed_from_u64(0));
        let mut offers = Offers::default();
        let items = vec![Bytes::from_static(&[7; 100]), Bytes::from_static(&[8; 100])];
        let idle = Duration::from_secs(60);
        let first = offers.offer(now, &mut rng, items.clone(), 2, idle).expect("there is room");
        assert!(first == self::first(), "the seeds ask for it");
        offers.offer(now, &mut rng, items, 1, idle).expect("there is room");
        let mut outcome = String::new();
        for name in ["site-1", "site-2", "site-1"] {
            let receiver: Fqcn = name.parse().expect("a name");
            let answer =
                offers.answer(now, &mut rng, &receiver, Payload::fobs(Bytes::copy_from_slice(input)));
            outcome += &format!("{:?} {} ", answer.code, some(answer.payload.body.len()));
        }
        offers.handle_timeout(now + idle);
        let mut ended = 0;
        while offers.poll_ended().is_some() {
            ended += 1;
        }
        assert_eq!(ended, 2, "each offer ends once");
        assert_eq!(offers.poll_timeout(), None);
        outcome
    },
    allowance: Allowance { memory: (1 << 16, 200), work: (2000, 20) },
};

/// The name of the first offer, drawn as [`OFFERS`] does.
fn first() -> String {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let offered = Offers::default().offer(Instant::now(), &mut rng, Vec::new(), 1, Duration::ZERO);
    offered.expect("there is room")
}

pub(crate) const NPZ: Target = Target {
    name: "npz",
    about: "an array in its archive",
    seeds: || {
        let arrays = [
            Array::from_f64(&[2, 2], &[0.5, 1.0, -1.0, 2.0]),
            Array::from_f32(&[0], &[]),
            Array::from_i64(&[], &[7]),
        ];
        let mut seeds: Vec<Vec<u8>> = arrays
            .into_iter()
            .map(|array| write_npz("T0", &array.expect("the shape fits")).expect("it is small").to_vec())
            .collect();
        seeds.extend(downloaded());
        seeds
    },
    edit: |_: &mut Mutator, _| None,
    run: |input| match read_npz(&Bytes::copy_from_slice(input)) {
        Ok((name, array)) => {
            let again =
                read_npz(&write_npz(&name, &array).expect("it fits")).expect("what is written is read");
            assert_eq!(again, (name, array.clone()));
            assert!(array.bytes().len() <= input.len());
            format!("{:?} {}", array.dtype(), some(array.shape().len()))
        }
        Err(error) => format!("{error:?}"),
    },
    allowance: Allowance { memory: (64 << 10, 60), work: (200, 4) },
};

/// Archives that real cells sent.
fn downloaded() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for frame in seeds::single().flat_map(|frame| frames(frame)) {
        let ends = frame.windows(4).rposition(|part| part == b"PK\x05\x06");
        let begins = frame.windows(4).position(|part| part == b"PK\x03\x04");
        if let (Some(begins), Some(ends)) = (begins, ends)
            && let Some(archive) = frame.get(begins..ends + 22)
            && read_npz(&Bytes::copy_from_slice(archive)).is_ok()
        {
            found.push(archive.to_vec());
        }
    }
    found
}

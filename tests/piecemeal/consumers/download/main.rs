//! A tool that holds an array for one receiver, and that receiver, without a network between them.

use std::error::Error;
use std::time::{Duration, Instant};

use locule_download::{Download, Offers, Piece, read_npz, write_npz};
use locule_fobs::Array;
use locule_message::Fqcn;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};

fn main() -> Result<(), Box<dyn Error>> {
    let (now, mut rng) = (Instant::now(), ChaCha20Rng::seed_from_u64(1));
    let array = Array::from_f64(&[2], &[0.5, -1.0])?;
    let mut offers = Offers::default();
    let items = vec![write_npz("T0", &array)?];
    let ref_id = offers.offer(now, &mut rng, items, 1, Duration::from_secs(60)).ok_or("too many offers")?;

    let mut download = Download::new(ref_id, 1 << 20);
    let answer = offers.answer(now, &mut rng, &Fqcn::server(), download.request());
    let Piece::Data(items) = download.accept(answer.payload)? else { return Err("no data".into()) };
    assert_eq!(read_npz(&items[0])?.1, array);
    Ok(())
}
